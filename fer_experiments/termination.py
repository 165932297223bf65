"""SIGTERM and Ctrl-C as exceptions that do not get lost."""

from __future__ import annotations

import _thread
import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE_S = 5.0

_caught: BaseException | None = None
_held = 0  # blocks of `held` that the main thread is in
_firmly = 0  # those of them that nothing interrupts
_due = False  # whether a signal came in one of them


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """In the block SIGTERM raises SystemExit(143), and Ctrl-C KeyboardInterrupt; `check` raises either again.

    In the main thread only, and only in the place of Python's own handlers: what a program around this one has set, or
    ignores, stays. Libraries that set a handler of their own in the block lose it at its end.
    """
    global _caught, _due
    ours = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    main = threading.current_thread() is threading.main_thread()
    replaced = {number: own for number, own in ours.items() if main and signal.getsignal(number) == own}
    for number in replaced:
        signal.signal(number, _catch)
    try:
        yield
    finally:
        for number, own in replaced.items():
            signal.signal(number, own)
        if replaced:
            _caught, _due = None, False


def check() -> None:
    """Raises again what a signal raised in the block: to be called where a program would otherwise go on for long.

    Some libraries swallow every exception, by an `except:` without a type: Ray 2.60 around its first ray.put, which
    imports for a quarter of a second, for one.
    """
    if _caught is not None:
        raise _caught


@contextmanager
def held(*, firmly: bool = True) -> Iterator[None]:
    """What a signal raises in the block is raised at its end: for what takes milliseconds and must not stop half way.

    Of the main thread alone, which is the one that signals interrupt. firmly: False for what may take minutes, as a
    server that is gone does: another signal in the block is raised at once then, and one alone after PATIENCE_S.
    """
    global _held, _firmly, _due
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _held += 1
    _firmly += firmly
    try:
        yield
    finally:
        _held -= 1
        _firmly -= firmly
        if _due and not _held:
            _raise()


def interrupt(thread: threading.Thread) -> None:
    """Ends what a thread of this process does as SIGTERM ends a program: at its next line of Python."""
    if thread is threading.main_thread():
        _thread.interrupt_main(signal.SIGTERM)
    else:  # which no signal reaches
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))


def _catch(number: int, frame: FrameType | None) -> None:
    global _caught, _due
    _caught = SystemExit(128 + number) if number == signal.SIGTERM else KeyboardInterrupt()
    if not _held or (_due and not _firmly):
        _raise()
    if not _firmly:
        _insist_later(number)
    _due = True


def _raise() -> None:
    global _due
    _due = False
    if isinstance(_caught, SystemExit):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the closing
    check()


def _insist_later(number: int) -> None:
    """Sends the main thread the signal again while it is held: Slurm sends one, and kills half a minute after it."""

    def insist() -> None:
        if _due:
            signal.pthread_kill(threading.main_thread().ident or 0, number)

    timer = threading.Timer(PATIENCE_S, insist)
    timer.daemon = True
    timer.start()
