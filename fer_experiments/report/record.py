"""What is known of a sweep, gathered from its state file and from the tracking store."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import OmegaConf

from fer_experiments.config import SweepConfig
from fer_experiments.errors import UserError
from fer_experiments.search.state import State, is_locked
from fer_experiments.tracking.store import artifact_text, client_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CURVES, MATRICES = 6, 3  # of the best runs
# Params in which two runs may differ that are the same experiment but for the seed.
FREE = ("training.seed", "data.path", "features.batch_size", "features.shard_size")
FREE_SECTIONS = ("paths.", "tracking.", "compute.", "sweep.")


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


def read_record(state: State, folder: Path, uri: str) -> Record:
    """Everything that a report shows.

    Raises:
        UserError: the store does not have the sweep's run.
    """
    # A failed trial that its sweep learned of from the store has no seconds.
    state = dataclasses.replace(state, trials=[{"seconds": 0.0, **trial} for trial in state.trials])
    sweep = _sweep_config(state.identity)
    client = client_of(uri)
    parent = _parent_run(client, state, uri)
    tags = {"fer.sweep_id": state.id, "fer.kind": "trial"}
    runs = _search(client, parent.info.experiment_id, tags)
    best = {t["number"]: t["run_id"] for t in state.ranked() if t.get("run_id")}
    tables = {n: _table(client, run_id, "metrics/history.csv") for n, run_id in list(best.items())[:CURVES]}
    grids = {n: _json(client, i, "metrics/confusion_matrix.json") for n, i in list(best.items())[:MATRICES]}
    config = artifact_text(client, next(iter(best.values())), "config.yaml") if best else None
    return Record(
        state=state,
        sweep=sweep,
        run_id=parent.info.run_id,
        status="running" if is_locked(folder) else "stopped" if state.status == "running" else "finished",
        counts=_table(client, parent.info.run_id, "data/counts.csv"),
        cleaning=_json(client, parent.info.run_id, "data/cleaning.json"),
        hardware=_json(client, parent.info.run_id, "environment/hardware.json"),
        best_config=_plain_dict(OmegaConf.load(io.StringIO(config))) if config else None,
        times=_times(runs),
        curves={n: table for n, table in tables.items() if table is not None},
        matrices={n: (grid["classes"], grid["matrix"]) for n, grid in grids.items() if grid},
        seeds=_seeds(client, parent, runs, state, sweep.objective),
        killed=[run.data.tags.get("fer.error", "no reason is recorded") for run in runs if run.info.status == "KILLED"],
    )


def _sweep_config(identity: Mapping[str, Any]) -> SweepConfig:
    """The sweep's settings but for its budget, which is no part of what it is."""
    known = {field.name for field in dataclasses.fields(SweepConfig)}
    own = {key.removeprefix("sweep."): value for key, value in identity.items() if key.startswith("sweep.")}
    return SweepConfig(**{key: value for key, value in own.items() if key in known})


def _parent_run(client: MlflowClient, state: State, uri: str) -> Run:
    try:
        assert state.run_id is not None  # set before the state is first written
        return client.get_run(state.run_id)
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
            raise
        where = "say tracking=... and tracking.uri=... as for the sweep itself"
        raise UserError(f"sweep {state.id}: its run {state.run_id} is not in {uri}; {where}") from error


def _search(client: MlflowClient, experiment_id: str, tags: Mapping[str, str], status: str | None = None) -> list[Run]:
    """The runs of an experiment that have these tags, the oldest first."""
    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    query += f" and attributes.status = '{status}'" if status else ""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], query, order_by=["start_time ASC"], page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def _times(runs: list[Run]) -> dict[int, tuple[float, float]]:
    """Hours, by trial; of a trial that ran twice, the last run's. Open runs have no end."""
    ended = [run for run in runs if run.info.end_time and "fer.trial_number" in run.data.tags]
    first = min((run.info.start_time for run in runs), default=0)
    hours = 3.6e6  # milliseconds
    return {
        int(run.data.tags["fer.trial_number"]): (
            (run.info.start_time - first) / hours,
            (run.info.end_time - first) / hours,
        )
        for run in ended
    }


def _seeds(client: MlflowClient, parent: Run, trials: list[Run], state: State, objective: str) -> pd.DataFrame:
    """The configs of this sweep that were fitted with several seeds, by its trials or by `fer train`."""
    inputs = ("fer.dataset", "fer.features")  # where trials differ in these, the parent does not have them
    same_inputs = {key: parent.data.tags[key] for key in inputs if key in parent.data.tags}
    own = {trial["run_id"] for trial in state.trials if trial["status"] == "finished"}
    runs = [run for run in trials if run.info.run_id in own]
    if runs:
        runs += _search(client, parent.info.experiment_id, {"fer.kind": "train", **same_inputs}, "FINISHED")
    groups: dict[frozenset[tuple[str, str]], dict[str, Run]] = {}
    for run in runs:
        params = run.data.params
        same = frozenset((k, v) for k, v in params.items() if k not in FREE and not k.startswith(FREE_SECTIONS))
        same |= {(key, run.data.tags.get(key, "")) for key in inputs}
        if objective in run.data.metrics:
            groups.setdefault(same, {}).setdefault(params.get("training.seed", ""), run)
    rows = []
    for group in groups.values():
        numbers = [n for run in group.values() if (n := run.data.tags.get("fer.trial_number"))]
        scores = pd.Series([run.data.metrics[objective] for run in group.values()])
        if numbers and len(group) > 1:
            rows.append([int(numbers[0]), len(group), scores.mean(), scores.std(), scores.min(), scores.max()])
    return pd.DataFrame(rows, columns=["trial", "runs", "mean", "std", "low", "high"])


def _json(client: MlflowClient, run_id: str, path: str) -> Any:
    text = artifact_text(client, run_id, path)
    return json.loads(text) if text else None


def _table(client: MlflowClient, run_id: str, path: str) -> pd.DataFrame | None:
    text = artifact_text(client, run_id, path)
    return pd.read_csv(io.StringIO(text)) if text else None


def _plain_dict(node: Any) -> dict[str, Any]:
    container = OmegaConf.to_container(node)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
