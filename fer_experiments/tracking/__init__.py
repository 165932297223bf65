"""Everything that touches MLflow: the store, runs that are closed on every path, and what goes on a run."""

import logging
import os

# MLflow reads these when it is imported, which happens inside functions of this room and nowhere else.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# A lost server is tried again after 0, 6, 12, 24, 48 and 96 s, POSTs too: given up after 186 s of refused connections,
# or, where packets vanish, 7 timeouts later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "6")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "1.0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from fer_experiments.tracking.lifecycle import start_run, user
from fer_experiments.tracking.lost import StoreLost, said_in_a_line, what_is_lost
from fer_experiments.tracking.moved import is_moved
from fer_experiments.tracking.outages import is_lost, stop_retrying
from fer_experiments.tracking.processes import is_alive, this_process
from fer_experiments.tracking.queries import (
    IMAGES,
    OPENED,
    SEEDS,
    FoundRun,
    artifact_bytes,
    artifact_json,
    artifact_parsed,
    artifact_table,
    artifact_text,
    experiment_of,
    find_run,
    find_runs,
    openings,
)
from fer_experiments.tracking.recovery import RECORD, close_orphans, close_runs, ended_trial, load_head
from fer_experiments.tracking.retention import HEAD, artifact_size, deleted_runs, drop_head, purge
from fer_experiments.tracking.run import Run
from fer_experiments.tracking.stop import request_stop, running_sweeps, runs_elsewhere, take_stop
from fer_experiments.tracking.store import Store, address, check_recordable, connect, connect_existing, describe

# What MLflow logs there it raises too, and whoever is concerned says it in a line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

__all__ = [
    "HEAD",
    "IMAGES",
    "OPENED",
    "RECORD",
    "SEEDS",
    "FoundRun",
    "Run",
    "Store",
    "StoreLost",
    "address",
    "artifact_bytes",
    "artifact_json",
    "artifact_parsed",
    "artifact_size",
    "artifact_table",
    "artifact_text",
    "check_recordable",
    "close_orphans",
    "close_runs",
    "connect",
    "connect_existing",
    "deleted_runs",
    "describe",
    "drop_head",
    "ended_trial",
    "experiment_of",
    "find_run",
    "find_runs",
    "is_alive",
    "is_lost",
    "is_moved",
    "load_head",
    "openings",
    "purge",
    "request_stop",
    "running_sweeps",
    "runs_elsewhere",
    "said_in_a_line",
    "start_run",
    "stop_retrying",
    "take_stop",
    "this_process",
    "user",
    "what_is_lost",
]
