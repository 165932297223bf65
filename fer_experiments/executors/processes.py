"""Worker processes on this machine, each with its share of the GPUs."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil
from threadpoolctl import threadpool_limits

from fer_experiments.config import ComputeConfig
from fer_experiments.executors import forks
from fer_experiments.executors.calls import Lost, Shared, answer, cores, outcome, worker_environment
from fer_experiments.executors.devices import gpu_shares
from fer_experiments.executors.executor import Executor
from fer_experiments.files import temporary_folder
from fer_experiments.quiet import silenced
from fer_experiments.terminal import Echo

PATIENCE = 2.0  # seconds that are waited for the end of a process that is dead or about to be
CHECK_S = 5.0  # between two looks at a worker that has not answered
STOPPED_SAID, STOPPED_KILLED = 2, 24  # looks in a row that find it stopped


@contextmanager
def opened(compute: ComputeConfig, echo: Echo) -> Iterator[Processes]:
    """Worker processes, started when first needed, killed on leaving.

    Raises:
        UserError: more GPUs asked for than there are.
    """
    environment = {**os.environ, **worker_environment(compute)}
    forks.prepare()
    if compute.gpus_per_trial:
        slots = [Slot(environment | {"CUDA_VISIBLE_DEVICES": devices}, echo) for devices in gpu_shares(compute)]
    else:
        slots = [Slot(environment, echo) for _ in range(compute.workers or max(1, cores() // compute.cpus_per_trial))]
    with temporary_folder("fer-shared-") as folder:
        processes = Processes(slots, folder)
        try:
            yield processes
        finally:
            processes.close()


class Processes(Executor):
    """One worker process a slot; each slot is served by a thread."""

    def __init__(self, slots: list[Slot], folder: Path) -> None:
        self._slots = slots
        self._free: SimpleQueue[Slot] = SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        # Workers inherit what their thread keeps away: Ctrl-C is the driver's from their first instant.
        self._threads = ThreadPoolExecutor(
            len(slots), "slot", signal.pthread_sigmask, (signal.SIG_BLOCK, [signal.SIGINT])
        )
        self._folder = folder
        self._shared = 0

    @property
    def slots(self) -> int:
        """The number of worker processes."""
        return len(self._slots)

    @property
    def where(self) -> str:
        """The place in words."""
        return f"in {self.slots} worker process{'es' if self.slots > 1 else ''}"

    def submit(self, call: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Starts the call in a free worker, or queues it."""
        return self._threads.submit(self._run, call, args)

    def _run(self, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        slot = self._free.get()  # there is one: as many threads as slots
        try:
            return outcome(slot.run(pickle.dumps((call, args))))
        finally:
            self._free.put(slot)

    def share(self, value: Any) -> Shared:
        """Pickles the value into a file that lives as long as the executor."""
        path = self._folder / f"{self._shared}.pickle"
        self._shared += 1
        with path.open("wb") as out:
            pickle.dump(value, out, protocol=pickle.HIGHEST_PROTOCOL)
        return _Stored(str(path))

    def close(self) -> None:
        """Kills the workers; nothing happens the second time."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        killed = [worker for slot in self._slots if (worker := slot.close())]
        ends = time.monotonic() + PATIENCE
        for worker in killed:
            worker.join(max(0.0, ends - time.monotonic()))


class Slot:
    """A place for one worker process at a time, behind a pipe of its own: a death loses one call and half a message."""

    def __init__(self, environment: dict[str, str], echo: Echo) -> None:
        self._environment, self._echo = environment, echo
        self._lock = threading.Lock()
        self._closed = False
        self._worker: BaseProcess | None = None
        self._pipe: Connection[bytes, bytes]

    def run(self, payload: bytes, *, again: bool = True) -> bytes:
        """This slot's worker's answer to a call, a fresh worker's if the last has died.

        again: one that died idle may be seen to have died only now, and is replaced.

        Raises:
            Lost: the worker died first.
            CancelledError: the slot was closed.
        """
        worker = self._living()
        with suppress(EOFError, OSError):
            self._pipe.send_bytes(payload)
            self._pipe.recv_bytes()  # it begins
            again = False
            self._wait(worker)
            return self._pipe.recv_bytes()
        worker.join(PATIENCE)
        if worker.is_alive():  # what it ran has closed its end of the pipe
            worker.kill()
            worker.join(PATIENCE)
        if self._closed:
            raise CancelledError
        if again:
            return self.run(payload, again=False)
        raise Lost(_death(worker.pid, worker.exitcode))

    def _wait(self, worker: BaseProcess) -> None:
        """Until there is an answer, or an end; a worker that somebody has stopped and not continued is killed."""
        stopped = 0
        while not self._pipe.poll(CHECK_S):
            stopped = stopped + 1 if _is_stopped(worker.pid) else 0
            if stopped == STOPPED_SAID:
                ends = CHECK_S * (STOPPED_KILLED - STOPPED_SAID)
                self._echo(
                    f"worker process {worker.pid} is stopped; unless it is continued (kill -CONT {worker.pid}), it is "
                    f"killed in {ends:.0f} s, and another does its work"
                )
            if stopped == STOPPED_KILLED:
                worker.kill()

    def _living(self) -> BaseProcess:
        with self._lock:
            if self._closed:
                raise CancelledError
            if self._worker is None or not self._worker.is_alive():
                self._pipe, theirs = forks.context.Pipe()
                self._worker = forks.start(_serve, theirs, environment=self._environment)
                theirs.close()  # so that the pipe ends with the worker
            return self._worker

    def close(self) -> BaseProcess | None:
        """Kills the worker, whatever it does."""
        with self._lock:
            self._closed = True
            if self._worker is not None:
                self._worker.kill()
            return self._worker


def _is_stopped(pid: int | None) -> bool:
    """Whether a signal (SIGSTOP, Ctrl-Z) or a debugger keeps the process from running."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    return False


def _death(pid: int | None, exitcode: int | None) -> str:
    """How a process ended, in words."""
    if exitcode is None or exitcode >= 0:
        return f"worker process {pid} exited with code {exitcode}"
    hint = ", by hand or for want of memory" if -exitcode == signal.SIGKILL else ""
    return f"worker process {pid} was killed by {signal.Signals(-exitcode).name}{hint}"


def _serve(pipe: Connection[bytes, bytes]) -> None:
    """A worker's life; the calls' modules are imported in it."""
    os.register_at_fork(after_in_child=pipe.close)  # a child of a call must not keep a dead worker's pipe open
    if (threads := os.environ["OMP_NUM_THREADS"]).isdigit():
        threadpool_limits(int(threads))  # libraries read it when they were loaded
    forks.end_with_parent(lambda: os._exit(1))
    with suppress(EOFError, OSError):  # the driver is gone
        while True:
            payload = pipe.recv_bytes()
            pipe.send_bytes(b"")
            pipe.send_bytes(answer(_unpickled, payload))


def _unpickled(payload: bytes) -> Any:
    with silenced():  # importing the call's modules may import the backend
        call, args = pickle.loads(payload)
    return call(*args)


@dataclass(frozen=True)
class _Stored:
    path: str

    def get(self) -> Any:
        return _load(self.path)


@cache
def _load(path: str) -> Any:
    with Path(path).open("rb") as file:
        return pickle.load(file)
