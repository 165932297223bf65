"""Executors of every kind with two workers, and a Ray cluster whose nodes come and go."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from ray_nodes import ray_cluster
from worker_calls import (
    PATIENCE,
    Counted,
    burn,
    environment,
    gone,
    leave,
    lock,
    nap,
    pid,
    pids,
    raise_another,
    raise_frozen,
    raise_key_error,
    raise_odd,
    raise_system_exit,
    run_driver,
    run_until,
    soon,
    total,
)

from fer_experiments.config import ComputeConfig, options
from fer_experiments.errors import UserError
from fer_experiments.executors.executor import Executor, Lost, open_executor


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


# First: beside the fixture's cluster a second one takes a minute to start on two cores.
def test_local_ray_listens_on_loopback_and_ends_with_its_driver(tmp_path: Path) -> None:
    with run_driver("ray", tmp_path) as driver:
        pids(tmp_path, 2)
        family = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
        listening = {c.laddr.ip for p in family for c in p.net_connections("tcp") if c.status == "LISTEN"}
        assert listening and all("127.0.0.1" in address for address in listening)
        own = psutil.Process(driver.pid).nice()
        assert {psutil.Process(pid).nice() for pid in pids(tmp_path, 2)} == {own}, "they are starved by other work"
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
        with pytest.raises(Exception, match="as it is made"):
            executor.submit(raise_frozen).result(PATIENCE)
        with pytest.raises(RuntimeError, match="is no exception when it is read"):
            executor.submit(raise_another).result(PATIENCE)
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
