"""The gate: each condition alone, with its figure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fer_experiments.config import GateConfig
from fer_experiments.data import TestSplit
from fer_experiments.errors import UserError
from fer_experiments.evaluation.bootstrap import evaluate
from fer_experiments.evaluation.robustness import UNCHANGED, Part, measured
from fer_experiments.registry.gate import Condition, Rival, check_gate, judge
from fer_experiments.registry.sealed import Outcome

CLASSES = ("negative", "positive")
OPEN = GateConfig(name="open", compare="none")
LABELS = np.array([0, 1] * 200)


def answers(wrong: int, first: int = 0) -> np.ndarray:
    """Probabilities that take `wrong` images from `first` on for the other class."""
    right = np.where(LABELS == 1, 0.9, 0.1)
    right[first : first + wrong] = 1 - right[first : first + wrong]
    return np.stack([1 - right, right], axis=1)


def outcome(probabilities: np.ndarray) -> Outcome:
    blank = np.array([""] * len(LABELS))
    test = TestSplit(np.zeros((len(LABELS), 1, 1), np.uint8), LABELS, blank, blank, blank, CLASSES, "f" * 64)
    recall = {name: float(np.mean(probabilities[i == LABELS].argmax(axis=1) == i)) for i, name in enumerate(CLASSES)}
    return Outcome(test, probabilities, evaluate(LABELS, probabilities, resamples=20), recall, pd.DataFrame(), 1)


def one(gate: GateConfig, probabilities: np.ndarray, rival: Rival | None = None) -> Condition:
    (condition,) = judge(gate, outcome(probabilities), 5.0, 20.0, rival)
    return condition


def test_a_gate_without_conditions_lets_everything_pass():
    assert judge(OPEN, outcome(answers(400)), 1e9, 1e9, Rival("version 1", answers(0))) == []


@pytest.mark.parametrize(("limit", "holds"), [(0.95, True), (0.951, False)])
def test_a_floor_holds_when_it_is_reached(limit: float, holds: bool):
    condition = one(replace(OPEN, floors={"accuracy": limit}), answers(20))
    assert condition == Condition(f"accuracy at least {limit:g}", "0.9500", holds)


def test_a_metric_that_is_not_a_number_does_not_hold():
    result = outcome(answers(0))
    result.scores["roc_auc"] = replace(result.scores["roc_auc"], value=float("nan"))
    (condition,) = judge(replace(OPEN, floors={"roc_auc": 0.1}), result, 1, 1, None)
    assert not condition.holds


def test_what_cannot_be_compared_does_not_hold():
    result, gate = outcome(answers(0)), replace(OPEN, compare="bootstrap", metric="roc_auc")
    of_one_class = replace(result, test=replace(result.test, labels=np.ones(len(LABELS), int)))
    condition = judge(gate, of_one_class, 1, 1, Rival("version 1", answers(3)))[0]
    assert not condition.holds and condition.found == "roc_auc cannot be computed on these images"


@pytest.mark.parametrize(("limit", "holds"), [(0.2, True), (0.01, False)])
def test_a_ceiling(limit: float, holds: bool):
    condition = one(replace(OPEN, ceilings={"log_loss": limit}), answers(0))
    assert (condition.found, condition.holds) == (f"{-np.log(0.9):.4f}", holds)


def test_recall_of_a_class_by_name_goes_before_that_of_every_class():
    gate = replace(OPEN, recall={"every": 0.99, "positive": 0.9})
    conditions = judge(gate, outcome(answers(20)), 1, 1, None)  # ten of each class
    assert [(c.asked, c.found, c.holds) for c in conditions] == [
        ("recall of negative at least 0.99", "0.9500", False),
        ("recall of positive at least 0.9", "0.9500", True),
    ]


def test_size_and_latency():
    assert one(replace(OPEN, max_mb=4.9), answers(0)) == Condition("at most 4.9 MB", "5.0 MB", False)
    slow = one(replace(OPEN, max_latency_ms=20), answers(0))
    assert slow == Condition("at most 20 ms for one image", "20.0 ms", True)


@pytest.mark.parametrize("compare", ["mcnemar", "bootstrap"])
def test_worse_than_the_champion_is_refused_and_a_little_difference_is_not(compare: str):
    gate = replace(OPEN, compare=compare)
    champion = Rival("version 3", answers(10, first=100))
    worse = one(gate, answers(40), champion)
    assert not worse.holds and "version 3" in worse.asked and "p = " in worse.found
    assert one(gate, answers(13), champion).holds
    assert one(gate, answers(0), champion).holds


def test_mcnemar_names_the_images_that_only_one_has_right():
    found = one(replace(OPEN, compare="mcnemar"), answers(40), Rival("version 3", answers(10, first=100))).found
    assert "right where it is wrong 10 times, wrong where it is right 40 times" in found


def test_for_a_loss_lower_is_better():
    gate = replace(OPEN, compare="bootstrap", metric="log_loss")
    assert not one(gate, answers(40), Rival("version 3", answers(10))).holds
    assert one(gate, answers(10), Rival("version 3", answers(40))).holds


def test_a_champion_of_another_test_split_cannot_be_compared():
    condition = one(replace(OPEN, compare="mcnemar"), answers(0), Rival("version 3", None, missing="it was lost"))
    assert not condition.holds and condition.found.startswith("it was lost, so that") and "=none" in condition.found


@pytest.mark.parametrize("alpha", [0.001, 0.004])
def test_a_bootstrap_sees_however_small_an_alpha_is_asked_for(alpha: float):
    gate = replace(OPEN, compare="bootstrap", metric="accuracy", alpha=alpha)
    assert not one(gate, answers(400), Rival("version 3", answers(0))).holds
    check_gate(gate, CLASSES)
    with pytest.raises(UserError, match=r"gate\.alpha=0\.0004: gate\.compare=bootstrap tells none below 0\.001; take"):
        check_gate(replace(gate, alpha=0.0004), CLASSES)


def on(name: str, wrong: int, champions: np.ndarray | None = None) -> Part:
    return measured(name, LABELS, answers(wrong), champions, resamples=20)


def test_a_floor_on_a_slice_and_on_a_corruption():
    parts = [on("emotion_sad", 40), on("emotion_fear", 20), on("noise_5", 200), on(UNCHANGED, 0)]
    gate = replace(OPEN, slices={"every": 0.92, "emotion_fear": 0.95, "noise_5": 0.6, "blur_1": 0.1})
    conditions = judge(gate, outcome(answers(0)), 1, 1, None, parts)
    assert [(c.asked, c.found, c.holds) for c in conditions] == [
        ("accuracy on emotion_sad at least 0.92", "0.9000 of 400 images", False),
        ("accuracy on emotion_fear at least 0.95", "0.9500 of 400 images", True),
        ("accuracy on noise_5 at least 0.6", "0.5000 of 400 images", False),
        ("accuracy on blur_1 at least 0.1", "the test split has no image of it", False),
    ]


def test_a_model_that_is_better_on_average_and_worse_on_one_emotion_is_refused():
    """With that sentence."""
    gate = replace(OPEN, compare="mcnemar", worse={"every": 0.02})
    parts = [on("emotion_sad", 40, answers(10, first=100)), on("emotion_fear", 10, answers(90))]
    whole, sad, fear = judge(gate, outcome(answers(20)), 1, 1, Rival("version 3", answers(80)), parts)
    assert whole.holds and fear.holds and not sad.holds
    assert sad.asked == "on emotion_sad at most 0.02 worse than the champion, version 3 (p < 0.025)"
    assert sad.found.startswith("0.0750 (0.0") and sad.found.endswith(") on 400 images, McNemar's exact p = 2.39e-05")


@pytest.mark.parametrize(("wrong", "limit", "holds"), [(40, 0.08, True), (40, 0.07, False), (18, 0.01, True)])
def test_worse_is_what_lies_beyond_the_limit_and_is_not_by_chance(wrong: int, limit: float, holds: bool):
    gate = replace(OPEN, compare="mcnemar", worse={"noise_5": limit})
    parts = [on("noise_5", wrong, answers(10, first=100)), on("emotion_sad", 100, answers(0))]
    condition = judge(gate, outcome(answers(0)), 1, 1, Rival("version 3", answers(0)), parts)[1]
    assert condition.holds == holds


def test_the_more_slices_are_looked_at_the_less_a_single_one_says():
    champion = answers(20, first=100)
    parts = [on(f"emotion_{number}", 40, champion) for number in range(12)]
    for limits, holds in (({"emotion_3": 0.02}, False), ({"every": 0.02}, True)):
        gate = replace(OPEN, compare="mcnemar", worse=limits)
        conditions = judge(gate, outcome(answers(0)), 1, 1, Rival("version 3", answers(0)), parts)[1:]
        assert len(conditions) == len(parts) or len(limits) == 1
        assert all(condition.holds == holds for condition in conditions)


def test_a_champion_that_could_not_be_asked_is_no_reason_to_pass():
    gate = replace(OPEN, compare="mcnemar", worse={"noise_5": 0.1})
    parts = [on("noise_5", 0)]
    condition = judge(gate, outcome(answers(0)), 1, 1, Rival("version 3", answers(0)), parts)[1]
    assert not condition.holds and "version 3 could not be asked; gate.compare=none goes without" in condition.found
    assert judge(replace(gate, compare="none"), outcome(answers(0)), 1, 1, Rival("version 3", answers(0)), parts) == []


def test_the_first_champion_has_nobody_to_beat():
    assert judge(replace(OPEN, compare="mcnemar"), outcome(answers(0)), 1, 1, None) == []


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"floors": {"acuracy": 0.9}}, r"gate.floors: acuracy is no metric; did you mean accuracy\?"),
        ({"ceilings": {"x": 1}}, "gate.ceilings: x is no metric; take accuracy"),
        ({"metric": "speed"}, "gate.metric: speed"),
        ({"recall": {"happy": 0.9}}, "gate.recall: happy is no class; take negative, positive or every"),
        (
            {"slices": {"emotion_sat": 0.9}},
            r"gate.slices: emotion_sat is no slice and no .*mean emotion_sad or emotion_",
        ),
        ({"worse": {"9": 0.1}}, "gate.worse: 9 is no slice and no corruption; take emotion_fear, emotion_sad, a corr"),
        ({"worse": {"noise_6": 0.1}}, r"gate.worse: noise_6 .*did you mean noise_"),
        ({"slices": {"noise_5": 0.1}}, "gate.slices: noise_5 is not asked for with promote.corruptions=0"),
        ({"alpha": 0.0}, "gate.alpha=0.0"),
        ({"floors": {"f1": 0.9, "accuracy": 93}}, "gate.floors.accuracy=93: no model has more than 1; say a share"),
        ({"floors": {"brier_score": 2.1}}, "gate.floors.brier_score=2.1: no model has more than 2"),
        ({"ceilings": {"log_loss": -0.1}}, "gate.ceilings.log_loss=-0.1: no model has less than 0"),
    ],
)
def test_conditions_that_cannot_be_asked_for_are_named(gate: dict[str, object], said: str):
    with pytest.raises(UserError, match=said):
        check_gate(replace(OPEN, **gate), CLASSES, ["emotion_fear", "emotion_sad"], corrupt=False)  # type: ignore[arg-type]


def test_limits_that_a_model_can_just_reach_may_be_asked_for():
    check_gate(replace(OPEN, floors={"accuracy": 1, "brier_score": 2, "log_loss": 9}, ceilings={"f1": 0}), CLASSES)
