"""Everything that touches MLflow: the store, runs that are closed on every path, and what goes on a run."""

import os

# MLflow reads these when it is imported, which happens inside functions of this room and nowhere else.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from fer_experiments.tracking.lifecycle import start_run
from fer_experiments.tracking.run import Run
from fer_experiments.tracking.store import FoundRun, connect, describe, find_runs

__all__ = ["FoundRun", "Run", "connect", "describe", "find_runs", "start_run"]
