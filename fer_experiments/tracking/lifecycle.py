"""Runs that are closed on every path."""

from __future__ import annotations

import json
import shlex
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from getpass import getuser
from typing import TYPE_CHECKING, Any

from fer_experiments import environment
from fer_experiments.config import flatten, project_root
from fer_experiments.config.commands import mlflow_command
from fer_experiments.errors import UserError, first_line
from fer_experiments.termination import check, held, signals_as_exceptions
from fer_experiments.tracking.outages import is_lost, stop_retrying
from fer_experiments.tracking.processes import this_process
from fer_experiments.tracking.queries import every
from fer_experiments.tracking.run import Run
from fer_experiments.tracking.store import Store, client_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

SAMPLING_S = {"trial": 2.0}  # of system metrics: a trial may last 20 seconds
DEFAULT_SAMPLING_S = 5.0
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@contextmanager
def start_run(
    store: Store,
    kind: str,
    name: str,
    config: Mapping[str, Any] | None = None,
    *,
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
        store: from `connect`; its experiment is created when it is not there.
        kind: tag fer.kind: train, sweep, trial, promotion, refit or probe.
        config: if any, its dotted paths become the params; of a resumed run, only those that it does not have yet.
        parent: id of the run that this one is nested under in the UI.
        resume: id of a run to open again; name and parent stay what they were.
        system_metrics: False where the runs under this one have them.
        driver: `this_process` of the process that gave the work to this one.

    Raises:
        UserError: the run to resume, or the experiment, was deleted.
    """
    client = client_of(store)
    own = this_process()
    everything = _standard_tags(kind, parent) | {"fer.process": own, "fer.driver": driver or own}
    everything |= {k: str(v) for k, v in (tags or {}).items()}
    with signals_as_exceptions():
        run = monitor = None
        status = "KILLED"
        try:
            with held(firmly=False):  # a run that nobody has the id of is closed by nobody
                if resume:
                    run = _reopen(store, resume)
                    _renew(run, everything)
                else:
                    run = Run(store, create_run(client, _experiment_id(store), everything, name), parent)
            run.log_params(flatten(config or {}))
            if system_metrics and store.system_metrics:
                monitor = _monitor(run, SAMPLING_S.get(kind, DEFAULT_SAMPLING_S))
            yield run
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            check()  # a library may have made this error of what a signal raised
            if run is None:
                raise
            if is_lost(error):
                stop_retrying()
            else:
                status = "FAILED"
            with suppress(Exception):  # what happened in the run is what its user must hear of
                run.set_tags({"fer.error": first_line(error, named=True)})
                run.log_text(traceback.format_exc(), "error.txt")
            raise
        finally:
            if run is not None:
                _close(run, status, monitor)


def _close(run: Run, status: str, monitor: Any) -> None:
    with held(firmly=False):
        try:
            if monitor:
                monitor.finish()
        finally:
            client_of(run.store).set_terminated(run.id, status)


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


def _experiment_id(store: Store) -> str:
    from mlflow.exceptions import MlflowException

    client, name = client_of(store), store.experiment
    # A server decides itself where artifacts go. Without one MLflow would take a folder of the creating process.
    here = store.uri.startswith(DATABASES)
    location = (store.mlruns / "artifacts" / name).resolve().as_uri() if here else None
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
    _refuse_deleted(store, found)
    return found.experiment_id


def _refuse_deleted(store: Store, experiment: Experiment | None) -> None:
    if experiment is not None and experiment.lifecycle_stage != "active":
        restore = mlflow_command("experiments", "restore", "--experiment-id", experiment.experiment_id)
        address = f"MLFLOW_TRACKING_URI={shlex.quote(str(store))}"
        raise UserError(f"experiment {experiment.name}: deleted; `{address} {restore}` brings it back")


def create_run(client: MlflowClient, experiment_id: str, tags: Mapping[str, str], name: str) -> str:
    """The id of a new run, which is recorded once. `tags` must tell this process from others (fer.process).

    When a server dies between writing a run and answering, MLflow asks again and the run is there twice: the one that
    nobody has the id of is deleted. It has the same tags, and the same start to the millisecond.
    """
    start = int(time.time() * 1000)
    run_id = str(client.create_run(experiment_id, start, dict(tags), name).info.run_id)
    if client.tracking_uri.startswith("http"):
        try:
            for twin in every(client.search_runs, [experiment_id], f"attributes.start_time = {start}"):
                same = twin.info.run_name == name and tags.items() <= twin.data.tags.items()
                if same and twin.info.run_id != run_id:
                    client.delete_run(twin.info.run_id)
        except BaseException:  # nobody else has its id
            with suppress(Exception):
                client.set_terminated(run_id, "KILLED")
            raise
    return run_id


def _reopen(store: Store, run_id: str) -> Run:
    from mlflow.exceptions import MlflowException

    client = client_of(store)
    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if is_lost(error):
            raise
        _refuse_deleted(store, client.get_experiment_by_name(store.experiment))
        raise UserError(
            f"run {run_id}: cannot be resumed, it was deleted, or the store is an older copy; bring it back, or start "
            "anew with sweep.fresh=true"
        ) from error
    return Run(store, run_id)


def _renew(run: Run, tags: Mapping[str, str]) -> None:
    client = client_of(run.store)
    run.set_tags(tags)
    for tag in {"fer.error", "fer.ended_by"} & client.get_run(run.id).data.tags.keys():
        client.delete_tag(run.id, tag)  # of its end before


def _monitor(run: Run, interval: float) -> Any:
    """A running sampler of system metrics; None, with a warning, where psutil cannot read this machine."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    try:
        monitor = SystemMetricsMonitor(
            run.id, sampling_interval=interval, resume_logging=True, tracking_uri=run.store.uri
        )
    except Exception as error:
        warnings.warn(
            f"no system metrics on this machine ({first_line(error, named=True)}): tracking.system_metrics=false",
            stacklevel=2,
        )
        return None
    monitor.start()
    return monitor
