"""Which hyperparameters mattered in a sweep: those whose values set its good trials apart from all."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fer_experiments.evaluation.metrics import cost
from fer_experiments.evaluation.seeds import holm
from fer_experiments.search.trials import Trial

FEWEST_TRIALS = 10
# Of 14 drawn sweeps of 40 trials over five keys, one of which moves the score, that one is told from chance in 14; with
# Optuna's tenth in 6. Its documentation wants five good trials at least.
GOOD, FEWEST_GOOD = 0.25, 5
SHUFFLES, SHUFFLES_EACH = 200, 25  # at least; a hyperparameter: with fewer Holm's p could not come below SURE
SURE = 0.05


def importances(trials: Sequence[Trial], space: Mapping[str, Mapping[str, Any]], direction: str) -> pd.DataFrame:
    """The share of each hyperparameter in what sets the good trials apart, the largest first.

    PED-ANOVA (Watanabe et al. 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
    Subspaces"), by Optuna: how far the density of a hyperparameter among the best quarter, of five trials at least, is
    from that among all. The same with shuffled scores, which no hyperparameter has moved, is what chance gives.

    Args:
        trials: those that have a score.
        space: that of their sweep.
        direction: max or min: which scores are good.

    Returns:
        Columns name, importance (sums to 1, all 0 where nothing sets them apart), chance (what 95 % of shufflings stay
        below, in the same unit) and p (that chance gives as much; Holm's over all hyperparameters); empty with fewer
        than FEWEST_TRIALS trials.
    """
    columns = ["name", "importance", "chance", "p"]
    if len(trials) < FEWEST_TRIALS:
        return pd.DataFrame({name: [] for name in columns})
    costs = np.array([cost(trial.score, direction) for trial in trials if trial.score is not None])
    random = np.random.default_rng(0)
    count = max(SHUFFLES, SHUFFLES_EACH * len(space))
    found, *shuffled = _divergences(trials, space, [costs, *(random.permutation(costs) for _ in range(count))])
    total = found.sum() or 1.0
    p = holm(((1 + (np.array(shuffled) >= found).sum(axis=0)) / (1 + count)).tolist())
    chance = np.quantile(shuffled, 1 - SURE, axis=0) / total
    table = pd.DataFrame(dict(zip(columns, (list(space), found / total, chance, p), strict=True)))
    return table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


def how_sure(table: pd.DataFrame, trials: int) -> str:
    """A sentence about a table of `importances`: which of them are more than chance."""
    told = table["name"][table["p"] <= SURE].tolist()
    if not told:
        return f"Of {trials} trials none of this can be told from chance."
    return f"More than chance (p ≤ {SURE} by shuffled scores, Holm's): {', '.join(told)}."


def _divergences(
    trials: Sequence[Trial], space: Mapping[str, Mapping[str, Any]], costs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Of each row of costs, a trial each, the divergence of each hyperparameter."""
    import optuna  # takes a second

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study
    study = optuna.create_study()
    had = {path: [trial.values[path] for trial in trials if path in trial.values] for path in space}
    searched = {path: _distribution(entry, had[path]) for path, entry in space.items()}
    for trial in trials:
        params = {path: _place(space[path], value) for path, value in trial.values.items()}
        own = {path: searched[path] for path in params}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=own, value=0.0))
    good = max(GOOD, min(FEWEST_GOOD / len(trials), 0.5))
    made = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that targets are minimised, and that equal ones set no trial apart
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=good)
        for row in costs:
            by_path = evaluator.evaluate(study, target=lambda trial, row=row: float(row[trial.number]))  # type: ignore[misc]
            made.append(np.array([by_path.get(path, 0.0) for path in space]))
    return made


def _distribution(entry: Mapping[str, Any], values: Sequence[Any]) -> Any:
    """What Optuna takes a hyperparameter for; values: those that trials had."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if "min" not in entry:
        return CategoricalDistribution(sorted({str(value) for value in (*entry.get("values", (False, True)), *values)}))
    return FloatDistribution(_place(entry, entry["min"]), _place(entry, entry["max"]))


def _place(entry: Mapping[str, Any], value: Any) -> Any:
    """A value on the scale that it is searched on; one of a choice as text."""
    if "min" not in entry:
        return str(value)
    inside = min(entry["max"], max(entry["min"], value))  # of older records one may lie above (trials.check_raw)
    return math.log(inside) if entry.get("sampling") == "log" else float(inside)
