"""Imports of large libraries: without what they say on standard error, and without looking for garbage."""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silenced() -> Iterator[None]:
    """Keeps back what is written to file descriptor 2, and shows it when the block fails.

    TensorFlow's C++ speaks when it is imported, whatever the log level (2.21). Its warnings about retracing, which is
    what every trial does, being another network, are turned off for good.
    """
    with tempfile.TemporaryFile() as said:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
            logging.getLogger("tensorflow").setLevel(logging.ERROR)
        except BaseException:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_own = False


def own_process() -> None:
    """Says that this process is the program's alone: nobody else's objects are in it."""
    global _own
    _own = True


@contextmanager
def importing(library: str) -> Iterator[None]:
    """Looks for no garbage while the block imports a library, unless it is there already.

    Python would look through a growing heap again and again: a seventh of the time that TensorFlow and MLflow take. In
    a process of its own it never looks there again, at its end neither, which takes a second.
    """
    if library in sys.modules:
        yield
        return
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _own:
            gc.freeze()
        if was:
            gc.enable()
