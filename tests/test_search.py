"""Real KerasTuner oracles, stopped and gone on with from plain data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fer_experiments import search
from fer_experiments.config import SweepConfig
from fer_experiments.errors import UserError
from fer_experiments.space import decode

SPACE: dict[str, Any] = {
    "head.l2": {"type": "float", "min": 1e-6, "max": 1e-1, "sampling": "log"},
    "head.dense_widths": {"type": "choice", "values": [[], [32], [64, 32]]},
    "head.dropout": {"type": "float", "min": 0.0, "max": 0.5},
    "training.epochs": {"type": "int", "min": 1, "max": 4},
    "head.normalize": {"type": "bool"},
}


def sweep(oracle: str, **changes: Any) -> SweepConfig:
    given = {"space": SPACE, "max_trials": 6, "max_epochs": 4, **changes}
    return SweepConfig(name="test", oracle=oracle, seed=0, **given)


def score(values: dict[str, Any]) -> float:
    return 1.0 - abs(values["head.l2"] - 1e-3) - 0.01 * len(values.get("head.dense_widths", []))


def run(config: SweepConfig, trials: int, *, stop_after_each: bool = False) -> list[dict[str, Any]]:
    """The raw values of the trials asked; with `stop_after_each`, of an oracle made anew before each trial."""
    oracle = search.make_oracle(config)
    told: list[tuple[dict[str, Any], float | None]] = []
    for number in range(trials):
        if stop_after_each:
            oracle = search.make_oracle(config)
            search.replay(oracle, json.loads(json.dumps(told)))
        trial = search.ask(oracle)
        if trial is None:
            break
        result = None if number == 1 else score(decode(config.space, trial.hyperparameters.values))
        told.append((dict(trial.hyperparameters.values), result))
        search.tell(oracle, trial, result)
    return [values for values, _ in told]


@pytest.mark.parametrize("name", ["random", "grid", "hyperband"])
def test_an_oracle_stopped_after_every_trial_asks_the_same(name: str):
    config = sweep(name, max_trials=12)
    asked = run(config, 12)
    assert len(asked) >= 9
    assert asked == run(config, 12, stop_after_each=True)


def test_bayesian_search_stopped_after_every_trial_asks_the_same():
    space = {"head.l2": SPACE["head.l2"], "head.dropout": SPACE["head.dropout"]}
    config = sweep("bayesian", space=space, max_trials=9)  # six random trials, then the Gaussian process
    assert run(config, 9) == run(config, 9, stop_after_each=True)


def test_a_record_of_another_oracle_is_refused():
    with pytest.raises(UserError, match=r"sweep.fresh=true"):
        search.replay(search.make_oracle(sweep("random")), [({"head.l2": 0.5}, 1.0)])


def test_a_trial_that_was_asked_and_never_told_is_asked_again():
    config = sweep("random")
    oracle = search.make_oracle(config)
    first = search.ask(oracle)
    search.tell(oracle, first, 0.5)
    lost = search.ask(oracle).hyperparameters.values
    fresh = search.make_oracle(config)
    search.replay(fresh, [(first.hyperparameters.values, 0.5)])
    assert search.ask(fresh).hyperparameters.values == lost


def test_seed_zero_is_a_seed():
    assert run(sweep("random"), 4) == run(sweep("random"), 4)


def test_a_raised_budget_goes_on():
    oracle, told = search.make_oracle(sweep("random", max_trials=2)), []
    while (trial := search.ask(oracle)) is not None:
        told.append((trial.hyperparameters.values, 0.5))
        search.tell(oracle, trial, 0.5)
    assert len(told) == 2
    more = search.make_oracle(sweep("random", max_trials=3))
    search.replay(more, told)
    assert search.ask(more) is not None


def test_grid_tries_everything_once():
    space = {path: SPACE[path] for path in ("head.dense_widths", "head.normalize")}
    config = sweep("grid", space=space, max_trials=None)
    oracle, seen = search.make_oracle(config), []
    while (trial := search.ask(oracle)) is not None:
        seen.append(json.dumps(decode(space, trial.hyperparameters.values), sort_keys=True))
        search.tell(oracle, trial, 0.5)
    assert len(seen) == len(set(seen)) == 6


def test_hyperband_grants_epochs_and_names_the_parent():
    asked = run(sweep("hyperband", max_trials=None), 40)
    later = [raw for raw in asked if raw["tuner/round"] > 0]
    assert later and all(raw["tuner/epochs"] > raw["tuner/initial_epoch"] > 0 for raw in later)
    assert all("tuner/trial_id" in raw for raw in later)


def test_a_failed_trial_does_not_stop_the_oracle():
    oracle = search.make_oracle(sweep("random", max_trials=6))
    for _ in range(5):
        search.tell(oracle, search.ask(oracle), None)
    assert search.ask(oracle) is not None


def test_trials_have_seeds_of_their_own():
    seeds = {search.seed_of(seed, number) for seed in range(20) for number in range(20)}
    assert len(seeds) == 400 and all(0 <= s < 2**31 for s in seeds)
