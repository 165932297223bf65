"""The tracking store: where it is, that it is there, and what is recorded in it."""

from __future__ import annotations

import os
import socket
import sqlite3
import ssl
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fer_experiments.config import TrackingConfig, project_root
from fer_experiments.errors import UserError
from fer_experiments.tracking.outages import is_full_disk, is_outage

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

USERNAME, PASSWORD, TOKEN = (f"MLFLOW_TRACKING_{name}" for name in ("USERNAME", "PASSWORD", "TOKEN"))


def connect(tracking: TrackingConfig, mlruns: Path) -> str:
    """The uri of the tracking store; a SQLite store is created when it is not there, once among processes.

    A server's user and password out of tracking.credentials go into the environment, for this process and its workers.

    Raises:
        UserError: the store cannot be created, written, reached or read, refuses us, or another MLflow made it.
    """
    uri = _absolute(tracking, mlruns)
    if uri.startswith(("http://", "https://")):
        _check_reachable(uri)
        if tracking.credentials:
            _take_credentials(project_root() / tracking.credentials, uri)
        _check_allowed(uri)
    if not uri.startswith("sqlite:///"):
        return uri
    database = Path(uri.removeprefix("sqlite:///"))
    _check_writable(mlruns)
    _check_writable(database.parent)
    _create_database(database, mlruns)
    try:
        client_of(uri)
    except Exception as error:
        raise UserError(
            f"{database}: not a store of this MLflow ({first_line(error)}); back it up, then `mlflow db upgrade {uri}`"
        ) from error
    return uri


def connect_existing(tracking: TrackingConfig, mlruns: Path) -> str:
    """`connect` for who only looks: creates nothing.

    Raises:
        UserError: nothing is recorded there yet; what `connect` raises.
    """
    uri = _absolute(tracking, mlruns)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise UserError(f"{uri.removeprefix('sqlite:///')}: nothing is recorded there yet; `fer sweep` comes first")
    return connect(tracking, mlruns)


def describe(tracking: TrackingConfig, mlruns: Path) -> str:
    """The store's uri and what is in it, in a line; creates nothing and imports no MLflow.

    Raises:
        UserError: a store that could not be used.
    """
    uri = _absolute(tracking, mlruns)
    if uri.startswith(("http://", "https://")):
        _check_reachable(uri)
        return f"{uri}: the server answers"
    if not uri.startswith("sqlite:///"):
        return uri
    database = Path(uri.removeprefix("sqlite:///"))
    if mlruns.exists():
        _check_writable(mlruns)
    if not database.is_file():
        return f"{uri}: not there yet, the first run creates it"
    _check_database(database)
    connection = sqlite3.connect(database)
    try:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("experiments", "runs")
        ]
    except sqlite3.Error as error:
        raise UserError(f"{database}: not a tracking store ({error}); move it away to start afresh") from error
    finally:
        connection.close()
    return f"{uri}: {counts[0]} experiments, {counts[1]} runs"


def _absolute(tracking: TrackingConfig, mlruns: Path) -> str:
    uri = tracking.uri or f"sqlite:///{mlruns / 'mlflow.db'}"
    if "://" not in uri or uri.startswith("file:"):
        raise UserError(f"tracking.uri={uri}: not a store; use sqlite:///<file>, http(s)://<server> or a database")
    if uri.startswith("sqlite:///"):
        # A relative path would follow every change of the working folder.
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}"
    return uri


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


def _check_reachable(uri: str) -> None:
    # MLflow itself would try for minutes.
    try:
        trusted = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10, context=trusted).close()
    except urllib.error.HTTPError:
        pass  # a server that answers; if it refuses us, MLflow says why
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"tracking.uri={uri}: no server answers ({reason}); start it, or leave tracking.uri out"
        ) from error


def _take_credentials(path: Path, uri: str) -> None:
    # A server of this machine wrote the file: no other server may see what is in it.
    if any(os.environ.get(name) for name in (USERNAME, PASSWORD, TOKEN)) or not _is_here(uri):
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); set {USERNAME} and {PASSWORD}") from error
    for name, _, value in (line.partition("=") for line in lines):
        if name in (USERNAME, PASSWORD):
            os.environ[name] = value.strip()


def _is_here(uri: str) -> bool:
    """Whether a server's name is one of this machine's."""
    try:
        for family, _, _, _, address in socket.getaddrinfo(urllib.parse.urlsplit(uri).hostname, None):
            with socket.socket(family) as probe:
                probe.bind((address[0], 0))  # one can listen on one's own addresses alone
    except OSError:
        return False
    return True


def _check_allowed(uri: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client_of(uri).search_experiments(max_results=1)
    except MlflowException as error:
        remedy = f"is this MLflow's address, and well? ({first_line(error)})"
        if "error code 401" in str(error):
            who = os.environ.get(USERNAME)
            remedy = f"it does not take the password of {who}" if who else "it wants a user and a password"
            remedy += f"; set {USERNAME} and {PASSWORD}, or tracking.credentials=<file of `make server`>"
        elif "error code 403" in str(error):
            remedy = "it does not know itself by that name; start it with --allowed-hosts, or use an address it allows"
        raise UserError(f"tracking.uri={uri}: the server refuses us: {remedy}") from error


def _create_database(database: Path, mlruns: Path) -> None:
    """Creates the store's tables, unless they are there, so that a kill leaves either no database or a whole one.

    MLflow: of several processes that use a fresh SQLite file at once, most crash in its migrations.
    """
    from filelock import FileLock

    with FileLock(f"{database}.lock"):
        if database.is_file():
            _check_database(database)
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        unfinished = database.with_name(f"{database.name}.new")
        for left in (unfinished, database.with_name(f"{unfinished.name}-journal")):
            left.unlink(missing_ok=True)
        store = SqlAlchemyStore(f"sqlite:///{unfinished}", (mlruns / "artifacts").resolve().as_uri())
        store.engine.dispose()
        unfinished.replace(database)


def _check_database(database: Path) -> None:
    connection = sqlite3.connect(database, timeout=30, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise UserError(f"{database}: cannot be written ({error}); mend it, or move it away to start afresh") from error
    finally:
        connection.close()


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


def artifact_text(client: MlflowClient, run_id: str, path: str) -> str | None:
    """The text of an artifact, or None when the run does not have it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(client.download_artifacts(run_id, path, folder)).read_text(encoding="utf-8")
        except Exception as error:  # MLflow: an OSError or one of its own, by the kind of store
            if is_outage(error) or is_full_disk(error):
                raise
            return None


def openings(uri: str, fingerprint: str) -> list[FoundRun]:
    """The ledger of a dataset's test split: the runs that opened it (tag fer.test_opened), deleted ones too."""
    from mlflow.entities import ViewType

    client = client_of(uri)
    ids = [e.experiment_id for e in client.search_experiments(view_type=ViewType.ALL)]
    query = f"tags.`fer.test_opened` = '{fingerprint}'"
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


def first_line(error: BaseException) -> str:
    """An error as its class and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:5000] if lines else type(error).__name__
