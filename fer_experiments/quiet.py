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


@contextmanager
def importing(library: str, *, freeze: bool = False) -> Iterator[None]:
    """Looks for no garbage while the block imports a library, unless it is there already.

    Python would look through a growing heap again and again: a seventh of the time that TensorFlow and MLflow take.

    Args:
        freeze: never looks in what is there at the block's end either; for processes that are this program's alone.
    """
    if library in sys.modules:
        yield
        return
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if was:
            gc.enable()
