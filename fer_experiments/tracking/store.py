"""The tracking store: where it is, that it is there, and what is recorded in it."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from filelock import FileLock

from fer_experiments.config import Config, PathsConfig, TrackingConfig
from fer_experiments.config.commands import command, mlflow_command
from fer_experiments.errors import UserError, first_line
from fer_experiments.tracking import sqlite
from fer_experiments.tracking.moved import is_moved, present, settle
from fer_experiments.tracking.outages import is_full_disk, is_outage
from fer_experiments.tracking.server import check_reachable, enter

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

OPENED = "fer.test_opened"  # tag of a run that read the sealed test split of the dataset with this fingerprint


def connect(tracking: TrackingConfig, mlruns: Path) -> str:
    """The uri of the tracking store, to record in it; a SQLite store is created when it is not there, once among
    processes, and told where its artifacts are when it was moved.

    A server's user and password out of tracking.credentials go into the environment, for this process and its workers.

    Raises:
        UserError: the store cannot be created, written, reached or read, refuses us, or another MLflow made it.
    """
    uri = address(tracking, mlruns)
    database = sqlite.database_of(uri)
    if database is None:
        enter(tracking, uri)
        return uri
    for folder in (mlruns, database.parent):
        _check_writable(folder)
    sqlite.create(database, (mlruns / "artifacts").resolve())
    with FileLock(f"{database}.lock"):
        settle(database, mlruns, write=True)
    _open(database, uri)
    return uri


def connect_existing(tracking: TrackingConfig, mlruns: Path, *, write: bool = False) -> str:
    """The uri of a store that is there: to look at it, which takes no right to write, or to `write` in it.

    Raises:
        UserError: nothing is recorded there yet; what `connect` raises.
    """
    uri = address(tracking, mlruns)
    database = sqlite.database_of(uri)
    if database is not None and not database.is_file():
        here = Config(tracking=tracking, paths=PathsConfig(mlruns=str(mlruns)))
        start = f"`{command('sweep', config=here)}` comes first"
        raise UserError(
            f"{database}: nothing is recorded there yet; {start}, tracking.uri= and paths.mlruns= name another store"
        )
    if write or database is None:
        return connect(tracking, mlruns)
    sqlite.check_readable(database)
    settle(database, mlruns, write=False)
    _open(database, uri)
    return uri


def describe(tracking: TrackingConfig, mlruns: Path) -> str:
    """The store's uri and what is in it, in a line; creates nothing and imports no MLflow.

    Raises:
        UserError: a store that could not be used.
    """
    uri = address(tracking, mlruns)
    if uri.startswith(("http://", "https://")):
        check_reachable(uri)
        return f"{uri}: the server answers"
    database = sqlite.database_of(uri)
    if database is None:
        return uri
    if not database.is_file():
        return f"{uri}: not there yet, the first run creates it"
    sqlite.check_readable(database)
    try:
        with sqlite.connection(database) as connection:
            counts = [
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("experiments", "runs")
            ]
    except sqlite3.Error as error:
        raise UserError(f"{database}: not a tracking store ({error}); move it away to start afresh") from error
    return f"{uri}: {counts[0]} experiments, {counts[1]} runs"


def check_recordable(tracking: TrackingConfig, mlruns: Path) -> None:
    """Refuses a SQLite store that may be looked at and no more; creates nothing.

    Raises:
        UserError: naming what cannot be written.
    """
    database = sqlite.database_of(address(tracking, mlruns))
    if mlruns.exists():
        _check_writable(mlruns)
    if database is not None and database.is_file():
        sqlite.check_writable(database)


def address(tracking: TrackingConfig, mlruns: Path) -> str:
    """The uri of a store, which need not be there.

    Raises:
        UserError: a tracking.uri that names no store.
    """
    try:
        str(mlruns).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{str(mlruns)!r}: SQLite takes no path that is not UTF-8; rename the folder") from error
    if unquote(str(mlruns)) != str(mlruns):  # mlflow.pyfunc.load_model decodes the path of a folder too
        raise UserError(f"{mlruns}: MLflow cannot load models from a folder with a % escape in its path; rename it")
    if not tracking.uri:
        return sqlite.uri_of(mlruns / "mlflow.db")
    if "://" not in tracking.uri or tracking.uri.startswith("file:"):
        raise UserError(
            f"tracking.uri={tracking.uri}: not a store; use sqlite:///<file>, http(s)://<server> or a database"
        )
    return sqlite.absolute(tracking.uri) if tracking.uri.startswith("sqlite") else tracking.uri


def _open(database: Path, uri: str) -> None:
    """Has MLflow open the store, once in a process, so that what it says is said in a line."""
    try:
        client_of(uri)
    except Exception as error:
        said = first_line(error, named=True)
        if "out-of-date database schema" in said:
            upgrade = mlflow_command("db", "upgrade", uri)
            remedy = f"use that one, or, if it is the older one, make a copy and then `{upgrade}`"
            raise UserError(f"{database}: another version of MLflow made it; {remedy}") from error
        raise UserError(f"{database}: MLflow cannot open it ({said})") from error


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Really writing is the only sure test: os.access says yes to root on a read-only mount.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"1")
            file.flush()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"{folder}: cannot be written ({reason}); mend it, or choose another folder with paths.mlruns=<folder>"
        ) from error


def client_of(uri: str) -> MlflowClient:
    """A client of the store at `uri`; cheap, MLflow shares the connections within a process."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def create_run(client: MlflowClient, experiment_id: str, tags: Mapping[str, str], name: str) -> str:
    """The id of a new run, which is recorded once. `tags` must tell this process from others (fer.process).

    When a server dies between writing a run and answering, MLflow asks again and the run is there twice: the one that
    nobody has the id of is deleted. It has the same tags, and the same start to the millisecond.
    """
    start = int(time.time() * 1000)
    run_id = str(client.create_run(experiment_id, start, dict(tags), name).info.run_id)
    if client.tracking_uri.startswith("http"):
        for twin in client.search_runs([experiment_id], f"attributes.start_time = {start}"):
            same = twin.info.run_name == name and tags.items() <= twin.data.tags.items()
            if same and twin.info.run_id != run_id:
                client.delete_run(twin.info.run_id)
    return run_id


