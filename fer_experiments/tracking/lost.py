"""A tracking store or a disk that is gone, said in one line."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from fer_experiments import tracking
from fer_experiments.config import Config, mlruns_dir
from fer_experiments.errors import UserError


class StoreLost(RuntimeError):
    """The tracking store could not be reached or written: nothing can be recorded any more."""


def full_disk(config: Config) -> str:
    """What to say when a disk is full."""
    return f"a disk is full: free space in {mlruns_dir(config)} and {tempfile.gettempdir()}"


def lost_store(uri: str, error: Exception) -> str:
    """What to say when the tracking store does not answer."""
    return f"the tracking store {uri} is lost ({type(error).__name__}): bring it back"


@contextmanager
def said_in_a_line(config: Config, uri: str, subject: str = "") -> Iterator[None]:
    """A store or a disk that is lost in the block ends in one line; every other exception is left alone.

    Raises:
        UserError: beginning with `subject`.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, StoreLost):
            said = str(error)
        elif tracking.is_full_disk(error):
            said = full_disk(config)
        elif tracking.is_outage(error):
            said = lost_store(uri, error)
        else:
            raise
        raise UserError(f"{subject}{said}, and give the same command again to go on") from error
