"""`fer` commands as processes that start at once: forked from one that has imported the libraries and run nothing."""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import IO

import fer_experiments.tracking  # noqa: F401  sets what MLflow reads when it is imported
from fer_experiments.executors import forks

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 600.0  # seconds; a hang, not a slow machine
_CLONE_NEWNS = 0x00020000  # linux/sched.h; os.unshare came with Python 3.12

# The process that the package's own workers are forked from: it imports the libraries once for both.
_context = multiprocessing.get_context("forkserver")
forks.start_tracker()
forks.keep_addresses_short()
_context.set_forkserver_preload([f"{forks.__package__}.preload"])


class Command:
    """`fer` with these arguments, in a session of its own, as `python -m fer_experiments.cli` would run it.

    log: takes what it says, else stdout is read line by line, and stderr is a property. stack: where SIGUSR1 makes it
    write what it is doing. environment: variables besides this process'. mounts: what bash does before, among file
    systems that nobody else sees. alone: its workers are forked from a process that it starts itself, of its own
    session and environment, as it does where nobody tests it; else from the one that it was forked from, which has
    imported the libraries.
    """

    def __init__(
        self,
        *arguments: str,
        log: Path | None = None,
        stack: Path | None = None,
        environment: Mapping[str, str] | None = None,
        mounts: str = "",
        folder: Path = ROOT,
        alone: bool = False,
    ) -> None:
        forks.prepare()
        alone = alone or bool(environment or mounts)
        ours, theirs = _context.Pipe(duplex=False)
        self._errors = tempfile.NamedTemporaryFile("r", encoding="utf-8", suffix=".stderr")  # noqa: SIM115
        files = (theirs, Path(self._errors.name), log, stack)
        around = ({**os.environ, **(environment or {})}, mounts, folder, alone)
        self._process = _context.Process(target=_run, args=(arguments, *around, *files))
        self._process.start()
        theirs.close()
        self.stdout: IO[str] = os.fdopen(os.dup(ours.fileno()), encoding="utf-8")
        ours.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def stderr(self) -> str:
        """What it has said there so far."""
        self._errors.seek(0)
        return self._errors.read()

    def poll(self) -> int | None:
        """Its exit code, minus the number of a signal that killed it; None while it runs."""
        return self._process.exitcode

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        self._process.join(PATIENCE)
        code = self._process.exitcode
        assert code is not None, "it does not end"
        return code


def run(*arguments: str, mounts: str = "", folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The same from its start to its end."""
    command = Command(*arguments, mounts=mounts, folder=folder)
    with command.stdout:
        said = command.stdout.read()
    return subprocess.CompletedProcess(arguments, command.wait(), said, command.stderr)


def _run(
    arguments: tuple[str, ...],
    environment: dict[str, str],
    mounts: str,
    folder: Path,
    alone: bool,
    out: multiprocessing.connection.Connection,
    errors: Path,
    log: Path | None,
    stack: Path | None,
) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    if mounts:
        ctypes.CDLL(None).unshare(_CLONE_NEWNS)
        subprocess.run(["bash", "-euc", f"mount --make-rprivate /; {mounts}"], check=True)
    os.chdir(folder)
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if log else out.fileno(), 1)
    os.dup2(os.open(log or errors, os.O_WRONLY | os.O_APPEND), 2)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # the package's workers have it blocked
    if not alone:  # it knows that server's address, but not that it runs
        forkserver.ensure_running = forkserver._forkserver.ensure_running = resource_tracker.ensure_running  # type: ignore[attr-defined]
    if stack:
        faulthandler.register(signal.SIGUSR1, file=stack.open("w"), all_threads=False)
    sys.argv = ["fer", *arguments]
    from fer_experiments.cli import main

    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main(list(arguments)))
