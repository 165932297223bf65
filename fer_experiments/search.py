"""A search space in YAML becomes a KerasTuner oracle, brought back after a stop by replaying its trials."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner as kt
import numpy as np

from fer_experiments.config import SweepConfig
from fer_experiments.errors import UserError
from fer_experiments.space import plain

TUNER = "fer"  # the one client of the oracle


def hyperparameters(space: Mapping[str, Mapping[str, Any]]) -> kt.HyperParameters:
    """The space as KerasTuner's hyperparameters, named by config path."""
    made = kt.HyperParameters()
    for path, entry in space.items():
        if entry["type"] == "bool":
            made.Boolean(path)
        elif entry["type"] == "choice":
            values = entry["values"]
            # KerasTuner takes only scalars of one type: anything else travels as JSON.
            made.Choice(path, values if plain(values) else [json.dumps(v) for v in values])
        else:
            add = made.Int if entry["type"] == "int" else made.Float
            ends = {"min_value": entry["min"], "max_value": entry["max"]}
            add(path, **ends, step=entry.get("step"), sampling=entry.get("sampling") or "linear")
    return made


class BayesianOracle(kt.oracles.BayesianOptimizationOracle):
    """KerasTuner's Bayesian search, its randomness a function of the trial: a resumed search is the same."""

    given: dict[str, Any] | None = None  # the next suggestion, when it is known already

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next suggestion."""
        if self.given is not None:
            values, self.given = self.given, None
            return {"status": "RUNNING", "values": values}
        self._random_state = np.random.RandomState(seed_of(self.seed, len(self.trials)))
        return super().populate_space(trial_id)


def make_oracle(sweep: SweepConfig) -> kt.Oracle:
    """The oracle a sweep asks, without files of its own: `replay` brings it back.

    Raises:
        UserError: an unknown oracle.
    """
    common: dict[str, Any] = {
        # The direction is given: KerasTuner infers "min" from names it does not know (val_f1_score).
        "objective": kt.Objective(sweep.objective, sweep.direction),
        "hyperparameters": hyperparameters(sweep.space),
        # KerasTuner: seed=0 becomes a random seed (engine/oracle.py, `seed or random.randint`).
        "seed": 1 + seed_of(sweep.seed, 0),
        # Failures are counted by the sweep, which says which trials failed and why.
        "max_consecutive_failed_trials": 10**9,
    }
    match sweep.oracle:
        case "random":
            oracle = kt.oracles.RandomSearchOracle(max_trials=sweep.max_trials, **common)
        case "bayesian":
            initial = max(3, 3 * len(sweep.space))  # KerasTuner's default, made known to `replay`
            oracle = BayesianOracle(max_trials=sweep.max_trials, num_initial_points=initial, **common)
        case "grid":
            oracle = kt.oracles.GridSearchOracle(max_trials=sweep.max_trials, **common)
        case "hyperband":
            oracle = kt.oracles.HyperbandOracle(max_epochs=sweep.max_epochs, factor=sweep.factor, **common)
        case _:
            raise UserError(f"sweep.oracle={sweep.oracle}: choose one of random, bayesian, hyperband, grid")
    oracle.verbose = 0
    # Its JSON files are not written atomically; the sweep writes one state file after each tell instead.
    oracle.save = lambda: None
    oracle._save_trial = lambda trial: None
    return oracle


def ask(oracle: kt.Oracle) -> kt.engine.trial.Trial | None:
    """The next trial, or None when the oracle has no more."""
    trial = oracle.create_trial(TUNER)
    return trial if trial.status == "RUNNING" else None


def tell(oracle: kt.Oracle, trial: kt.engine.trial.Trial, score: float | None) -> None:
    """Ends a trial with its score, or as failed with None."""
    if score is None:
        trial.status = "FAILED"
    else:
        oracle.update_trial(trial.trial_id, {oracle.objective.name: score})
        trial.status = "COMPLETED"
    oracle.end_trial(trial)


def replay(oracle: kt.Oracle, trials: Sequence[tuple[Mapping[str, Any], float | None]]) -> None:
    """Brings a fresh oracle to where it was after these trials, (raw values, score) each, by asking and telling again.

    KerasTuner's own state is not enough: GridSearchOracle keeps the order of its walk out of it (1.4.8).

    Raises:
        UserError: the oracle asks something else than it asked then.
    """
    for number, (values, score) in enumerate(trials):
        completed = sum(score is not None for _, score in trials[:number])
        if isinstance(oracle, BayesianOracle) and completed >= oracle.num_initial_points:
            oracle.given = dict(values)  # spares the Gaussian process, seconds a trial
        trial = ask(oracle)
        if trial is None or trial.hyperparameters.values != dict(values):
            raise UserError(
                f"sweep: the oracle no longer suggests what trial {number} had (another version of keras-tuner?); "
                "say sweep.fresh=true"
            )
        tell(oracle, trial, score)


def seed_of(seed: int, number: int) -> int:
    """The seed of a trial: from the sweep's seed and the trial's number, below 2**31."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)
