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
    condition = one(replace(OPEN, compare="mcnemar"), answers(0), Rival("version 3", None))
    assert not condition.holds and "gate.compare=none" in condition.found


def test_the_first_champion_has_nobody_to_beat():
    assert judge(replace(OPEN, compare="mcnemar"), outcome(answers(0)), 1, 1, None) == []


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"floors": {"acuracy": 0.9}}, r"gate.floors: acuracy is no metric; did you mean accuracy\?"),
        ({"ceilings": {"x": 1}}, "gate.ceilings: x is no metric; take accuracy"),
        ({"metric": "speed"}, "gate.metric: speed"),
        ({"recall": {"happy": 0.9}}, "gate.recall: happy is no class; take negative, positive or every"),
        ({"alpha": 0.0}, "gate.alpha=0.0"),
    ],
)
def test_conditions_that_cannot_be_asked_for_are_named(gate: dict[str, object], said: str):
    with pytest.raises(UserError, match=said):
        check_gate(replace(OPEN, **gate), CLASSES)  # type: ignore[arg-type]
