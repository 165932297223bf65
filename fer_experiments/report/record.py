"""What is known of a sweep, gathered from its state file and from the tracking store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fer_experiments.config import SweepConfig, decides_results, read_yaml
from fer_experiments.errors import UserError
from fer_experiments.search.spread import taken
from fer_experiments.search.state import State, status_of
from fer_experiments.tracking import (
    FoundRun,
    Store,
    artifact_json,
    artifact_parsed,
    artifact_table,
    find_run,
    find_runs,
)

CURVES, MATRICES = 6, 3  # of the best runs
CLEANING = {
    "steps": [""], "found": 0, "kept": 0, "found_by_usage": {}, "kept_by_usage": {}, "removed": {},
}  # fmt: skip
INPUTS = ("fer.dataset", "fer.features")  # tags; where trials differ in these, their sweep's run does not have them


@dataclass(frozen=True)
class Record:
    """A sweep as its report needs it; what the store does not have is None or missing.

    status: running, stopped or finished. times: of each trial that ran, the start and end in hours since the first one
    started. curves, matrices: of the best trials, by number: an epoch a row; (classes, counts [true, predicted]).
    seeds: rows of configs that were fitted with several seeds: trial, runs, mean, std, low, high. killed: reasons of
    runs that were ended from outside.
    """

    state: State
    sweep: SweepConfig
    run_id: str
    status: str
    counts: pd.DataFrame | None
    cleaning: dict[str, Any] | None
    hardware: dict[str, Any] | None
    best_config: dict[str, Any] | None
    times: dict[int, tuple[float, float]]
    curves: dict[int, pd.DataFrame]
    matrices: dict[int, tuple[list[str], list[list[int]]]]
    seeds: pd.DataFrame
    killed: list[str]


def read_record(state: State, folder: Path, store: Store) -> Record:
    """Everything that a report shows.

    Raises:
        UserError: the store does not have the sweep's run.
    """
    sweep = state.settings
    store = store.of(state.identity["data.task"])
    parent = _parent_run(store, state)
    runs = find_runs(store, {"fer.sweep_id": state.id, "fer.kind": "trial"})
    best = {t.number: t.run_id for t in state.ranked() if t.run_id}
    shown, matrix = list(best.items()), {"classes": [""], "matrix": [[0]]}
    tables = {n: artifact_table(store, i, "metrics/history.csv", ["epoch"]) for n, i in shown[:CURVES]}
    grids = {n: artifact_json(store, i, "metrics/confusion_matrix.json", matrix) for n, i in shown[:MATRICES]}
    chosen = taken(state)
    return Record(
        state=state,
        sweep=sweep,
        run_id=parent.run_id,
        status=status_of(state, folder),
        counts=artifact_table(store, parent.run_id, "data/counts.csv", ["split"]),
        cleaning=artifact_json(store, parent.run_id, "data/cleaning.json", CLEANING),
        hardware=artifact_json(store, parent.run_id, "environment/hardware.json", {"gpus": [{}]}),
        best_config=artifact_parsed(store, best[chosen.number], "config.yaml", read_yaml)
        if chosen and chosen.number in best
        else None,
        times=_times(runs),
        curves={n: table for n, table in tables.items() if table is not None},
        matrices={n: (grid["classes"], grid["matrix"]) for n, grid in grids.items() if grid},
        seeds=_seeds(store, parent, runs, state, sweep.objective),
        killed=[run.tags.get("fer.error", "no reason is recorded") for run in runs if run.status == "KILLED"],
    )


def _parent_run(store: Store, state: State) -> FoundRun:
    if state.run_id is None:
        raise UserError(f"sweep {state.id}: nothing of it has run; its command, without sweep.fresh, goes on")
    run = find_run(store, state.run_id)
    if run is None:
        where = "say tracking=... and tracking.uri=... as for the sweep itself"
        raise UserError(f"sweep {state.id}: its run {state.run_id} is not in {store}; {where}")
    return run


def _times(runs: list[FoundRun]) -> dict[int, tuple[float, float]]:
    """Hours, by trial; of a trial that ran twice, the last run's. Open runs have no end."""
    first = min((run.started for run in runs), default=0)
    hours = 3.6e6  # milliseconds
    return {
        int(run.tags["fer.trial_number"]): ((run.started - first) / hours, (run.ended - first) / hours)
        for run in runs
        if run.ended and "fer.trial_number" in run.tags
    }


def same_but_seed(run: FoundRun) -> frozenset[tuple[str, str]]:
    """What runs that differ in their seed alone have in common: what decides results, and what they were made of."""
    params = {(key, value) for key, value in run.params.items() if decides_results(key) and key != "training.seed"}
    return frozenset(params | {(key, run.tags.get(key, "")) for key in INPUTS})


def _seeds(store: Store, parent: FoundRun, trials: list[FoundRun], state: State, objective: str) -> pd.DataFrame:
    """The configs of this sweep that were fitted with several seeds, by its trials or by `fer train`."""
    same_inputs = {key: parent.tags[key] for key in INPUTS if key in parent.tags}
    # A run of several fits has their mean under one seed, and the leaderboard has their spread.
    own = {trial.run_id for trial in state.trials if trial.finished and not trial.scores}
    runs = [run for run in trials if run.run_id in own]
    if runs:
        runs += find_runs(store, {"fer.kind": "train", **same_inputs}, "FINISHED")
    groups: dict[frozenset[tuple[str, str]], dict[str, FoundRun]] = {}
    for run in runs:
        if objective in run.metrics:
            groups.setdefault(same_but_seed(run), {}).setdefault(run.params.get("training.seed", ""), run)
    rows = []
    for group in groups.values():
        numbers = [n for run in group.values() if (n := run.tags.get("fer.trial_number"))]
        scores = pd.Series([run.metrics[objective] for run in group.values()])
        if numbers and len(group) > 1:
            rows.append([int(numbers[0]), len(group), scores.mean(), scores.std(), scores.min(), scores.max()])
    return pd.DataFrame(rows, columns=["trial", "runs", "mean", "std", "low", "high"])