class FoundRun(NamedTuple):
    """A recorded run."""

    run_id: str
    name: str
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


def find_runs(
    uri: str, experiment: str, tags: Mapping[str, str] | None = None, status: str | None = None
) -> list[FoundRun]:
    """The runs of an experiment that have these tags, the oldest first; empty when there is no such experiment."""
    client = client_of(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    wanted = [f"tags.`{key}` = '{value}'" for key, value in (tags or {}).items()]
    query = " and ".join(wanted + ([f"attributes.status = '{status}'"] if status else []))
    runs: list[FoundRun] = []
    token = None
    while True:
        page = client.search_runs([found.experiment_id], query, order_by=["start_time ASC"], page_token=token)
        runs += map(_found, page)
        token = page.token
        if not token:
            return runs


def artifact(client: MlflowClient, run_id: str, path: str, folder: str | Path) -> Path:
    """A run's artifact on this machine: downloaded into `folder`, or in place.

    Raises:
        Exception: it is not there (MLflow: an OSError or one of its own, by the kind of store).
    """
    uri = client.tracking_uri
    if is_moved(uri):
        root = present(uri, client.get_run(run_id).info.artifact_uri)
        from mlflow.artifacts import download_artifacts

        return Path(download_artifacts(f"{root}/{path}"))
    return Path(client.download_artifacts(run_id, path, str(folder)))


def artifact_text(client: MlflowClient, run_id: str, path: str) -> str | None:
    """The text of an artifact, or None when the run does not have it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return artifact(client, run_id, path, folder).read_text(encoding="utf-8")
        except Exception as error:
            if is_outage(error) or is_full_disk(error):
                raise
            return None


def openings(uri: str, fingerprint: str) -> list[FoundRun]:
    """The ledger of a dataset's test split: the runs that opened it (tag OPENED), deleted ones too."""
    from mlflow.entities import ViewType

    client = client_of(uri)
    ids = [e.experiment_id for e in client.search_experiments(view_type=ViewType.ALL)]
    query = f"tags.`{OPENED}` = '{fingerprint}'"
    found, token = [], None
    while True:
        page = client.search_runs(ids, query, ViewType.ALL, order_by=["start_time ASC"], page_token=token)
        found += [_found(run) for run in page]
        token = page.token
        if not token:
            return found


def _found(run: Run) -> FoundRun:
    info, data = run.info, run.data
    return FoundRun(info.run_id, str(info.run_name), str(info.status), data.params, data.metrics, data.tags)
