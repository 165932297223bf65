"""Programs that run as long as a block does, whenever a signal comes and whatever kills us."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_starting = False  # a program that is not yet in our hands, so that nobody would stop it
_due = False  # whether a signal came then


def leave_on_signals() -> None:
    """From now on the first of SIGNALS raises SystemExit(0), and the others do nothing."""
    for number in SIGNALS:
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    global _due
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)  # a second one would interrupt the stopping
    if _starting:
        _due = True
    else:
        raise SystemExit(0)


@contextmanager
def running(command: list[str], stop: int, seconds: float, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program while the block lasts; options: of Popen.

    stop: the signal that ends it, also when we are killed. seconds: what it gets for that; then all that it has started
    is killed with it.
    """
    global _starting, _due
    process = None
    try:
        _starting = True
        try:
            process = subprocess.Popen(command, start_new_session=True, preexec_fn=_ends_with_us(stop), **options)
        finally:
            _starting = False
        if _due:
            raise SystemExit(0)
        yield process
    finally:
        if process is not None:
            process.send_signal(stop)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            with suppress(ProcessLookupError):  # whatever is left of the session it leads
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _ends_with_us(number: int) -> Callable[[], Any] | None:
    """For `preexec_fn`: the child gets this signal when we are killed; None where the system cannot (not Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return lambda: library.prctl(1, number)  # PR_SET_PDEATHSIG
