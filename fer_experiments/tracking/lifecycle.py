"""Runs that are closed on every path."""

from __future__ import annotations

import json
import shlex
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_experiments import environment
from fer_experiments.config import flatten, project_root
from fer_experiments.config.commands import mlflow_command, without_password
from fer_experiments.errors import UserError, first_line
from fer_experiments.termination import signals_as_exceptions
from fer_experiments.tracking.outages import is_full_disk, is_outage, stop_retrying
from fer_experiments.tracking.processes import this_process
from fer_experiments.tracking.run import Run
from fer_experiments.tracking.store import client_of, create_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

SAMPLING_S = {"trial": 2.0}  # of system metrics: a trial may last 20 seconds
DEFAULT_SAMPLING_S = 5.0
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@contextmanager
def start_run(
    *,
    uri: str,
    mlruns: Path,
    experiment: str,
    kind: str,
    name: str,
    config: Mapping[str, Any],
    tags: Mapping[str, Any] | None = None,
    parent: str | None = None,
    resume: str | None = None,
    system_metrics: bool = True,
    driver: str | None = None,
) -> Iterator[Run]:
    """A run that ends FINISHED, FAILED (tag fer.error, artifact error.txt) or, when interrupted, KILLED.

    Tags fer.process and fer.driver name the processes it hangs on, so that `close_orphans` finds it when they die. A
    lost store or a full disk interrupts a run; what failed then is not the run.

    Args:
        uri: from `connect`.
        mlruns: artifacts of a store without a server go to its folder artifacts/.
        experiment: the full name, fer/<task>; created when it is not there.
        kind: tag fer.kind: train, sweep, trial or promotion.
        config: its dotted paths become the params; of a resumed run, only those that it does not have yet.
        parent: id of the run that this one is nested under in the UI.
        resume: id of a run to open again; name and parent stay what they were.
        system_metrics: sample CPU, memory, disk, network and GPUs while the run is open.
        driver: `this_process` of the process that gave the work to this one.

    Raises:
        UserError: the run to resume, or the experiment, was deleted.
    """
    client = client_of(uri)
    own = this_process()
    everything = _standard_tags(kind, parent) | {"fer.process": own, "fer.driver": driver or own}
    everything |= {k: str(v) for k, v in (tags or {}).items()}
    with signals_as_exceptions():
        if resume:
            run = Run(client, _reopen(client, resume, everything))
        else:
            experiment_id = _experiment_id(client, uri, experiment, mlruns)
            run = Run(client, create_run(client, experiment_id, everything, name))
        monitor = None
        try:
            run.log_params(flatten(config))
            monitor = _monitor(uri, run.id, SAMPLING_S.get(kind, DEFAULT_SAMPLING_S)) if system_metrics else None
            yield run
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            status = "KILLED"
            raise
        except BaseException as error:
            lost = is_outage(error) or is_full_disk(error)
            status = "KILLED" if lost else "FAILED"
            if lost:
                stop_retrying()
            with suppress(Exception):  # what happened in the run is what its user must hear of
                run.set_tags({"fer.error": first_line(error, named=True)})
                run.log_text(traceback.format_exc(), "error.txt")
            raise
        finally:
            if monitor:
                monitor.finish()
            client.set_terminated(run.id, status)


def _standard_tags(kind: str, parent: str | None) -> dict[str, str]:
    git = environment.git_state(project_root())
    tags = {
        "fer.kind": kind,
        "fer.git_dirty": None if git.dirty is None else json.dumps(git.dirty),
        "mlflow.parentRunId": parent,
        "mlflow.source.git.commit": git.commit,
        "mlflow.source.name": "fer",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user(),
    }
    return {key: value for key, value in tags.items() if value is not None}


def user() -> str | None:
    """Who runs this process, if it has a name."""
    try:
        return getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return None


def _experiment_id(client: MlflowClient, uri: str, name: str, mlruns: Path) -> str:
    from mlflow.exceptions import MlflowException

    # A server decides itself where artifacts go. Without one MLflow would take a folder of the creating process.
    location = (mlruns / "artifacts" / name).resolve().as_uri() if uri.startswith(DATABASES) else None
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        restore = mlflow_command("experiments", "restore", "--experiment-id", found.experiment_id)
        store = shlex.quote(without_password(uri))
        raise UserError(f"experiment {name}: deleted; `MLFLOW_TRACKING_URI={store} {restore}` brings it back")
    return found.experiment_id


def _reopen(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        raise UserError(f"run {run_id}: cannot be resumed, it was deleted; start anew with sweep.fresh=true") from error
    run = Run(client, run_id)
    run.set_tags(tags)
    if "fer.error" in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, "fer.error")
    return run_id


def _monitor(uri: str, run_id: str, interval: float) -> Any:
    """A running sampler of system metrics; None, with a warning, where psutil cannot read this machine."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    try:
        monitor = SystemMetricsMonitor(run_id, sampling_interval=interval, resume_logging=True, tracking_uri=uri)
    except Exception as error:
        warnings.warn(
            f"no system metrics on this machine ({first_line(error, named=True)}): tracking.system_metrics=false",
            stacklevel=2,
        )
        return None
    monitor.start()
    return monitor
