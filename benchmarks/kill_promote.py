"""Kills `fer promote` with SIGKILL at random instants: the champion is the old one or the new one, and loads.

    python benchmarks/kill_promote.py [--kills 50] [--seed 0]

Of two runs on demo faces one is promoted, then each in turn, over and over. Half of the kills come at any
instant, half around the registration and the move of the aliases. After each: the database is whole; `champion` is the
version before or the one that was being promoted; it and `previous` load, and give on every test image what was
recorded when they were tested. At the end a promotion goes through, and no run is left RUNNING.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
from forked import Command, run

from fer_experiments.config.compose import compose
from fer_experiments.data import TestSplit, open_test_split
from fer_experiments.registry.sealed import recorded_probabilities
from fer_experiments.tracking import Store, find_runs, models

SMALL = ["data=demo", "data.demo_size=1500", "backbone=pocket", "head=linear", "tracking.system_metrics=false"]
LINES = ("features:", "taken:", "assembled:", "test split", "gate=", "registered as", "fer-demo version")
ENDED = "ended before the kill"


class Room:
    """A store with two runs that can be promoted."""

    def __init__(self, folder: Path) -> None:
        self.places = [f"paths.mlruns={folder / 'mlruns'}", f"paths.cache={folder / 'cache'}"]
        mlruns = folder / "mlruns"
        self.store = Store(f"sqlite:///{mlruns / 'mlflow.db'}", mlruns, "fer/demo")
        for rate in ("0.01", "0.003"):
            trained = run("train", *SMALL, "training.epochs=6", f"training.learning_rate={rate}", *self.places)
            assert trained.returncode == 0, trained.stderr
        self.runs = [found.run_id for found in find_runs(self.store, {"fer.kind": "train"})]
        self.duration, self.after = self.promote(self.runs[0])

    def promote(self, run: str) -> tuple[float, float]:
        """Promotes a run; returns the seconds until its last line, and how many of them after the registration."""
        started = registered = last = time.monotonic()
        promotion = self.start(run)
        for line in promotion.stdout:
            last = time.monotonic()
            if line.startswith("registered as"):
                registered = last
        assert promotion.wait() == 0
        return last - started, last - registered

    def command(self, run: str) -> list[str]:
        """Arguments that promote a run."""
        given = ["promote.seeds=1", "promote.corruptions=20", "gate=none", "tracking.system_metrics=false"]
        return ["promote", f"run={run}", *given, *self.places]

    def start(self, run: str) -> Command:
        """A promotion at work, in a session of its own."""
        return Command(*self.command(run))


def kill_one(room: Room, run: str, after: str, delay: float) -> str:
    """Starts a promotion, kills it `delay` seconds after its start or after a line; returns the last line it said."""
    process = room.start(run)
    last = "start"
    waiting = threading.Event()

    def listen() -> None:
        nonlocal last
        for line in process.stdout:
            last = next((known for known in LINES if line.startswith(known)), last)
            if after and line.startswith(after):
                waiting.set()
        waiting.set()  # it ended

    listener = threading.Thread(target=listen)
    listener.start()
    if after:
        waiting.wait()
    time.sleep(delay)
    alive = False
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it ended just now
            os.killpg(process.pid, signal.SIGKILL)
            alive = True
    process.wait()
    listener.join()
    return last if alive else ENDED


def check(room: Room, before: int) -> int:
    """Asserts what must hold after a kill; returns the champion's number."""
    database = room.store.uri.removeprefix("sqlite:///")
    assert sqlite3.connect(database).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    versions = models.versions(room.store, "fer-demo")
    champion = models.find_version(room.store, "fer-demo", "champion")
    assert champion is not None
    assert champion.number in (before, versions[0].number), (champion, before)
    for alias in ("champion", "previous"):
        version = models.find_version(room.store, "fer-demo", alias)
        if version is None:
            assert alias == "previous" and champion.number == 1  # nothing was before the first
            continue
        classifier = models.load_classifier(models.fetch_model(room.store, version, Path("/nonexistent")))
        recorded = recorded_probabilities(room.store, version.run_id, test_split(), by_id=False)
        assert recorded is not None
        np.testing.assert_allclose(classifier.probabilities(test_split().images), recorded, atol=1e-5)
    return champion.number


@cache
def test_split() -> TestSplit:
    """Of the demo faces that both runs were made of."""
    return open_test_split(compose(SMALL).data)


def harness(folder: Path, kills: int, seed: int) -> tuple[Counter[str], int]:
    """Kills promotions and checks after each; the last lines that they said, and how often the champion was the new."""
    draw = random.Random(seed)
    room = Room(folder)
    champion = check(room, 1)
    struck: Counter[str] = Counter()
    moved = 0
    measured = {"": room.duration, "registered as": room.after}
    reach = dict(measured)
    while (done := struck.total()) < kills:
        promoted, after = room.runs[(done + 1) % 2], "" if done % 2 else "registered as"
        delay = draw.uniform(0, reach[after])
        last = kill_one(room, promoted, after, delay)
        # What the machine did besides when it was measured must not decide how many come too late.
        reach[after] = delay if last == ENDED else min(2 * reach[after], measured[after])
        now = check(room, champion)
        if last != ENDED:
            struck[last] += 1
            moved += now != champion
        champion = now
        print(f"kill {struck.total()}: after '{last}', champion {champion}", flush=True)
    room.promote(room.runs[0])
    assert check(room, champion) != champion
    assert not find_runs(room.store, status="RUNNING")
    return struck, moved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory(prefix="kill-promote-") as temporary:
        struck, moved = harness(Path(temporary), given.kills, given.seed)
    where = ", ".join(f"{name} {count}" for name, count in struck.most_common())
    print(
        f"{given.kills} kills ({where}): the champion was the old one {given.kills - moved} times, the new one {moved} "
        "times, loadable and right each time"
    )


if __name__ == "__main__":
    main()
