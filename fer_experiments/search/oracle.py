"""A search space in YAML becomes a KerasTuner oracle that several trials may be asked of at once.

What an oracle asks depends on the sweep's config, the order in which trials were asked and told, and their scores, and
on nothing else: `replay` brings a fresh one to where it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import keras_tuner as kt
from keras_tuner.engine.trial import Trial

from fer_experiments.config import SweepConfig
from fer_experiments.errors import UserError
from fer_experiments.search.identity import seed_of
from fer_experiments.search.oracles import Guided
from fer_experiments.search.space import ORACLES, plain


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
            low, high, step = entry["min"], entry["max"], entry.get("step")
            sampling = entry.get("sampling") or "linear"
            if entry["type"] == "float" and step and sampling == "linear":
                high += 1e-9 * step  # KerasTuner counts steps by 0.5 // 0.1 == 4.0, and would never try 0.5
            add(path, min_value=low, max_value=high, step=step, sampling=sampling)
    return made


def make_oracle(
    sweep: SweepConfig, queue: Sequence[Mapping[str, Any]] = (), warm: Sequence[Mapping[str, Any]] = ()
) -> kt.Oracle:
    """The oracle a sweep asks, without files of its own: `replay` brings it back.

    One thread at a time: KerasTuner's lock is not released by an exception.

    Args:
        sweep: space, objective, seed and kind.
        queue: raw values of the first trials; of an oracle that ends by itself, none.
        warm: raw values and score of trials of another sweep; of an oracle that does not learn, none.
    """
    common: dict[str, Any] = {
        # The direction is given: KerasTuner infers "min" from names it does not know (val_f1_score).
        "objective": kt.Objective(sweep.objective, sweep.direction),
        "hyperparameters": hyperparameters(sweep.space),
        # KerasTuner: seed=0 becomes a random seed (engine/oracle.py, `seed or random.randint`).
        "seed": 1 + seed_of(sweep.seed, 0),
    }
    row = ORACLES[sweep.oracle]
    kind = getattr(import_module(f"fer_experiments.search.{row.module}"), row.name)
    oracle: kt.Oracle = kind(**{setting: getattr(sweep, setting) for setting in row.takes}, **common)
    oracle.queue = queue
    for known in warm:
        oracle.hear(**known)
    oracle.verbose = 0
    # Its JSON files are not written atomically; the sweep writes one state file after each tell instead.
    oracle.save = lambda: None
    oracle._save_trial = lambda trial: None
    # Failures are counted by the sweep, which says which trials failed and why.
    oracle._check_consecutive_failures = lambda: None
    return oracle


def ask(oracle: kt.Oracle, number: int) -> Trial:
    """The trial with this number, one more than the last: RUNNING, or without values IDLE or STOPPED.

    IDLE: there may be more when a trial in flight has been told. STOPPED: there is nothing more.
    """
    # A client of its own for each trial: KerasTuner gives a client that has a trial in flight the same trial again.
    return oracle.create_trial(f"trial {number}")


def tell(oracle: kt.Oracle, trial: Trial, score: float | None) -> None:
    """Ends a trial with its score, or as failed with None or a score that is no finite number."""
    if score is None or not math.isfinite(score):
        trial.status = "FAILED"
    else:
        oracle.update_trial(trial.trial_id, {oracle.objective.name: score})
        trial.status = "COMPLETED"
    oracle.end_trial(trial)


def replay(
    oracle: kt.Oracle, trials: Sequence[tuple[Mapping[str, Any], float | None]], order: Sequence[int]
) -> dict[int, Trial]:
    """Brings a fresh oracle to where it was, by asking and telling again; returns the trials in flight by number.

    Args:
        oracle: nothing asked of it yet.
        trials: raw values and score of each trial by number; the score of one in flight is not looked at.
        order: trial numbers: a number's first place is when it was asked, its second when it was told.

    Raises:
        UserError: the oracle asks something else than it asked then.
    """
    flying: dict[int, Trial] = {}
    told: set[int] = set()
    for number in order:
        values, score = dict(trials[number][0]), trials[number][1]
        if number in flying:
            tell(oracle, flying.pop(number), score)
            told.add(number)
            continue
        if isinstance(oracle, Guided):
            oracle.given = values
        trial = ask(oracle, number)
        if number in told or trial.status != "RUNNING" or trial.hyperparameters.values != values:
            raise UserError(
                f"sweep: the oracle no longer suggests what trial {number} had (another version of keras-tuner?); "
                "say sweep.fresh=true"
            )
        flying[number] = trial
    return flying
