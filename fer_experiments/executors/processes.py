"""Worker processes on this machine, each with its share of the GPUs."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import resource_tracker
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from pebble import ProcessExpired, ProcessPool

from fer_experiments.ambient import pin_warnings
from fer_experiments.executors.calls import Lost, Shared, answer, cores, outcome, worker_environment
from fer_experiments.executors.devices import gpu_shares
from fer_experiments.quiet import silenced

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from fer_experiments.config import ComputeConfig

CLOSING = 2.0  # seconds that closing waits for killed workers
LOOK = 1.0  # seconds between two looks at whether a busy worker lives


@contextmanager
def open_processes(compute: ComputeConfig) -> Iterator[Processes]:
    """Worker processes, started when first needed, killed on leaving.

    Raises:
        UserError: more GPUs asked for than there are.
    """
    environment = worker_environment(compute)
    _start_tracker()
    if compute.gpus_per_trial:
        slots = [Slot(environment | {"CUDA_VISIBLE_DEVICES": devices}) for devices in gpu_shares(compute)]
    else:
        slots = [Slot(environment) for _ in range(compute.workers or max(1, cores() // compute.cpus_per_trial))]
    with tempfile.TemporaryDirectory(prefix="fer-shared-", ignore_cleanup_errors=True) as folder:
        processes = Processes(slots, Path(folder))
        try:
            yield processes
        finally:
            processes.close()


def _start_tracker() -> None:
    """Starts Python's process that removes what others leave behind, and says nothing about it.

    Pools that are thrown away with their killed worker leave semaphores.
    """
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")  # which it is given as it starts
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.pop()


class Processes:
    """One worker process a slot; each slot is served by a thread."""

    def __init__(self, slots: list[Slot], folder: Path) -> None:
        self._slots = slots
        self._free: SimpleQueue[Slot] = SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._threads = ThreadPoolExecutor(len(slots), thread_name_prefix="slot")
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
            return slot.run(call, args)
        finally:
            self._free.put(slot)

    def share(self, value: Any) -> Shared:
        """Pickles the value into a file that lives as long as the executor."""
        path = self._folder / f"{self._shared}.pickle"
        self._shared += 1
        with path.open("wb") as out:
            pickle.dump(value, out, protocol=pickle.HIGHEST_PROTOCOL)
        return _Stored(str(path))

    def foreign_hosts(self) -> list[str]:
        """None."""
        return []

    def close(self) -> None:
        """Kills the workers; nothing happens the second time."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        ends = time.monotonic() + CLOSING
        for stopping in [slot.close() for slot in self._slots]:
            stopping.join(max(0.0, ends - time.monotonic()))


class Slot:
    """A place for one worker process at a time: a pool of one, so that a death loses one call.

    A pool that lost its worker is thrown away: pebble 5.2.3 refuses calls after the death of an idle worker
    (find_expired_task), and one killed while it sends leaves half a message in the pool's pipe.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._lock = threading.Lock()
        self._pool: ProcessPool | None = None
        self._worker: BaseProcess | None = None
        self._future: Future[Any] | None = None
        self._closed = False

    def run(self, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """The result of the call in this slot's worker, a fresh one if the last has died.

        Raises:
            Lost: the worker died first.
            CancelledError: the slot was closed.
        """
        payload = pickle.dumps((call, args))
        try:
            if self._worker is None or not self._worker.is_alive():
                self._start()
            return outcome(self._wait(self._schedule(_run, payload)))
        except Lost:
            with self._lock:
                self._discard()
            raise

    def _start(self) -> None:
        with self._lock:
            self._discard()
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPool(1, initializer=_begin, initargs=[self._environment], context=spawn)
        pid = self._wait(self._schedule(os.getpid))
        self._worker = next((p for p in multiprocessing.active_children() if p.pid == pid), None)
        if self._worker is None:
            raise Lost(f"worker process {pid} died as it started")

    def _schedule(self, call: Callable[..., Any], *args: Any) -> Future[Any]:
        with self._lock:
            if self._closed or self._pool is None:
                raise CancelledError
            try:
                self._future = self._pool.schedule(call, args)
            except RuntimeError as error:  # the pool found its worker dead
                raise Lost("worker process died while it was idle") from error
            return self._future

    def _wait(self, future: Future[Any]) -> Any:
        while True:
            try:
                return future.result(LOOK)
            except TimeoutError:
                # pebble 5.2.3 takes exit code 0 for no death (inspect_workers): such a call would never end.
                if self._worker is not None and not self._worker.is_alive() and not future.done():
                    raise Lost(_death(self._worker.pid, self._worker.exitcode)) from None
            except ProcessExpired as error:
                raise Lost(_death(error.pid, error.exitcode)) from None
            except RuntimeError as error:  # BrokenProcessPool
                raise Lost(f"worker process died before it took the call ({error})") from None

    def _discard(self) -> threading.Thread:
        """Kills the worker and lets the pool end in a thread: pebble's join has no bound that holds."""
        pool, worker, self._pool, self._worker = self._pool, self._worker, None, None
        if pool is not None:
            pool.stop()
        if worker is not None:
            worker.kill()
        stopping = threading.Thread(target=pool.join if pool else int, daemon=True)
        stopping.start()
        return stopping

    def close(self) -> threading.Thread:
        """Kills the worker, whatever it does; the thread ends when it is gone."""
        with self._lock:
            self._closed = True
            if self._future is not None:
                self._future.cancel()
            return self._discard()


def _death(pid: int | None, exitcode: int | None) -> str:
    """How a process ended, in words."""
    if exitcode is None or exitcode >= 0:
        return f"worker process {pid} exited with code {exitcode}"
    hint = ", by hand or for want of memory" if -exitcode == signal.SIGKILL else ""
    return f"worker process {pid} was killed by {signal.Signals(-exitcode).name}{hint}"


def _begin(environment: dict[str, str]) -> None:
    """First thing in a worker, before the call's modules are imported. SIGINT is the driver's: pebble ignores it."""
    os.environ.update(environment)
    pin_warnings()
    # pebble's handler runs between two bytecodes only: a worker deep in C would outlive its SIGTERM by 3 s.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_driver, daemon=True).start()


def _die_with_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)


def _run(payload: bytes) -> bytes:
    return answer(_unpickled, payload)


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
