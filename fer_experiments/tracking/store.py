"""The tracking store: where it is, that it is there, and that it can be used."""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from filelock import FileLock

from fer_experiments.config import Config, PathsConfig, TrackingConfig, mlruns_dir, without_password
from fer_experiments.config.commands import command, mlflow_command, place
from fer_experiments.errors import UserError, first_line
from fer_experiments.quiet import importing
from fer_experiments.terminal import say
from fer_experiments.termination import check, held
from fer_experiments.tracking import sqlite
from fer_experiments.tracking.moved import settle
from fer_experiments.tracking.outages import is_locked, retry_again, retrying
from fer_experiments.tracking.server import check_reachable, enter

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Store:
    """A tracking store, and what of it a config is concerned with; a job takes it to a worker.

    uri: as MLflow names it. mlruns: its folder artifacts/ takes those of a store without a server. experiment: the full
    name, fer/<task>. system_metrics: whether runs sample CPU, memory, disk, network and GPUs while they are open.
    """

    uri: str
    mlruns: Path
    experiment: str
    system_metrics: bool = True

    def __str__(self) -> str:
        """Its address, as it may be shown."""
        return without_password(self.uri)

    def words(self) -> list[str]:
        """The overrides of a command that say where it is."""
        paths = PathsConfig(mlruns=str(self.mlruns))
        if sqlite.database_of(self.uri) == self.mlruns / "mlflow.db":
            return place(Config(paths=paths))
        server = ["tracking=server"] if self.uri.startswith("http") else []
        return [*server, *place(Config(paths=paths, tracking=TrackingConfig(self.uri)))]

    def of(self, task: str) -> Store:
        """The same store, for the runs of another task."""
        return replace(self, experiment=f"fer/{task}")


def connect(config: Config) -> Store:
    """The tracking store, to record in it; a SQLite store is created when it is not there, once among processes, and
    told where its artifacts are when it was moved.

    A server's user and password out of tracking.credentials go into the environment, for this process and its workers.

    Raises:
        UserError: the store cannot be created, written, reached or read, refuses us, or another MLflow made it.
    """
    retry_again()
    store = _store(config)
    database = sqlite.database_of(store.uri)
    if database is None:
        enter(config.tracking, store.uri)
        return store
    for folder in (store.mlruns, database.parent):
        _check_writable(folder)
    sqlite.create(database, store.mlruns / "artifacts")
    with FileLock(f"{database}.lock"):
        settle(database, store.mlruns, write=True)
    _open(database, store)
    return store


def connect_existing(config: Config, *, write: bool = False) -> Store:
    """A store that is there: to look at it, which takes no right to write, or to `write` in it.

    Raises:
        UserError: nothing is recorded there yet; what `connect` raises.
    """
    store = _store(config)
    database = sqlite.database_of(store.uri)
    if database is not None and not database.is_file():
        start = f"`{command('sweep', config=config)}` comes first"
        raise UserError(
            f"{database}: nothing is recorded there yet; {start}, tracking.uri= and paths.mlruns= name another store"
        )
    if write or database is None:
        return connect(config)
    sqlite.check_readable(database)
    settle(database, store.mlruns, write=False)
    _open(database, store)
    return store


def describe(config: Config) -> str:
    """The store's address and what is in it, in a line; creates nothing and imports no MLflow.

    Raises:
        UserError: a store that could not be used.
    """
    uri = address(config)
    if uri.startswith(("http://", "https://")):
        check_reachable(uri)
        return f"{uri}: the server answers"
    database = sqlite.database_of(uri)
    if database is None:
        return without_password(uri)
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


def check_recordable(config: Config) -> None:
    """Refuses a SQLite store that may be looked at and no more; creates nothing.

    Raises:
        UserError: naming what cannot be written.
    """
    mlruns, database = mlruns_dir(config), sqlite.database_of(address(config))
    if mlruns.exists():
        _check_writable(mlruns)
    if database is not None and database.is_file():
        sqlite.check_writable(database)


def address(config: Config) -> str:
    """The uri of the store, which need not be there.

    Raises:
        UserError: a tracking.uri that names no store.
    """
    tracking, mlruns = config.tracking, mlruns_dir(config)
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
    if tracking.uri.startswith("postgresql://") and find_spec("psycopg") is None and _takes_psycopg():
        raise UserError(
            f"tracking.uri={without_password(tracking.uri)}: SQLAlchemy takes it for psycopg 3, which is not "
            "installed; say postgresql+psycopg2://"
        )
    return sqlite.absolute(tracking.uri) if tracking.uri.startswith("sqlite") else tracking.uri


def _takes_psycopg() -> bool:
    """Whether the SQLAlchemy that is here, from 2.1 on, takes an address that names no driver for psycopg 3."""
    from sqlalchemy import make_url

    return make_url("postgresql://").get_driver_name() == "psycopg"


def _store(config: Config) -> Store:
    experiment = f"fer/{config.data.task}"
    return Store(address(config), mlruns_dir(config), experiment, config.tracking.system_metrics)


def _open(database: Path, store: Store) -> None:
    """Has MLflow open the store, once in a process, so that what it says is said in a line."""
    try:
        client_of(store)
    except Exception as error:
        said = first_line(error, named=True)
        if "out-of-date database schema" in said:
            upgrade = mlflow_command("db", "upgrade", store.uri)
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


def client_of(store: Store) -> MlflowClient:
    """MLflow's own client, which does not leave this room; cheap, MLflow shares the connections within a process."""
    with importing("mlflow"):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=store.uri)  # which imports what is behind the address
    return client if sqlite.database_of(store.uri) is None else cast("MlflowClient", _Uninterrupted(client))


class _Uninterrupted:
    """A client of a SQLite store whose calls no signal stops half way: SQLAlchemy would keep a connection with its lock
    on the file, and nothing could be recorded any more, not even that the run was killed. A call that finds the file
    locked by another program, which MLflow waits 20 seconds for, is made again: it has been rolled back."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if not callable(value):
            return value

        def call(*args: Any, **options: Any) -> Any:
            ends = time.monotonic() + sqlite.PATIENCE_S
            while True:
                try:
                    with held():
                        return value(*args, **options)
                except Exception as error:
                    if not (is_locked(error) and retrying() and time.monotonic() < ends):
                        raise
                say("the tracking store is locked by another program; waiting for it", sys.stderr)
                check()
                time.sleep(0.5)

        return call
