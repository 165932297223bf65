"""A SQLite store that another program locks in the middle of a run: a backup, VACUUM."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from stores import config_in

from fer_experiments import tracking
from fer_experiments.errors import UserError
from fer_experiments.tracking import Store, sqlite

PATIENCE = 600  # seconds; a hang, not a slow machine


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return tracking.connect(config_in(tmp_path / "mlruns"))


@contextmanager
def locked(store: Store) -> Iterator[None]:
    with closing(sqlite3.connect(store.mlruns / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


def test_a_run_waits_for_a_locked_store_and_says_so(store: Store, capfd: pytest.CaptureFixture[str]):
    """For longer than MLflow itself would wait."""
    with tracking.start_run(store, "train", "through it", system_metrics=False) as run:
        with locked(store):
            writing = threading.Thread(target=run.log_metrics, args=({"loss": 1.0},))
            writing.start()
            said = ""
            while "the tracking store is locked by another program; waiting for it\n" not in said:
                writing.join(0.1)
                assert writing.is_alive(), "it did not wait"
                said += capfd.readouterr().err
        writing.join(PATIENCE)
        run.log_metrics({"steps": 2.0})
    (found,) = tracking.find_runs(store)
    assert (found.status, found.metrics) == ("FINISHED", {"loss": 1.0, "steps": 2.0})


def test_one_that_stays_locked_ends_the_run_in_a_line_and_it_is_closed_as_killed(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "6")  # a lost store sets it to 0 for the process
    monkeypatch.setattr(sqlite, "PATIENCE_S", 0)
    with (
        pytest.raises(UserError, match=r"^it: the tracking store .* is locked by another program: let that end"),
        tracking.said_in_a_line(store, "it: "),
        tracking.start_run(store, "sweep", "stopped by it", system_metrics=False) as run,
        locked(store),
    ):
        run.log_metrics({"loss": 1.0})
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    (found,) = tracking.find_runs(store)
    assert found.status == "KILLED"
