from typing import Any

import numpy as np
import pytest

from fer_experiments.search.importance import FEWEST_TRIALS, how_sure, importances
from fer_experiments.search.trials import Trial

SPACE: dict[str, dict[str, Any]] = {
    "training.learning_rate": {"type": "float", "min": 1e-5, "max": 1e-2, "sampling": "log"},
    "head.dense_widths": {"type": "choice", "values": [[128, 64], [256, 128]]},
    "head.name": {"type": "choice", "values": ["conv", "paper"]},
    "head.dropout": {"type": "float", "min": 0, "max": 0.5},
}


def trials(count: int = 40, effect: float = 1.0) -> list[Trial]:
    """Random search of an objective that the learning rate moves, and noise besides."""
    random = np.random.default_rng(0)
    made = []
    for number in range(count):
        rate = random.uniform(-5, -2)
        values = {
            "training.learning_rate": 10**rate,
            "head.dense_widths": SPACE["head.dense_widths"]["values"][random.integers(2)],
            "head.name": ["conv", "paper"][random.integers(2)],
            "head.dropout": random.uniform(0, 0.5),
        }
        score = 0.9 - effect * 0.05 * (rate + 3.5) ** 2 + 0.01 * random.normal()
        made.append(Trial(number=number, values=values, status="finished", score=float(score)))
    return made


def test_what_sets_good_trials_apart_comes_first_and_is_told_from_chance():
    table = importances(trials(), SPACE, "max")
    assert table["name"][0] == "training.learning_rate" and set(table["name"]) == set(SPACE)
    assert table["importance"].sum() == pytest.approx(1) and table["importance"].is_monotonic_decreasing
    first = table.iloc[0]
    assert first["importance"] > first["chance"] and first["p"] <= 0.05 < table["p"][1:].min()
    assert (table["importance"][1:] < table["chance"][1:]).all()
    said = how_sure(table, 40)
    assert said.startswith("More than chance") and said.endswith(": training.learning_rate.")


def test_the_direction_says_which_trials_are_good():
    turned = [Trial(number=t.number, values=t.values, status="finished", score=-(t.score or 0)) for t in trials(20)]
    up, down = importances(trials(20), SPACE, "max"), importances(turned, SPACE, "min")
    assert up.equals(down) and not up.equals(importances(trials(20), SPACE, "min"))


def test_noise_is_told_from_nothing_and_few_trials_say_nothing():
    table = importances(trials(20, effect=0.0), SPACE, "max")
    assert how_sure(table, 20) == "Of 20 trials none of this can be told from chance."
    few = importances(trials(FEWEST_TRIALS - 1), SPACE, "max")
    assert few.empty and list(few) == ["name", "importance", "chance", "p"]


def test_an_objective_that_never_moves_has_no_important_hyperparameter():
    even = [Trial(number=t.number, values=t.values, status="finished", score=0.5) for t in trials(12)]
    table = importances(even, SPACE, "max")
    assert (table["importance"] == 0).all() and (table["p"] == 1).all()


def test_a_hyperparameter_may_be_absent_or_mixed_or_one_above_its_range():
    space = {
        "data.limit": {"type": "choice", "values": [None, 1, "all", True, [1]]},
        "head.normalize": {"type": "bool"},
        "training.epochs": {"type": "int", "min": 1, "max": 8, "when": {"head.normalize": True}},
        "head.l2": {"type": "float", "min": 0.1, "max": 0.2, "when": {"head.normalize": 7}},
    }
    made = []
    for number in range(12):
        values = {"data.limit": space["data.limit"]["values"][number % 5], "head.normalize": number % 2 == 0}
        values |= {"training.epochs": 9} if number % 2 == 0 else {}
        made.append(Trial(number=number, values=values, status="finished", score=number / 10))
    table = importances(made, space, "max").set_index("name")
    assert set(table.index) == set(space) and table["importance"].notna().all()
    assert table["importance"]["head.l2"] == 0
