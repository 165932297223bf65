"""What a process that died left behind: runs to close, and trials that ended without their sweep hearing of it."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fer_experiments.backbones.hub_layers import mended
from fer_experiments.terminal import Echo, fit
from fer_experiments.tracking.processes import is_alive
from fer_experiments.tracking.queries import FoundRun, artifact, artifact_text, find_runs
from fer_experiments.tracking.store import Store, client_of

if TYPE_CHECKING:
    import keras

RECORD = "trial.json"  # of a finished trial: what its sweep keeps of it
PATIENCE_S = 5.0  # for a worker whose driver is dead: it dies too


def close_orphans(store: Store, echo: Echo | None = None) -> list[FoundRun]:
    """Closes, as KILLED, the running runs of the store's experiment whose process is dead; returns and tells them.

    A process on another machine, which cannot be seen from here, counts as dead when its driver is.
    """
    closed = []
    for run in find_runs(store, status="RUNNING"):
        if _is_orphan(run.tags.get("fer.process", ""), run.tags.get("fer.driver", "")):
            _close(store, run, "KILLED", "its process died")
            closed.append(run)
            if echo:
                echo(f"{fit(run.name)}: left running by a process that died, closed as KILLED")
    return closed


def _is_orphan(process: str, driver: str) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while is_alive(process) and is_alive(driver) is False and time.monotonic() < deadline:
        time.sleep(0.1)
    alive = is_alive(process)
    return alive is False or (alive is None and is_alive(driver) is False)


def close_runs(store: Store, tags: Mapping[str, str], status: str, reason: str) -> None:
    """Closes from outside the running runs that have these tags, with the reason as their tag fer.error."""
    for run in find_runs(store, tags, status="RUNNING"):
        _close(store, run, status, reason)


def _close(store: Store, run: FoundRun, status: str, reason: str) -> None:
    client = client_of(store)
    client.set_tag(run.run_id, "fer.error", reason)
    client.set_terminated(run.run_id, status)


def ended_trial(
    store: Store, sweep_id: str, number: int, is_of: Callable[[FoundRun], bool] = lambda run: True
) -> dict[str, Any] | None:
    """The record of a trial whose run came to its end, or None: its sweep may have died before it heard of it.

    is_of: whether a run of this number is of this very trial: where a state was brought back from an older copy,
    another may have had it.

    Raises:
        ValueError: its runs have no such record, or one that is cut.
    """
    runs = find_runs(store, {"fer.sweep_id": sweep_id, "fer.kind": "trial", "fer.trial_number": str(number)})
    runs = [run for run in runs if is_of(run)]
    unreadable: ValueError | None = None
    for run in runs:
        if run.status == "FINISHED":
            try:
                record: dict[str, Any] = json.loads(artifact_text(store, run.run_id, RECORD) or "")
                return record
            except ValueError as error:
                unreadable = error  # one that was run again, for that, has another
    if unreadable:
        raise unreadable
    if runs and (last := runs[-1]).status == "FAILED":  # one that was run again after it failed has not failed yet
        said = last.tags.get("fer.error", "")
        return {"status": "failed", "score": None, "run_id": last.run_id, "error": said, "seconds": 0.0}
    return None


def load_head(store: Store, run_id: str) -> keras.Model:
    """The head that a run logged as model/."""
    import keras

    with tempfile.TemporaryDirectory() as folder:
        path = artifact(store, run_id, "model/data/model.keras", folder)
        return mended(keras.models.load_model(path, compile=False))
