"""Kills a fine-tuning at random instants, and checks that it ends as one that nobody disturbed.

    python benchmarks/kill_finetune.py [--kills 10] [--seed 0] [training.from_features=true ...]

`fer train training=finetune` of the pocket backbone on demo faces, training.deterministic on, runs once undisturbed,
and then killed with SIGKILL at instants spread over its length, the same command each time, anew when it ends, until
that many have struck. After every kill the store is whole, and the state on disk can be read and is not behind the one
before. In the end: one run finished, none left RUNNING, its curves and scores those of the undisturbed one, and so are
weights, moments and averages, all to the last bit.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from forked import run
from kill_sweep import finish, place, query, start

SMALL = [
    "train", "data=demo", "data.demo_size=900", "backbone=pocket", "head=linear", "head.dropout=0.3",
    "training=finetune", "training.epochs=3", "training.deterministic=true", "training.finetune.epochs=8",
    "features.views=[original,flip]", "features.shard_size=64", "tracking.system_metrics=false",
]  # fmt: skip


def harness(folder: Path, overrides: list[str], kills: int, seed: int) -> collections.Counter[str]:
    """Runs both in `folder` and checks everything; where each kill struck."""
    phases, chance = collections.Counter[str](), random.Random(seed)
    arguments = [*SMALL, *overrides]
    run("--help")  # the libraries are imported
    started = time.monotonic()
    whole = place(folder / "whole")
    assert finish([*arguments, *whole], folder / "whole.log") == 0, (folder / "whole.log").read_text()[-2000:]
    length, expected, state = time.monotonic() - started, _recorded(folder / "whole"), _state(folder / "whole")
    print(f"undisturbed: {length:.0f} s, {len(_epochs(state))} epochs", flush=True)

    rounds, struck = 0, 0
    while struck < kills:
        rounds += 1
        killed = folder / f"killed{rounds}"
        where, epochs, ended = place(killed), 0, False
        while struck < kills and not ended:
            life = start([*arguments, *where], folder / "killed.log")
            time.sleep(chance.uniform(0, length))
            ended = life.ended()
            if not ended:
                phases[life.kill()] += 1
                struck += 1
                epochs = _check_kept(killed, epochs)
                print(f"{struck} kills, {epochs} epochs on disk, {dict(phases)}", flush=True)
        code = life.process.wait() if ended else finish([*arguments, *where], folder / "killed.log")
        assert code == 0, (code, (folder / "killed.log").read_text()[-2000:])
        assert _recorded(killed) == expected, "another result"
        ours = _state(killed)
        assert ours.keys() == state.keys(), "another state"
        for name, value in state.items():
            if name == "facts":
                assert _epochs(ours) == _epochs(state), "another history"
            else:
                np.testing.assert_array_equal(ours[name], value, err_msg=name)
    return phases


def _recorded(folder: Path) -> dict[Any, float]:
    """Metrics of the one finished run by name and step, but for times; no run is left RUNNING."""
    runs = query(folder, "SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'")
    assert not [run for run, status in runs if status == "RUNNING"], "a run is left RUNNING"
    (finished,) = (run for run, status in runs if status == "FINISHED")
    rows = query(folder, f"SELECT key, step, value FROM metrics WHERE run_uuid = '{finished}'")
    return {(key, step): value for key, step, value in rows if not key.startswith(("time/", "system/", "features/"))}


def _state(folder: Path) -> dict[str, np.ndarray]:
    """What is on disk of the second stage; nothing before its first epoch has ended."""
    files = list((folder / "cache" / "finetune").glob("*/state.npz"))
    assert len(files) <= 1, "more than one state"
    if not files:
        return {}
    with np.load(files[0]) as stored:
        return {name: stored[name] for name in stored.files}


def _epochs(state: dict[str, np.ndarray]) -> list[dict[str, float]]:
    history: list[dict[str, float]] = json.loads(str(state["facts"]))["history"] if state else []
    return history


def _check_kept(folder: Path, epochs: int) -> int:
    """No epoch is gone, every file can be read, and the store is whole; how many epochs are there."""
    now = len(_epochs(_state(folder)))
    assert now >= epochs, "an epoch is gone"
    for file in (folder / "cache").rglob("*.json"):
        json.loads(file.read_text())
    if (folder / "mlruns" / "mlflow.db").exists():
        assert query(folder, "PRAGMA quick_check") == [("ok",)], "the store is damaged"
    return now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", help="of the training")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-finetune-") as folder:
        phases = harness(Path(folder), given.overrides, given.kills, given.seed)
    print(f"{sum(phases.values())} kills, struck in {dict(phases.most_common())}: the same to the last bit")


if __name__ == "__main__":
    main()
