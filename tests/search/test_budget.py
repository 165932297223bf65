"""What ends a sweep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fer_experiments.config import SweepConfig
from fer_experiments.search.budget import COLLISIONS, counted, more, over
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


def repeated(*means: float) -> State:
    """Trials of three fits each, whose means are known to within 0.01 / sqrt(3)."""
    found = state(list(means))
    for trial in found.trials:
        trial.scores = [trial.score - 0.01, trial.score, trial.score + 0.01]  # type: ignore[operator]
    return found


def told(found: State, *order: int) -> State:
    found.order = [place for number in order or range(len(found.trials)) for place in (number, number)]
    return found


@pytest.mark.parametrize(
    ("found", "ended"),
    [
        (told(state([0.8, 0.7, 0.7])), True),
        (told(state([0.8, 0.7, 0.7001]), 1, 2, 0), False),  # told last, whenever it was asked
        (told(state([0.8, 0.7, 0.8001])), False),  # without repeats no noise is known: any step is one
        (told(repeated(0.8, 0.7, 0.808)), True),
        (told(repeated(0.8, 0.7, 0.809)), False),
        (told(repeated(0.8, 0.806, 0.812)), False),  # two small steps are one large one
        (told(state([0.7, 0.8], direction="min")), False),  # there is none before the last two
        (told(state([0.7, 0.8, 0.8], direction="min")), True),
        (told(state([])), False),
    ],
)
def test_patience_ends_a_sweep_whose_best_has_not_moved_by_more_than_its_noise(found: State, ended: bool):
    reason = over(found, sweep(max_trials=9, patience=2, direction=found.identity["sweep.direction"]))
    assert bool(reason) == ended
    if ended:
        best = found.best()
        assert best is not None and f"sweep.patience=2: in as many trials the best, now trial {best.number}" in str(
            reason
        )


def test_failed_trials_try_no_patience():
    found = told(state([0.8, 0.7, 0.7]))
    found.trials[2].score, found.trials[2].status = None, "failed"
    assert over(found, sweep(max_trials=9, patience=2)) is None


def not_run(found: State, *numbers: int) -> State:
    """With these trials answered by the score of another that had their values."""
    for number in numbers:
        found.trials[number].status, found.trials[number].of = "repeated", 0
    return found


def test_trials_that_were_not_run_cost_nothing_and_try_no_patience():
    assert over(not_run(state([0.8, 0.8, 0.7]), 1), sweep(max_trials=3)) is None
    assert over(not_run(state([0.8, 0.8, 0.7, 0.6]), 1), sweep(max_trials=3)) == "sweep.max_trials=3"
    assert over(told(not_run(state([0.8, 0.8, 0.8]), 1, 2)), sweep(max_trials=9, patience=2)) is None


def test_what_was_not_run_is_told():
    assert [counted(told(state(scores))) for scores in ([], [0.1], [0.1, 0.2])] == ["0 trials", "1 trial", "2 trials"]
    assert counted(told(not_run(state([0.1, 0.1, 0.3]), 1))) == "3 trials, 1 of them not run"


def test_what_was_enqueued_is_no_suggestion():
    found = not_run(state([0.8] * (COLLISIONS + 1)), *range(1, COLLISIONS + 1))
    found.queue = [{}] * 9
    assert over(found, sweep(oracle="random", max_trials=99)) is None


def test_an_oracle_that_suggests_what_was_tried_and_nothing_else_has_nothing_more():
    count = COLLISIONS + 1
    found = not_run(state([0.8] * count), *range(1, count))
    reason = over(found, sweep(oracle="tpe", max_trials=99))
    assert reason == f"the tpe oracle, whose last {COLLISIONS} suggestions had been tried"
    assert more(found, sweep(oracle="tpe", max_trials=99)) is None
    assert over(found, sweep(oracle="grid", max_trials=99)) is None, "it tries every value, and ends by itself"
    found.trials[3].status = "finished"
    assert over(found, sweep(oracle="tpe", max_trials=99)) is None


@pytest.mark.parametrize(
    ("found", "budget", "needed"),
    [
        (state([0.1, 0.2]), sweep(), {}),
        (state([0.1, 0.2, 0.3]), sweep(), {"sweep.max_trials": 6}),
        (not_run(state([0.1, 0.1, 0.3]), 1), sweep(max_trials=2), {"sweep.max_trials": 4}),
        (state([0.1], seconds=9000), sweep(max_hours=1.0), {"sweep.max_hours": 5.0}),
        (state([0.1]), sweep(max_hours=1e-7), None),
        (state([0.9]), sweep(target=0.9), {"sweep.target": None}),
        (state([0.9] * 3), sweep(target=0.9), {"sweep.max_trials": 6, "sweep.target": None}),
        (told(state([0.8, 0.7, 0.7])), sweep(max_trials=9, patience=1), {"sweep.patience": 4}),
    ],
)
def test_what_a_sweep_needs_to_go_on_is_enough(found: State, budget: SweepConfig, needed: dict[str, Any] | None):
    given = more(found, budget)
    assert given is not None and (needed is None or given == needed)
    assert over(found, replace(budget, **{key.removeprefix("sweep."): value for key, value in given.items()})) is None


def test_a_target_of_the_other_direction_is_not_reached():
    assert over(state([0.6], direction="min"), sweep(target=0.5, direction="min")) is None


def test_without_max_trials_they_do_not_end_it():
    assert over(state([0.1] * 50), sweep(max_trials=None)) is None
