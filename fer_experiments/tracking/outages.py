"""Whether an error means that the store or a disk is gone, as opposed to a bug of what was being recorded."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_patience: list[str | None] = []  # of this process, while it has none: what RETRIES said before

FULL = ("database or disk is full", "No space left on device", "Disk quota exceeded")  # SQLite; HDF5 sets no errno


def is_lost(error: BaseException) -> bool:
    """Whether the store, or a disk here, is gone; see both."""
    return is_full_disk(error) or is_outage(error)


def is_outage(error: BaseException) -> bool:
    """Whether the tracking store could not be reached or written, MLflow's retries over; else it is a bug of ours.

    To be asked where the error was raised: another process gets an error without its causes.
    """
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import InterfaceError, OperationalError

    lost = (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.RetryError,
        OperationalError,
        InterfaceError,
    )
    # MLflow wraps whatever a request raises, a server's 5xx after the last retry too. Its code tells nothing: the
    # default of MlflowException is INTERNAL_ERROR.
    return any(
        isinstance(e, lost) or (isinstance(e, MlflowException) and str(e).startswith("API request to http"))
        for e in _chain(error)
    )


def is_full_disk(error: BaseException) -> bool:
    """Whether a disk or a quota here is full: of the store, of its artifacts or of temporary files."""
    return any(
        (isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT)) or any(text in str(e) for text in FULL)
        for e in _chain(error)
    )


def is_locked(error: BaseException) -> bool:
    """Whether another program holds a SQLite store: a backup, VACUUM."""
    return any("database is locked" in str(e) for e in _chain(error))


def stop_retrying() -> None:
    """A lost server is asked once from now on, as a locked file: closing what is open must not wait minutes a call."""
    if retrying():
        _patience.append(os.environ.get(RETRIES))
        os.environ[RETRIES] = "0"


def retry_again() -> None:
    """What is begun now is as patient as the first: a script or a notebook goes on after a sweep lost its store."""
    while _patience:
        before = _patience.pop()
        if before is None:
            os.environ.pop(RETRIES, None)
        else:
            os.environ[RETRIES] = before


def retrying() -> bool:
    """Whether it is asked again."""
    return os.environ.get(RETRIES) != "0"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
