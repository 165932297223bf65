"""Sweeps that are stopped, or lose a worker or their disk, and go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from forked import Command
from forked import run as fer
from small_sweeps import SMALL, quick, run, runs_of
from stores import store_in

from fer_experiments import tracking
from fer_experiments.config import Config, mlruns_dir
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.search import sweep as sweep_room
from fer_experiments.search.sweep import run_sweep
from fer_experiments.tracking import find_runs


def test_worker_processes_come_to_the_same_leaderboard_though_one_is_killed(paths: list[str], tmp_path: Path):
    config = quick(paths, "sweep.seed=25", "sweep.max_trials=4", "training.deterministic=true", "training.epochs=6")
    whole, _ = run(config)
    elsewhere = replace(
        config,
        paths=replace(config.paths, mlruns=str(tmp_path / "mlruns")),
        compute=replace(config.compute, name="processes", workers=2),
    )
    over, said = threading.Event(), list[str]()
    tracking.connect(elsewhere)
    killing = threading.Thread(target=kill_a_worker, args=(elsewhere, over))
    killing.start()
    try:
        state = run_sweep(elsewhere, said.append)
    finally:
        over.set()
        killing.join()
    assert any("it is given to another worker" in line for line in said)
    assert [(t.values, t.score) for t in state.trials] == [(t.values, t.score) for t in whole.trials]
    statuses = [r.status for r in runs_of(elsewhere, kind="trial")]
    assert statuses.count("FINISHED") == 4 and set(statuses) == {"FINISHED", "KILLED"}


def kill_a_worker(config: Config, over: threading.Event) -> None:
    """Kills workers until one of them was in the middle of its trial: a dead one ends no run any more."""
    while not over.is_set():
        for found in runs_of(config, kind="trial"):
            if found.status == "RUNNING":
                worker = psutil.Process(json.loads(found.tags["fer.process"])["pid"])
                assert psutil.Process() in worker.parents()
                worker.kill()
                worker.wait()
                (then,) = [run for run in runs_of(config, kind="trial") if run.run_id == found.run_id]
                if then.status != "FINISHED":
                    return
        time.sleep(0.02)


def test_a_full_disk_stops_the_sweep_in_one_line_and_the_same_command_goes_on(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "6")  # a lost store sets it to 0 for the process
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system of 60 MB can be mounted here")
    try:
        config = compose(["sweep=quick", *SMALL, "sweep.max_trials=9", f"paths.mlruns={small / 'mlruns'}", paths[1]])
        said: list[str] = []

        def listen(line: str) -> None:
            said.append(line)
            if line.startswith("trial 1:"):  # another program takes what is left
                with (small / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
                    while True:
                        ballast.write(bytes(1024))

        with pytest.raises(UserError, match=rf"a disk is full: free space in {small}.* give the same command again"):
            run_sweep(config, listen)
        kept = [line for line in said if line.startswith("trial ")]
        assert 2 <= len(kept) < 9
        (small / "ballast").unlink()
        state, said = run(config)
        assert "going on after 1 trial" in " ".join(said)  # the state that names the next could not be written
        assert [t.status for t in state.trials] == ["finished"] * 9
        statuses = [r.status for r in runs_of(config)]
        assert statuses.count("FINISHED") == 10 and "RUNNING" not in statuses
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.parametrize(("number", "code", "compute"), [("SIGTERM", 143, "inline"), ("SIGINT", 130, "processes")])
def test_a_signal_kills_what_is_in_flight_and_the_same_command_goes_on(
    tmp_path: Path, number: str, code: int, compute: str
):
    command = ["sweep", "sweep=quick", *SMALL, f"compute={compute}"]
    command += ["training.epochs=20", "training.patience=20", f"paths.mlruns={tmp_path}/m", f"paths.cache={tmp_path}/c"]
    command += ["compute.workers=2"] if compute == "processes" else []
    trials = partial(find_runs, store_in(tmp_path / "m"), {"fer.kind": "trial"})
    while not any(r.status == "KILLED" for r in trials()):  # again where the signal came between two trials
        first = Command(*command, "sweep.max_trials=1000")  # which are no part of its identity
        next(line for line in first.stdout if line.startswith("trial "))
        while not any(r.status == "RUNNING" for r in trials()):
            time.sleep(0.05)
        os.kill(first.pid, getattr(signal, number))
        assert first.wait() == code
        assert {r.status for r in trials()} <= {"FINISHED", "KILLED"}
    state_file = next((tmp_path / "m" / "sweeps").glob("*/state.json"))
    kept = [t for t in json.loads(state_file.read_text())["trials"] if t["status"] == "finished"]
    assert kept
    count = len(kept) + 2
    done = fer(*command, f"sweep.max_trials={count}")
    assert done.returncode == 0, done.stderr
    assert f"going on after {len(kept)} trial" in done.stdout
    after = json.loads(state_file.read_text())["trials"]
    assert len(after) == count and all(after[t["number"]] == t for t in kept)
    statuses = [r.status for r in trials()]
    assert statuses.count("FINISHED") == count and len(statuses) == statuses.count("KILLED") + count


@pytest.mark.parametrize(("kind", "seed"), [(KeyboardInterrupt, 31), (SystemExit, 32)])
def test_a_sweep_that_is_stopped_while_its_run_is_described_has_one_run_with_all_that_describes_it(
    paths: list[str], monkeypatch: pytest.MonkeyPatch, kind: type[BaseException], seed: int
):
    config = quick(paths, "sweep.max_trials=1", f"sweep.seed={seed}")

    def stopped(*given: Any, **options: Any) -> None:
        raise kind

    with monkeypatch.context() as patch:
        patch.setattr(sweep_room, "describe_run", stopped)
        with pytest.raises(kind):
            run_sweep(config, lambda line: None)
    state, _ = run(config)
    (own,) = runs_of(config, kind="sweep", sweep_id=state.id)
    assert state.run_id == own.run_id and (own.status, state.status) == ("FINISHED", "finished")
    counts = tracking.artifact_text(store_in(mlruns_dir(config)), own.run_id, "data/counts.csv")
    assert counts is not None and "train" in counts
