"""Runs that are quick to make, and what their store has of them."""

from __future__ import annotations

import json
import multiprocessing

from fer_experiments import tracking

EXPERIMENT = "fer/test"
# Its processes inherit an imported MLflow, which otherwise takes each of them seconds.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store"])


def start(store, **changes):
    return tracking.start_run(store, **({"kind": "train", "name": "run", "system_metrics": False} | changes))


def recorded(store, run_id):
    from mlflow import MlflowClient

    return MlflowClient(store.uri).get_run(run_id)


def artifacts(mlruns, run):
    return mlruns / "artifacts" / EXPERIMENT / run.id / "artifacts"


def one_run(store):
    with start(store) as run:
        return run.id


def dead_process():
    """A name of a process that has ended, as `this_process` gives it."""
    return json.dumps({**json.loads(tracking.this_process()), "start": 1.0})
