"""What is taken away from what is recorded: heads of runs, and runs that were deleted in the UI."""

from __future__ import annotations

from typing import Any

from fer_experiments.errors import UserError
from fer_experiments.tracking import sqlite
from fer_experiments.tracking.moved import local
from fer_experiments.tracking.queries import FoundRun, find_everywhere
from fer_experiments.tracking.store import Store, client_of

HEAD = "fer.head"  # tag of a run whose head is gone, and why


def drop_head(store: Store, run_id: str, why: str) -> None:
    """Deletes the head (artifact model/) of a run, which says so from then on, unless it was deleted in the UI,
    where MLflow takes no tags; one that is gone is no error."""
    _own_artifacts(store, run_id).delete_artifacts("model")
    client = client_of(store)
    if client.get_run(run_id).info.lifecycle_stage == "active":
        client.set_tag(run_id, HEAD, f"deleted: {why}")


def artifact_size(store: Store, run_id: str, path: str | None = None) -> int:
    """The size of a run's artifacts, or of those in a folder of them."""
    return _size(_artifacts(store, run_id), path)


def deleted_runs(store: Store) -> list[FoundRun]:
    """This program's runs of all experiments that were deleted in the UI, the oldest first."""
    active = {run.run_id for run in find_everywhere(store, "")}
    found = find_everywhere(store, "", deleted=True)
    return [run for run in found if run.run_id not in active and "fer.kind" in run.tags]


def purge(store: Store, run_id: str) -> None:
    """Removes a deleted run with its artifacts for good; a server keeps its row, which takes next to nothing."""
    _own_artifacts(store, run_id).delete_artifacts()
    if sqlite.database_of(store.uri) is not None:
        client_of(store)._tracking_client.store._hard_delete_run(run_id)  # MLflow: what `mlflow gc` does


def _own_artifacts(store: Store, run_id: str) -> Any:
    """Those of a run, if they are not another store's: a copy of a database names the files of the original.

    Raises:
        UserError: they lie beside another database.
    """
    database, artifacts = sqlite.database_of(store.uri), _artifacts(store, run_id)
    place = local(artifacts.artifact_uri)
    if database is not None and place is not None:
        place = place.resolve()
        if not any(place.is_relative_to(root.resolve()) for root in (store.mlruns, database.parent)):
            raise UserError(f"run {run_id}: its files are in {place}, of another store; nothing there is removed")
    return artifacts


def _artifacts(store: Store, run_id: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(client_of(store).get_run(run_id).info.artifact_uri, tracking_uri=store.uri)


def _size(artifacts: Any, path: str | None) -> int:
    found = artifacts.list_artifacts(path)
    return sum(_size(artifacts, entry.path) if entry.is_dir else entry.file_size or 0 for entry in found)
