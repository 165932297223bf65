"""Kills a sweep again and again, and checks that nothing was lost.

    python benchmarks/kill_sweep.py [--oracle random] [--trials 40] [--kills 100] [--seed 0] [--compute inline]
        [--repeats 1] [sweep.pruner=asha ...] [sweep.warm_start=known sweep.enqueue=known:2]

A sweep of short trials on demo faces runs once undisturbed, and then killed with SIGKILL at random instants, anew when
it ends, until that many have struck, its cache thrown away now and then so that extraction is hit too. After every
kill: each file can be read, and no trial that ended is gone. In the end: every trial ended, none has two finished
runs, no run is left RUNNING, and hyperparameters and scores are those of the undisturbed sweep, to the last bit. Where
an override names it, there is another sweep, `known`, beforehand.

Lives are forked from a process that has imported the libraries, which saves ten seconds each; every tenth is the
command itself. Where each kill struck is read off the stack that the process writes just before.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forked import Command, run

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "data.limit=60", "data.demo_size=600", "features.shard_size=16", "features.batch_size=16", "training.epochs=4",
    "training.deterministic=true", "tracking.system_metrics=false",
]  # fmt: skip


@dataclass
class Report:
    """What a harness found."""

    kills: int = 0
    phases: collections.Counter[str] = field(default_factory=collections.Counter)
    seconds: float = 0.0


def harness(folder: Path, overrides: list[str], trials: int, kills: int, seed: int, echo: Any = print) -> Report:
    """Runs both sweeps in `folder` and checks everything; raises AssertionError where something was lost."""
    report, chance = Report(), random.Random(seed)
    own = ["sweep.max_epochs=9"] if "sweep.oracle=hyperband" in overrides else []
    arguments = ["sweep", "sweep=quick", *SMALL, *own, f"sweep.max_trials={trials}", *overrides]
    run("--help")  # the libraries are imported
    known = _known(folder / "known") if any("=known" in override for override in overrides) else None
    started = time.monotonic()
    whole = place(folder / "whole", known)
    assert finish([*arguments, *whole], folder / "whole.log") == 0, (folder / "whole.log").read_text()[-2000:]
    expected = _trials(folder / "whole")
    each = statistics.mean(trial["seconds"] for trial in _state(folder / "whole")["trials"])
    until_first = max(1.0, time.monotonic() - started - each * len(expected))
    echo(f"undisturbed: {len(expected)} trials in {time.monotonic() - started:.0f} s")

    rounds = 0
    while report.kills < kills:  # one that ends before all the kills is followed by another
        rounds += 1
        killed = folder / f"killed{rounds}"
        where, before, ended = place(killed, known), {}, False
        while report.kills < kills and not ended:
            if report.kills % 5 == 4:
                shutil.rmtree(killed / "cache", ignore_errors=True)
            life = start([*arguments, *where], folder / "killed.log", real=report.kills % 10 == 9)
            # Behind schedule the lives are longer, ahead of it shorter, so that the sweep lasts as long as the kills.
            ahead = len(before) / len(expected) > 0.9 * report.kills / kills
            reach = 0.0 if ahead else (1 + 2 * len(expected) / kills) * each
            time.sleep(chance.uniform(0, until_first + reach + (0 if life.stack else 8)))
            ended = life.ended()
            if not ended:
                report.phases[life.kill()] += 1
                report.kills += 1
                before = _check_kept(killed, before)
                if report.kills % 10 == 0:
                    echo(f"{report.kills} kills, {len(before)} of {len(expected)} trials, {dict(report.phases)}")
        code = finish([*arguments, *where], folder / "killed.log")
        assert code == 0, (code, (folder / "killed.log").read_text()[-2000:])
        _check_kept(killed, before)
        assert _trials(killed) == expected, "another leaderboard"
        _check_runs(killed)
    report.seconds = time.monotonic() - started
    return report


@dataclass
class Life:
    """A process that runs the sweep. stack: where it writes what it is doing; of its command line there is none."""

    process: Command | subprocess.Popen[bytes]
    stack: Path | None

    def ended(self) -> bool:
        """Whether it is over, by itself."""
        return self.process.poll() is not None

    def kill(self) -> str:
        """Kills it, with what it has started, and says what it was doing."""
        if self.stack:
            os.kill(self.process.pid, signal.SIGUSR1)
            time.sleep(0.003)  # for the stack to be written
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if not self.stack:
            return "command"
        ours = [line for line in self.stack.read_text().splitlines() if "/fer_experiments/" in line]
        # The innermost of our modules that was at work; logging is tracking, a fit training.
        return Path(ours[0].split('"')[1]).stem if ours else "start"


def start(arguments: list[str], log: Path, *, real: bool = False) -> Life:
    """Starts `fer` with these arguments, forked or, if `real`, as a command; log: takes what it says."""
    if real:
        with log.open("ab") as out:
            command = [sys.executable, "-m", "fer_experiments.cli", *arguments]
            process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
        return Life(process, None)
    stack = log.with_suffix(".stack")
    stack.write_text("")
    return Life(Command(*arguments, log=log, stack=stack, alone=True), stack)  # or a kill would not reach its workers


def finish(arguments: list[str], log: Path) -> int:
    """Runs it to its end; the exit code."""
    return start(arguments, log).process.wait()


def place(folder: Path, known: Path | None = None) -> list[str]:
    """Overrides that keep everything in a new folder, with the record of a sweep in it."""
    folder.mkdir(parents=True)
    if known is not None:
        shutil.copytree(known, folder / "mlruns" / "sweeps" / known.name)
    return [f"paths.mlruns={folder / 'mlruns'}", f"paths.cache={folder / 'cache'}"]


def _known(folder: Path) -> Path:
    """The record of a sweep of twelve other trials, which it runs."""
    other = ["sweep", "sweep=quick", *SMALL, "sweep.name=known", "sweep.seed=7", "sweep.max_trials=12"]
    assert finish([*other, *place(folder)], folder / "known.log") == 0, (folder / "known.log").read_text()[-2000:]
    (record,) = (folder / "mlruns" / "sweeps").glob("known-*")
    return record


def _state(folder: Path) -> dict[str, Any]:
    files = list((folder / "mlruns" / "sweeps").glob("quick-*/state.json"))
    assert len(files) <= 1, "more than one sweep"
    return json.loads(files[0].read_text()) if files else {"trials": []}


def _trials(folder: Path) -> dict[int, Any]:
    """What the leaderboard shows of the trials that ended, by number."""
    return {
        trial["number"]: tuple(trial.get(key) for key in ("values", "raw", "score", "scores", "metrics", "status"))
        for trial in _state(folder)["trials"]
        if trial["status"] != "asked"
    }


def _check_kept(folder: Path, before: dict[int, Any]) -> dict[int, Any]:
    """All that ended before is there and unchanged, and every file can be read."""
    now = _trials(folder)
    assert all(now.get(number) == trial for number, trial in before.items()), "a finished trial is gone"
    for file in (folder / "cache").rglob("*.json"):
        json.loads(file.read_text())
    if (folder / "mlruns" / "mlflow.db").exists():
        assert query(folder, "PRAGMA quick_check") == [("ok",)], "the store is damaged"
    return now


def _check_runs(folder: Path) -> None:
    """One finished run a trial, the one that the state names, and none left RUNNING."""
    runs = query(folder, "SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'")
    number = dict(query(folder, "SELECT run_uuid, value FROM tags WHERE key = 'fer.trial_number'"))
    assert not [run for run, status in runs if status == "RUNNING"], "a run is left RUNNING"
    finished = {(int(number[run]), run) for run, status in runs if status in ("FINISHED", "FAILED") and run in number}
    expected = {(t["number"], t["run_id"]) for t in _state(folder)["trials"] if t["status"] != "repeated"}
    assert finished == expected, f"runs without a trial, or trials twice: {sorted(finished ^ expected)}"


def query(folder: Path, sql: str) -> list[Any]:
    """What the MLflow store in that folder answers."""
    with sqlite3.connect(f"file:{folder / 'mlruns' / 'mlflow.db'}?mode=rw", uri=True, timeout=60) as connection:
        return connection.execute(sql).fetchall()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", default="random")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compute", default="inline")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="of the sweep, such as sweep.pruner=asha")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-sweep-") as folder:
        overrides = [f"sweep.oracle={given.oracle}", f"compute={given.compute}", f"sweep.repeats={given.repeats}"]
        overrides += given.overrides
        report = harness(Path(folder), overrides, given.trials, given.kills, given.seed)
    print(
        f"{given.oracle}, {given.compute}: {report.kills} kills in {report.seconds:.0f} s, struck in "
        f"{dict(report.phases.most_common())}: nothing lost, no trial twice, no run left RUNNING, the same leaderboard"
    )


if __name__ == "__main__":
    main()
