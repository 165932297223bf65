from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, wait
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from ray_nodes import TESTS, WORKERS_PATH, ray_cluster

from fer_experiments.config import ComputeConfig, options
from fer_experiments.errors import UserError
from fer_experiments.executors import processes
from fer_experiments.executors.devices import gpu_shares
from fer_experiments.executors.executor import Executor, Lost, Shared, open_executor

PATIENCE = 300.0  # seconds; a hang, not a slow machine

# Calls: workers import them from here.


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


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(2) as cluster:
        yield cluster


@pytest.fixture(scope="class", params=[name for name in options("compute") if name != "inline"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Two workers, kept for the tests of a class: on Ray they take seconds to start."""
    address = request.getfixturevalue("cluster").address if request.param == "ray" else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_NUM_INTRAOP_THREADS", "5")
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setenv("KERAS_BACKEND", "jax")
        with open_executor(ComputeConfig(name=request.param, workers=2, address=address)) as opened:
            yield opened


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


def run_driver(name: str, folder: Path) -> subprocess.Popen[bytes]:
    code = f"from {Path(__file__).stem} import drive; drive({name!r}, {str(folder)!r})"
    quiet = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"PYTHONPATH": WORKERS_PATH}
    return subprocess.Popen([sys.executable, "-c", code], env=quiet, stderr=subprocess.PIPE, start_new_session=True)


# First: beside the fixture's cluster a second one takes a minute to start on two cores.
def test_local_ray_listens_on_loopback_and_ends_with_its_driver(tmp_path: Path) -> None:
    with run_driver("ray", tmp_path) as driver:
        pids(tmp_path, 2)
        family = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
        listening = {c.laddr.ip for p in family for c in p.net_connections("tcp") if c.status == "LISTEN"}
        assert listening and all("127.0.0.1" in address for address in listening)
        os.killpg(driver.pid, signal.SIGINT)
        driver.wait(PATIENCE)
        soon(lambda: gone(*pids(tmp_path, 2)))
        # Ray's own agents, which hold the pipe open, end after their raylet: seconds, more on a loaded machine.
        _, errors = driver.communicate(timeout=PATIENCE)
        assert errors.decode().rstrip().endswith("KeyboardInterrupt")
        soon(lambda: gone(*(p.pid for p in family)))


class TestWorkers:
    def test_results_and_exceptions_come_back(self, executor: Executor) -> None:
        assert executor.submit(divmod, 7, 2).result(PATIENCE) == (3, 1)
        with pytest.raises(KeyError, match="fear") as raised:
            executor.submit(raise_key_error).result(PATIENCE)
        assert "in raise_key_error" in raised.value.__notes__[0]
        assert executor.foreign_hosts() == []

    def test_shared_value_is_loaded_once_in_a_worker(self, executor: Executor) -> None:
        shared = executor.share(Counted(np.ones(13_000_000)))  # 104 MB
        for _ in range(4):
            loads, sum_ = executor.submit(total, shared).result(PATIENCE)
            assert (loads, sum_) == (1, 13e6)

    def test_what_cannot_be_pickled_comes_back_as_an_ordinary_exception(self, executor: Executor) -> None:
        with pytest.raises(TypeError, match="pickle"):
            executor.submit(lock).result(PATIENCE)
        with pytest.raises(RuntimeError, match="1 is not 2"):
            executor.submit(raise_odd).result(PATIENCE)
        with pytest.raises(RuntimeError, match="SystemExit: 3"):
            executor.submit(raise_system_exit).result(PATIENCE)
        with pytest.raises((TypeError, AttributeError), match="pickle"):
            executor.submit(pid, threading.Lock()).result(PATIENCE)
        assert executor.submit(pid).result(PATIENCE) != os.getpid()

    def test_environment_is_set_and_what_the_user_set_stays(self, executor: Executor) -> None:
        names = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "TF_FORCE_GPU_ALLOW_GROWTH", "KERAS_BACKEND")
        assert executor.submit(environment, *names).result(PATIENCE) == ["5", "1", "true", "jax"]

    def test_calls_run_side_by_side_in_as_many_workers_as_slots(self, executor: Executor, tmp_path: Path) -> None:
        assert executor.slots == 2
        (folder := tmp_path / "began").mkdir()
        futures = [executor.submit(run_until, tmp_path / "stop", folder) for _ in range(2)]
        pids(folder, 2)
        (tmp_path / "stop").touch()
        numbers = {future.result(PATIENCE) for future in futures}
        assert len(numbers) == 2 and os.getpid() not in numbers

    def test_killed_worker_loses_its_own_call_and_no_other(self, executor: Executor, tmp_path: Path) -> None:
        (folder := tmp_path / "began").mkdir()
        other = executor.submit(run_until, tmp_path / "stop", folder)
        (survivor,) = pids(folder)
        victim = executor.submit(nap, folder, 600.0)
        (killed,) = set(pids(folder, 2)) - {survivor}
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(Lost) as lost:
            victim.result(PATIENCE)
        assert "\n" not in str(lost.value) and 10 < len(str(lost.value)) <= 200
        assert executor.submit(pid).result(PATIENCE) != killed
        (tmp_path / "stop").touch()
        assert other.result(PATIENCE) == survivor

    @pytest.mark.parametrize("code", [0, 7])
    def test_worker_that_leaves_is_lost_whatever_its_exit_code(self, executor: Executor, code: int) -> None:
        with pytest.raises(Lost):
            executor.submit(leave, code).result(PATIENCE)
        assert executor.submit(divmod, 7, 2).result(PATIENCE) == (3, 1)


def test_death_is_told_by_signal_and_exit_code() -> None:
    with open_executor(ComputeConfig(name="processes", workers=1)) as executor:
        with pytest.raises(Lost, match="killed by SIGKILL"):
            executor.submit(die).result(PATIENCE)
        with pytest.raises(Lost, match="exited with code 7"):
            executor.submit(leave, 7).result(PATIENCE)


def test_death_of_an_idle_worker_loses_nothing() -> None:
    with open_executor(ComputeConfig(name="processes", workers=1)) as executor:
        first = executor.submit(pid).result(PATIENCE)
        os.kill(first, signal.SIGKILL)
        soon(lambda: gone(first))
        assert executor.submit(pid).result(PATIENCE) != first


def test_a_stopped_worker_is_said_to_be_and_its_call_given_back_unless_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "CHECK_S", 0.05)
    monkeypatch.setattr(processes, "STOPPED_KILLED", 10**9)
    said: list[str] = []
    with open_executor(ComputeConfig(name="processes", workers=1), said.append) as executor:
        (first := tmp_path / "first").mkdir()
        call = executor.submit(run_until, tmp_path / "stop", first)
        (worker,) = pids(first)
        os.kill(worker, signal.SIGSTOP)
        soon(lambda: said)
        os.kill(worker, signal.SIGCONT)
        (tmp_path / "stop").touch()
        assert call.result(PATIENCE) == worker
        monkeypatch.setattr(processes, "STOPPED_KILLED", 4)
        (second := tmp_path / "second").mkdir()
        call = executor.submit(nap, second, 600.0)
        os.kill(*pids(second), signal.SIGSTOP)
        with pytest.raises(Lost, match="killed by SIGKILL"):
            call.result(PATIENCE)
        assert executor.submit(divmod, 7, 2).result(PATIENCE) == (3, 1)
    assert len(said) == 2 and f"worker process {worker} is stopped; unless it is continued" in said[0]


def test_death_in_the_middle_of_an_answer_is_seen_though_a_child_lives_on(tmp_path: Path) -> None:
    with open_executor(ComputeConfig(name="processes", workers=1)) as executor:
        with pytest.raises(Lost, match="killed by SIGKILL"):
            executor.submit(die_sending, tmp_path).result(PATIENCE)
        assert executor.submit(divmod, 7, 2).result(PATIENCE) == (3, 1)
    os.kill(*pids(tmp_path), signal.SIGKILL)


def test_many_quick_calls_and_deaths_leave_no_process_and_no_descriptor_behind() -> None:
    process = psutil.Process()
    before = process.num_fds()
    with open_executor(ComputeConfig(name="processes", workers=2)) as executor:
        assert len({future.result(PATIENCE) for future in [executor.submit(pid) for _ in range(200)]}) <= 2
        held = process.num_fds()
        for _ in range(3):
            with pytest.raises(Lost):
                executor.submit(die).result(PATIENCE)
        workers = {executor.submit(pid).result(PATIENCE) for _ in range(2)}
        gc.collect()
        assert process.num_fds() <= held
    del executor
    gc.collect()
    # One leads to Python's tracker, one to the process that workers are forked from.
    assert gone(*workers) and process.num_fds() <= before + 2


@pytest.mark.parametrize(
    ("name", "leaving"),
    [("processes", None), ("processes", RuntimeError), ("processes", SystemExit), ("ray", KeyboardInterrupt)],
)
def test_leaving_kills_what_would_never_end(
    name: str, leaving: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue("cluster").address if name == "ray" else None
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with open_executor(ComputeConfig(name, 2, address=address)) as executor:
            futures = [executor.submit(burn, tmp_path) for _ in range(3)]
            running = pids(tmp_path, 2)
            if leaving:
                raise leaving
    except (RuntimeError, KeyboardInterrupt, SystemExit):
        assert leaving
    soon(lambda: gone(*running))
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(PATIENCE)
    assert signal.getsignal(signal.SIGTERM) is handler
    executor.close()
    with pytest.raises(RuntimeError):
        executor.submit(pid)


def test_workers_die_with_a_killed_driver_and_what_it_shared_goes_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary := tmp_path / ("t" * 80)).mkdir()  # longer than a socket's path may be
    (calls := tmp_path / "calls").mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with run_driver("processes", calls) as driver:
        running = pids(calls, 2)
        driver.kill()
        driver.wait(PATIENCE)
        soon(lambda: gone(*running))
    (left,) = temporary.glob("fer-shared-*")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with open_executor(ComputeConfig(name="processes", workers=1)):
        (own,) = temporary.glob("fer-shared-*")
        assert own != left
        with open_executor(ComputeConfig(name="processes", workers=1)):
            assert own.exists()  # of one that lives


def test_ctrl_c_is_the_drivers_alone(tmp_path: Path) -> None:
    with run_driver("processes", tmp_path) as driver:
        family = psutil.Process(driver.pid)
        (nest,) = soon(lambda: [p for p in family.children() if any("forkserver" in word for word in p.cmdline())])
        nest.send_signal(signal.SIGINT)  # while it imports
        running = pids(tmp_path, 2)
        assert {psutil.Process(number).ppid() for number in running} == {nest.pid}
        for number in [nest.pid, *running]:
            blocked = Path(f"/proc/{number}/status").read_text().partition("SigBlk:")[2].split()[0]
            assert int(blocked, 16) & 1 << signal.SIGINT - 1  # it cannot arrive, now or ever
        os.killpg(driver.pid, signal.SIGINT)
        _, errors = driver.communicate(timeout=PATIENCE)
    assert errors.decode().rstrip().endswith("KeyboardInterrupt")
    soon(lambda: gone(*running))


@pytest.mark.parametrize(
    ("each", "workers", "shares"),
    [
        (1, None, ["4", "MIG-a", "7"]),
        (1, 2, ["4", "MIG-a"]),
        (0.5, None, ["4", "MIG-a", "7", "4", "MIG-a", "7"]),
        (2, None, ["4,MIG-a"]),
    ],
)
def test_gpus_are_dealt_out(
    monkeypatch: pytest.MonkeyPatch, each: float, workers: int | None, shares: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,MIG-a,7,-1,9")
    assert gpu_shares(ComputeConfig("processes", workers, each)) == shares


@pytest.mark.parametrize(("each", "workers"), [(1, 4), (0.5, 7), (4, None), (1.5, None)])
def test_more_gpus_than_there_are_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, each: float, workers: int | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(UserError), open_executor(ComputeConfig("processes", workers, each)):
        pass


def test_worker_sees_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with open_executor(ComputeConfig("processes", 1, 1.0)) as executor:
        assert executor.submit(environment, "CUDA_VISIBLE_DEVICES").result(PATIENCE) == ["3"]


def test_inline_runs_in_this_process() -> None:
    with open_executor(ComputeConfig()) as executor:
        value = Counted(np.ones(3))
        assert executor.submit(pid).result(0) == os.getpid()
        assert executor.share(value).get() is value
        assert isinstance(executor.submit(raise_odd).exception(0), Odd)


def test_inline_lets_ctrl_c_through() -> None:
    with open_executor(ComputeConfig()) as executor, pytest.raises(SystemExit):
        executor.submit(raise_system_exit)


def test_lost_node_gives_its_calls_back(cluster: Any, tmp_path: Path) -> None:
    with open_executor(ComputeConfig(name="ray", address=cluster.address)) as executor:
        assert executor.slots == 2
        node = cluster.add_node(num_cpus=2)
        soon(lambda: executor.slots == 4)
        assert executor.where == "on a Ray cluster of 3 nodes, 4 at a time"
        began = tmp_path / "began"
        began.mkdir()
        futures = [executor.submit(run_until, tmp_path / "stop", began) for _ in range(4)]
        pids(began, 4)
        cluster.remove_node(node, allow_graceful=False)
        soon(lambda: sum(future.done() for future in futures) == 2)
        lost = [future.exception() for future in futures if future.done()]
        assert all(isinstance(error, Lost) and "node" in str(error) for error in lost)
        (tmp_path / "stop").touch()
        futures = [future for future in futures if not future.done()]
        futures += [executor.submit(run_until, tmp_path / "stop", began) for _ in lost]
        assert all(future.result(PATIENCE) for future in futures)
        soon(lambda: executor.slots == 2)


def test_trial_that_fits_nowhere_yet_is_said(cluster: Any) -> None:
    said: list[str] = []
    with open_executor(ComputeConfig("ray", None, 1.0, 1, cluster.address), said.append) as executor:
        assert executor.slots == 1
    assert "no node of the Ray cluster has as much" in said[0]


def dead_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("address", ["nonsense", "host.invalid:6379", "ray://127.0.0.1:10001", None])
def test_unreachable_cluster_is_one_line(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    address = address or dead_address()
    with pytest.raises(UserError, match="ray start") as error, open_executor(ComputeConfig("ray", address=address)):
        pass
    assert "\n" not in str(error.value) and address in str(error.value)


def test_importing_executors_imports_nothing_heavy() -> None:
    heavy = {"ray", "tensorflow", "keras", "mlflow", "numpy"}
    code = f"import sys, fer_experiments.executors.executor; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=TESTS.parent)
