"""Calls that workers import from here, a driver that makes some, and what is seen of their processes."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from ray_nodes import WORKERS_PATH

from fer_experiments.config import ComputeConfig
from fer_experiments.executors.executor import Shared, open_executor

PATIENCE = 300.0  # seconds; a hang, not a slow machine


def pid(*_: Any) -> int:
    return os.getpid()


def nap(folder: Path, seconds: float) -> int:
    (folder / str(os.getpid())).touch()
    time.sleep(seconds)
    return os.getpid()


def run_until(stop: Path, folder: Path) -> int:
    (folder / str(os.getpid())).touch()
    while not stop.exists():
        time.sleep(0.02)
    return os.getpid()


def burn(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    threading.Thread(target=time.sleep, args=(600,)).start()  # no daemon: the interpreter would wait for it
    a = np.ones((1000, 1000))
    while True:
        a = np.tanh(a @ a)


def die(*_: Any, code: int | None = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(code: int) -> None:
    os._exit(code)


class Odd(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, left: int, right: int):
        super().__init__(f"{left} is not {right}")


@dataclass(frozen=True)
class Frozen(Exception):
    """Takes no notes."""

    text: str


class Another(Exception):
    """Is read as something else."""

    def __reduce__(self) -> Any:
        return str, ("no exception",)


def die_sending(folder: Path) -> bytes:
    """Dies in the middle of its answer; a child that it has forked lives on."""
    if not os.fork():
        (folder / str(os.getpid())).touch()
        time.sleep(600)
        os._exit(0)
    pids(folder)
    pipe = next(o for o in gc.get_objects() if isinstance(o, Connection) and o.readable and o.writable)
    os.write(pipe.fileno(), (50_000_000).to_bytes(4, "big") + bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def raise_key_error() -> None:
    raise KeyError("fear")


def raise_odd() -> None:
    raise Odd(1, 2)


def raise_frozen() -> None:
    raise Frozen("as it is made")


def raise_another() -> None:
    raise Another("is no exception when it is read")


def raise_system_exit() -> None:
    sys.exit(3)


def lock() -> Any:
    return threading.Lock()


def environment(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


class Counted:
    """Counts how often it is loaded in a process."""

    loads = 0

    def __init__(self, array: np.ndarray):
        self.array = array

    def __setstate__(self, state: dict[str, Any]) -> None:
        Counted.loads += 1
        self.__dict__ = state


def total(shared: Shared) -> tuple[int, float]:
    array = shared.get().array
    return Counted.loads, float(array.sum())


def drive(name: str, folder: str) -> None:
    """A driver with two calls that never end, one idle and one busy, for tests that end it from outside."""
    with open_executor(ComputeConfig(name=name, workers=2)) as executor:
        wait([executor.submit(nap, Path(folder), 600.0), executor.submit(burn, Path(folder))])


def soon(condition: Callable[[], Any]) -> Any:
    ends = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < ends, "waited too long"
        time.sleep(0.02)
    return value


def pids(folder: Path, count: int = 1) -> list[int]:
    """Of the calls that have begun in the folder, once there are so many."""
    soon(lambda: len(list(folder.iterdir())) >= count)
    return [int(path.name) for path in folder.iterdir()]


def gone(*numbers: int) -> bool:
    def ended(number: int) -> bool:
        try:
            return psutil.Process(number).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return all(ended(number) for number in numbers)


@contextmanager
def run_driver(name: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    code = f"from {Path(__file__).stem} import drive; drive({name!r}, {str(folder)!r})"
    quiet = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"PYTHONPATH": WORKERS_PATH}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=quiet, stderr=subprocess.PIPE, start_new_session=True) as driver:
        try:
            yield driver
        finally:  # else a test that fails would wait for it for ever
            with suppress(ProcessLookupError):
                os.killpg(driver.pid, signal.SIGKILL)
