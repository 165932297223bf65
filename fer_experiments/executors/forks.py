"""Processes forked from one that has imported the libraries and runs nothing else.

They start in a tenth of the time and share their memory. Elsewhere than on Linux a fork of what the libraries have
loaded is not safe: there each process imports them anew.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from fer_experiments.ambient import pin_warnings, without_secrets

context: BaseContext
if sys.platform == "linux":
    context = multiprocessing.get_context("forkserver")
else:
    context = multiprocessing.get_context("spawn")
_starting = threading.Lock()


def prepare() -> None:
    """Starts the process that is forked, unless it runs; it imports the libraries by itself."""
    context.set_forkserver_preload([f"{__package__}.preload"])
    with without_secrets():
        start_tracker()
        keep_addresses_short()
        if sys.platform == "linux":
            # It inherits what is kept away, and its forks do: Ctrl-C is the driver's alone from the first instant.
            kept = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            try:
                forkserver.ensure_running()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, kept)


def start(target: Callable[..., None], *args: Any, environment: dict[str, str]) -> BaseProcess:
    """A process that calls the target, a function of a module, with these variables and no others.

    Nothing of the program that asks for it is imported or run again in it.
    """
    process: BaseProcess = context.Process(target=_live, args=(environment, target, args), daemon=True)  # type: ignore[attr-defined]
    with _no_program():
        if sys.platform == "linux" and any(map(_has_ended, _helpers())):
            prepare()  # else multiprocessing starts them again, with all that this process has in its environment
        process.start()
    return process


def _helpers() -> list[int]:
    """The pids of the processes that `prepare` has started."""
    known = (
        getattr(forkserver._forkserver, "_forkserver_pid", None),
        getattr(resource_tracker._resource_tracker, "_pid", None),
    )
    return [pid for pid in known if pid is not None]


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def end_with_parent(end: Callable[[], object]) -> None:
    """In such a process: calls this, in a thread, when the process that asked for it has ended, however it did."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        end()

    threading.Thread(target=wait, daemon=True).start()


def _live(environment: dict[str, str], target: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ.clear()  # it may be forked from what had another
    os.environ.update(environment)
    pin_warnings()
    target(*args)


def start_tracker() -> None:
    """Starts Python's process that removes what others leave behind, and says nothing about it.

    A worker that is killed leaves the semaphores of its libraries.
    """
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")  # which it is given as it starts
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.pop()


def keep_addresses_short() -> None:
    """Makes the folder of multiprocessing's sockets where their paths fit, wherever temporary files go.

    A socket's address has 107 bytes (unix(7)); in that folder's parent they take 32 of them.
    """
    if len(os.fsencode(tempfile.gettempdir())) > 107 - 32:
        given, tempfile.tempdir = tempfile.tempdir, "/tmp"
        try:
            util.get_temp_dir()
        finally:
            tempfile.tempdir = given


@contextmanager
def _no_program() -> Iterator[None]:
    """Hides the program while a process starts: multiprocessing would import it there, and run what is not guarded."""
    with _starting:
        program, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = program
