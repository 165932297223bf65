"""Stops sweeps by SIGTERM and Ctrl-C at random instants, and times how long they take to end.

    python benchmarks/stop_sweep.py [--rounds 5] [--compute inline processes ray] [--within 8] [--seed 0]

Each sweep is a process of its own, in trials that would last for hours, on demo faces. The signal comes up to `within`
seconds after the sweep said that it began. Checked each time: the exit code is 143 or 130, no run is left RUNNING, and
no process is left. The seconds are those until the process is gone.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from fer_experiments.tracking import Store, find_runs

ROOT = Path(__file__).resolve().parents[1]
ENDLESS = [
    "sweep=quick", "data.limit=60", "data.demo_size=600", "training.epochs=1000000", "training.patience=1000000",
]  # fmt: skip
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


def stop(folder: Path, compute: str, number: signal.Signals, after: float) -> float:
    """Seconds from the signal to the end of a sweep that gets it so long after it began."""
    command = [sys.executable, "-m", "fer_experiments.cli", "sweep", *ENDLESS, f"compute={compute}"]
    command += ["compute.workers=2"] if compute != "inline" else []
    command += [f"paths.mlruns={folder / 'mlruns'}", f"paths.cache={folder / 'cache'}"]
    with (folder / "errors").open("w") as errors:
        sweep = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert sweep.stdout is not None
    for line in sweep.stdout:
        if line.startswith("sweep "):
            break
    time.sleep(after)
    family = psutil.Process(sweep.pid).children(recursive=True)
    sent = time.monotonic()
    os.kill(sweep.pid, number)
    sweep.wait()
    seconds = time.monotonic() - sent
    assert sweep.returncode == CODES[number], (sweep.returncode, (folder / "errors").read_text()[-2000:])
    runs = find_runs(Store(f"sqlite:///{folder}/mlruns/mlflow.db", folder / "mlruns", "fer/demo"))
    assert {run.status for run in runs} <= {"KILLED", "FINISHED"}, [run.status for run in runs]
    _, alive = psutil.wait_procs(family, 60)
    assert not alive, alive
    return seconds


def main() -> None:
    """Prints a line a row: executor, signal, median and largest seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compute", nargs="+", default=["inline", "processes", "ray"])
    parser.add_argument("--within", type=float, default=8.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it, and so would children
    for compute in options.compute:
        for number in CODES:
            took = []
            for _ in range(options.rounds):
                with tempfile.TemporaryDirectory(prefix="fer-stop-") as folder:
                    took.append(stop(Path(folder), compute, number, chance.uniform(0, options.within)))
            print(
                f"{compute:10} {number.name:8} {len(took)} times: median {statistics.median(took):.1f} s, "
                f"largest {max(took):.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
