"""A SQLite store that was moved: MLflow records absolute places of artifacts, which then are elsewhere.

Whoever opens the store writes the present places into it, in one transaction, so that MLflow's own UI finds them too.
Where it may only be read, or others are at work on it, `present` says where recorded artifacts are.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from fer_experiments.errors import UserError
from fer_experiments.files import is_held
from fer_experiments.tracking.sqlite import ask, connection, uri_of

ROOT = "SELECT artifact_location FROM experiments WHERE experiment_id = 0"  # made with the store: <artifacts>/0
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)


@dataclass(frozen=True)
class Move:
    """Folders of all artifacts: where the store says they are, and where they are."""

    old: Path
    new: Path

    def of(self, recorded: str, *, whole: bool = False) -> str:
        """The present place of artifacts that were recorded at this one.

        It is the same where they never were under the old folder; where their files lie there and not here, unless
        `whole`, for a place that new ones go to.
        """
        path = local(recorded)
        if path is None or not path.is_relative_to(self.old):
            return recorded
        here = self.new / path.relative_to(self.old)
        if not whole and _is_there(path) and not _is_there(here):
            return recorded
        return here.as_uri() if recorded.startswith("file:") else str(here)


_pending: dict[str, Move] = {}  # by the store's address, of this process: what could not be written into it


def settle(database: Path, mlruns: Path, *, write: bool) -> None:
    """Writes into a store where its artifacts are, if it was moved; the caller holds the store's lock if it may write.

    write: whether who opens the store will record in it; else what cannot be written is left to `present`.

    Raises:
        UserError: of who will record: others are at work on the store, or it cannot be written.
    """
    uri, mlruns = uri_of(database), mlruns.resolve()
    _pending.pop(uri, None)
    move = _move(database, mlruns)
    if move is None:
        return
    if busy := _at_work(mlruns):
        if write:
            raise UserError(
                f"{mlruns}: it was {move.old.parent} before, and {busy} is at work on it; wait for it, or stop it"
            )
        _pending[uri] = move
        return
    try:
        ask(database, lambda opened: _rewrite(opened, move))
        _forget_places()
    except UserError:
        if write:
            raise
        _pending[uri] = move


def present(uri: str, recorded: str) -> str:
    """Where artifacts are that the store says are at `recorded`."""
    move = _pending.get(uri)
    return move.of(recorded) if move else recorded


def is_moved(uri: str) -> bool:
    """Whether the store still says where its artifacts were before it was moved."""
    return uri in _pending


def _move(database: Path, mlruns: Path) -> Move | None:
    """How the store's artifacts were moved; None when they are where it says, or were never beside it."""
    try:
        with connection(database) as opened:
            found = opened.execute(ROOT).fetchone()
            if found is None or (zero := local(found[0])) is None:
                return None
            old = zero.parent
            if old.name != "artifacts":  # a store that MLflow itself made
                return None
            if database.parent == mlruns:
                return None if _same(old, mlruns / "artifacts") else Move(old, mlruns / "artifacts")
            # The database lies apart: it tells nothing of where artifacts are, but their files do.
            runs = [path for (text,) in opened.execute("SELECT artifact_uri FROM runs") if (path := local(text))]
    except sqlite3.Error:  # no tables, say: who opens it next says what is wrong
        return None
    if _is_there(old):
        return None
    for new in (database.parent / "artifacts", mlruns / "artifacts"):
        if any(_is_there(new / run.relative_to(old)) for run in runs if run.is_relative_to(old)):
            return Move(old, new)
    return None


def _same(old: Path, new: Path) -> bool:
    return old == new or (_is_there(old) and _is_there(new) and old.samefile(new))


def _is_there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110  Path.exists raises where a folder on the way may not be entered


def local(place: str | None) -> Path | None:
    """A recorded place as a path; None when it is not on this machine."""
    if place and place.startswith("file:"):
        return Path(url2pathname(urlsplit(place).path))
    return Path(place) if place and place.startswith("/") else None


def _at_work(mlruns: Path) -> str:
    """A sweep or a promotion at work on the store, by its lock; "" when there is none."""
    locks = chain(mlruns.glob("sweeps/*/lock"), mlruns.glob("models/*.lock"))
    held = next((lock for lock in locks if is_held(lock)), None)
    return "" if held is None else f"sweep {held.parent.name}" if held.name == "lock" else f"a promotion of {held.stem}"


def _forget_places() -> None:
    """MLflow keeps, in a process, where the artifacts of each run are (tracking/_tracking_service/utils.py)."""
    kept = sys.modules.get("mlflow.tracking._tracking_service.utils")
    if kept is not None:
        kept._artifact_repos_cache.clear()


def _rewrite(opened: sqlite3.Connection, move: Move) -> int:
    """Writes the present places, all or none; returns how many."""
    count = 0
    opened.execute("BEGIN IMMEDIATE")
    for table, column in PLACES:
        if column not in {row[1] for row in opened.execute(f"PRAGMA table_info({table})")}:
            continue  # of another MLflow
        for row, recorded in opened.execute(f"SELECT rowid, {column} FROM {table}").fetchall():
            now = move.of(recorded, whole=table == "experiments") if recorded else recorded
            if now != recorded:
                opened.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (now, row))
                count += 1
    opened.execute("COMMIT")
    return count
