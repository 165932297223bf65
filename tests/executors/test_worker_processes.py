"""Executors without a cluster: worker processes, their GPUs, and calls in this process."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from ray_nodes import TESTS
from worker_calls import (
    PATIENCE,
    Counted,
    Odd,
    die,
    die_sending,
    environment,
    gone,
    leave,
    nap,
    pid,
    pids,
    raise_odd,
    raise_system_exit,
    run_driver,
    run_until,
    soon,
)

from fer_experiments.config import ComputeConfig
from fer_experiments.errors import UserError
from fer_experiments.executors import processes
from fer_experiments.executors.devices import gpu_shares
from fer_experiments.executors.executor import Lost, open_executor


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


def test_importing_executors_imports_nothing_heavy() -> None:
    heavy = {"ray", "tensorflow", "keras", "mlflow", "numpy"}
    code = f"import sys, fer_experiments.executors.executor; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=TESTS.parent)
