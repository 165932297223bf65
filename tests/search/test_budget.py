"""What ends a sweep."""

from __future__ import annotations

from typing import Any

import pytest

from fer_experiments.config import SweepConfig
from fer_experiments.search.budget import over
from fer_experiments.search.state import State
from fer_experiments.search.trials import Trial


def state(scores: list[float], seconds: float = 0.0, direction: str = "max") -> State:
    trials = [Trial(number=n, score=s, status="finished") for n, s in enumerate(scores)]
    return State("s", "s", {"sweep.direction": direction}, trials=trials, seconds=seconds)


def sweep(**changes: Any) -> SweepConfig:
    return SweepConfig(**{"name": "s", "max_trials": 3, **changes})


def test_within_the_budget_nothing_is_over():
    assert over(state([0.1, 0.2], seconds=59), sweep(max_hours=1 / 60, target=0.3)) is None


@pytest.mark.parametrize(
    ("found", "budget", "reason"),
    [
        (state([0.1, 0.2, 0.3]), sweep(), "sweep.max_trials=3"),
        (state([0.1], seconds=3600), sweep(max_hours=1.0), "sweep.max_hours=1"),
        (state([0.9]), sweep(target=0.9), "sweep.target=0.9, which trial 0 reached with 0.9000"),
        (state([0.4], direction="min"), sweep(target=0.5, direction="min"), "sweep.target=0.5, which trial 0"),
    ],
)
def test_each_part_of_the_budget_ends_it_and_says_so(found: State, budget: SweepConfig, reason: str):
    assert str(over(found, budget)).startswith(reason)


def test_a_target_of_the_other_direction_is_not_reached():
    assert over(state([0.6], direction="min"), sweep(target=0.5, direction="min")) is None


def test_without_max_trials_they_do_not_end_it():
    assert over(state([0.1] * 50), sweep(max_trials=None)) is None
