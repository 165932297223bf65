"""A store in a SQLite file: its address, its making, and whether it can be used."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote

from filelock import FileLock

from fer_experiments.errors import UserError
from fer_experiments.quiet import importing

SCHEME, WITH_DRIVER = "sqlite:///", "sqlite+pysqlite:///"
WAIT_S = 30.0  # for another process that writes
PATIENCE_S = 120.0  # for one that holds the file in the middle of a run: as for a server that is away
REMEDIES = {  # by the beginning of SQLite's error names
    "SQLITE_NOTADB": "is no SQLite database ({}); move it away to start afresh",
    "SQLITE_CORRUPT": "is damaged ({}); bring back a copy, or move it away to start afresh",
    "SQLITE_BUSY": "is in use by another process ({}); try again when that has ended",
    "SQLITE_READONLY_ROLLBACK": "was left half-written by a process that died; use it once where it may be written",
    "SQLITE_READONLY": "cannot be written ({}); mend it, or choose another folder with paths.mlruns=<folder>",
    "SQLITE_CANTOPEN": "cannot be opened ({}); mend its permissions and its folder's",
}


def uri_of(database: Path) -> str:
    """SQLAlchemy's address of a file, whatever its path is called.

    In it a `?` begins options and a `%` an escape. MLflow would make the folder that an escaped path names as it stands
    (store/db/utils.py:313), but not where the driver is named too.
    """
    path = str(database)
    if not set(path) & {"%", "?"}:
        return f"{SCHEME}{path}"
    return f"{WITH_DRIVER}{path.replace('%', '%25').replace('?', '%3F')}"


def database_of(uri: str) -> Path | None:
    """The file of a SQLite store, by its address; None of any other store."""
    for scheme in (SCHEME, WITH_DRIVER):
        if uri.startswith(scheme):
            return Path(unquote(uri.removeprefix(scheme)))
    return None


def absolute(uri: str) -> str:
    """The address with an absolute path: a relative one would follow every change of the working folder.

    Raises:
        UserError: an address of no file.
    """
    database = database_of(uri)
    if database is None or database.name in ("", ":memory:") or "?" in uri:
        raise UserError(f"tracking.uri={uri}: not a SQLite file; say sqlite:///<file>, with %3F for a ? in its path")
    return uri_of(database.resolve())


def connection(database: Path) -> closing[sqlite3.Connection]:
    """A connection to a database that is there, in autocommit; it only reads where no more is allowed."""
    return closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=WAIT_S, isolation_level=None))


def ask(database: Path, question: Callable[[sqlite3.Connection], int]) -> int:
    """What a question to the database gives.

    Raises:
        UserError: a database that cannot be used for it, with the remedy.
    """
    try:
        with connection(database) as opened:
            return question(opened)
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        said = next((text for key, text in REMEDIES.items() if name.startswith(key)), "cannot be used ({})")
        raise UserError(f"{database}: {said.format(error)}") from error


def check_readable(database: Path) -> None:
    """Refuses what is no database, or may not be read.

    Raises:
        UserError: naming the reason and the remedy.
    """
    ask(database, lambda opened: opened.execute("PRAGMA schema_version").fetchone()[0])


def check_writable(database: Path) -> None:
    """Refuses a database that cannot be written.

    Raises:
        UserError: naming the reason and the remedy.
    """

    def begin(opened: sqlite3.Connection) -> int:
        opened.execute("BEGIN IMMEDIATE")
        opened.execute("ROLLBACK")
        return 0

    ask(database, begin)


def create(database: Path, artifacts: Path) -> None:
    """Creates the store's tables, unless they are there, so that a kill leaves either no database or a whole one.

    MLflow: of several processes that use a fresh SQLite file at once, most crash in its migrations. These wait for the
    disk at each of their steps, unless it is waited for once at their end.

    Raises:
        UserError: a database that is there and cannot be written.
    """
    with FileLock(f"{database}.lock"):
        if database.is_file():
            check_writable(database)
            return
        with importing("mlflow"):
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        unfinished = database.with_name(f"{database.name}.new")
        for left in (unfinished, database.with_name(f"{unfinished.name}-journal")):
            left.unlink(missing_ok=True)
        with _hasty(unfinished):
            store = SqlAlchemyStore(uri_of(unfinished), artifacts.as_uri())
            store.engine.dispose()
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(database)


@contextmanager
def _hasty(database: Path) -> Iterator[None]:
    """While the block lasts, no connection that is made to this database waits for the disk."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def connected(opened: sqlite3.Connection, record: object) -> None:
        if isinstance(opened, sqlite3.Connection) and opened.execute("PRAGMA database_list").fetchone()[2] == str(
            database
        ):
            opened.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)
