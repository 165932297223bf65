"""A tracking store or a disk that is gone, said in one line."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from fer_experiments.errors import UserError
from fer_experiments.tracking.outages import is_full_disk, is_locked, is_lost
from fer_experiments.tracking.store import Store


class StoreLost(RuntimeError):
    """The tracking store could not be reached or written: nothing can be recorded any more."""


@contextmanager
def said_in_a_line(store: Store, subject: str = "", again: str = "give the same command again") -> Iterator[None]:
    """A store or a disk that is lost in the block ends in one line; every other exception is left alone.

    Raises:
        UserError: beginning with `subject`, and saying to do what is in `again`.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, StoreLost) and not is_lost(error):
            raise
        raise UserError(f"{subject}{what_is_lost(store, error)}, and {again} to go on") from error


def what_is_lost(store: Store, error: Exception) -> str:
    """What to say of an error that `is_lost`, or of a StoreLost, which says it already."""
    if isinstance(error, StoreLost):
        return str(error)
    if is_full_disk(error):
        return f"a disk is full: free space in {store.mlruns} and {tempfile.gettempdir()}"
    if is_locked(error):
        return f"the tracking store {store} is locked by another program: let that end"
    return f"the tracking store {store} is lost ({type(error).__name__}): bring it back"
