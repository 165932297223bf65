"""Seconds that a command takes to start: to its help, to a mistake that it names, to a first fit, to a label.

    [FER2013=<zip>] python benchmarks/bench_start.py [--rounds 3] [--json out.json]

Each is a process of its own; wall clock and CPU time (all its processes'), medians of the rounds. "to its first fit"
is a sweep on features that are stored, until the run of its first trial begins; of FER2013 where it is at hand, and of
demo faces.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fer_experiments.environment import hardware

FER = Path(sys.executable).with_name("fer")
SMALL = ["sweep=quick", "sweep.max_trials=1", "training.epochs=2", "tracking.system_metrics=false"]


def timed(words: Sequence[str], code: int = 0) -> tuple[float, float]:
    """Wall-clock seconds of a command, and its seconds of CPU."""
    before, started = os.times(), time.perf_counter()
    done = subprocess.run([FER, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wall, after = time.perf_counter() - started, os.times()
    if done.returncode != code:
        sys.exit(f"fer {' '.join(words)}: exit code {done.returncode}\n{done.stdout}")
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def first_fit(words: Sequence[str], mlruns: Path) -> tuple[float, float]:
    """Seconds from a sweep's command to the run of its first trial, and of CPU for the whole of its one trial."""
    from mlflow import MlflowClient

    began = time.time()
    _, cpu = timed(["sweep", *SMALL, "sweep.fresh=true", *words])
    client = MlflowClient(f"sqlite:///{mlruns / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`fer.kind` = 'trial'", order_by=["attributes.start_time DESC"])
    return runs[0].info.start_time / 1000 - began, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-start-") as temporary:
        folder = Path(temporary)
        places = [f"paths.mlruns={folder / 'mlruns'}", f"paths.cache={folder / 'cache'}"]
        timed(["sweep", *SMALL, *places])
        timed(["promote", "sweep=quick", "gate=none", "promote.seeds=1", "promote.top_k=1", *places])
        real = ["data=fer2013", *places] if os.environ.get("FER2013") else []
        if real:
            timed(["sweep", *SMALL, *real])
        face = folder / "face.png"
        from PIL import Image

        from fer_experiments.data.demo import draw_faces

        Image.fromarray(draw_faces(1, 0).images[0]).save(face)
        predict = ["predict", str(face), "data=demo", *places]
        for _ in range(given.rounds):
            found.setdefault("fer --help", []).append(timed(["--help"]))
            found.setdefault("a mistake in an override", []).append(timed(["train", "head.l2=much"], code=2))
            found.setdefault("fer sweep, to its first fit", []).append(first_fit(places, folder / "mlruns"))
            if real:
                name = "fer sweep of FER2013, to its first fit"
                found.setdefault(name, []).append(first_fit(real, folder / "mlruns"))
            shutil.rmtree(folder / "cache" / "models", ignore_errors=True)
            found.setdefault("fer predict, first of a version", []).append(timed(predict))
            found.setdefault("fer predict", []).append(timed(predict))
    machine = {key: value for key, value in hardware().items() if key != "host"}
    print(f"{machine['cores']} cores, {machine['cpu']}; load {os.getloadavg()[0]:.1f}")
    medians = {
        name: [statistics.median(column) for column in zip(*times, strict=True)] for name, times in found.items()
    }
    for name, (wall, cpu) in medians.items():
        print(f"{name:38} {wall:6.2f} s   {cpu:6.2f} s of CPU")
    if given.json:
        rows = {name: {"wall_s": wall, "cpu_s": cpu} for name, (wall, cpu) in medians.items()}
        given.json.write_text(json.dumps({"hardware": machine, "seconds": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
