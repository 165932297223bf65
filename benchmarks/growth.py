"""What a sweep costs by images, by trials and by workers: three lines of a table each, and a picture.

    FER2013=<zip> python benchmarks/growth.py [--trials 1000] [--json growth.json] [--png growth.png]

Images: sweeps of two trials of five epochs on the seven emotions, FaceNet's averaged map, from nothing: the pass
through the backbone, and the trials. Trials: those of `flat_cost.py`, linear heads on demo faces, in one sweep: the sum
of what so many of them took outside their fits. Workers: a sweep of eight trials on the features of the pocket
backbone, stored before, in worker processes of one thread each. Each is a sweep with its runs in a store of its own.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from flat_cost import measure
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from fer_experiments.config.compose import compose
from fer_experiments.environment import hardware
from fer_experiments.evaluation.style import BLUE, VERMILION, finish
from fer_experiments.files import write_json
from fer_experiments.search.sweep import run_sweep

VALIDATION = 3_287  # images, after cleaning
IMAGES, TRIALS, WORKERS = (1_000, 5_000, 25_000), (10, 100, 1_000), (1, 2)
SWEEP = ["sweep=quick", "data=fer2013_seven", "training.patience=100", "tracking.system_metrics=false"]


def by_images(folder: Path, images: int) -> dict[str, Any]:
    """A sweep on about so many images: what it read and forwarded, and the seconds of its parts."""
    lines: list[str] = []
    said = ["backbone=facenet", "backbone.pooling=avg", "features.precision=bfloat16", "training.epochs=5"]
    places = [f"paths.mlruns={folder / 'mlruns'}", f"paths.cache={folder / 'cache'}"]
    limit = max(images // 2, images - VALIDATION)  # of each split
    started = time.perf_counter()
    state = run_sweep(compose([*SWEEP, *said, f"data.limit={limit}", "sweep.max_trials=2", *places]), lines.append)
    whole = time.perf_counter() - started
    forwarded = next(line for line in lines if line.startswith("features:") and "images/s" in line)
    number, seconds = re.findall(r"features: ([\d,]+) images .* in ([\d,]+) s", forwarded)[0]
    return {
        "images": int(number.replace(",", "")),
        "features_s": float(seconds.replace(",", "")),
        "trials_s": sum(trial.seconds or 0 for trial in state.trials),
        "whole_s": whole,
    }


def by_workers(folder: Path, workers: int) -> dict[str, Any]:
    """A sweep of eight trials in so many worker processes: seconds from its first trial's start to its end."""
    said = [*SWEEP, "backbone=pocket", "compute=processes", f"compute.workers={workers}", "compute.cpus_per_trial=1"]
    said += [f"paths.mlruns={folder / f'workers{workers}'}", f"paths.cache={folder / 'cache'}"]
    run_sweep(compose([*said, "sweep.max_trials=1", "training.epochs=1"]), lambda line: None)  # all is there
    started = time.perf_counter()
    state = run_sweep(compose([*said, "sweep.max_trials=8", "training.epochs=20"]), lambda line: None)
    return {
        "workers": workers,
        "trials_s": sum(trial.seconds or 0 for trial in state.trials),
        "whole_s": time.perf_counter() - started,
    }


def by_trials(folder: Path, trials: int) -> list[dict[str, Any]]:
    """One sweep of so many trials: seconds outside their fits after 10, 100, ... of them."""
    outside = [wall for wall, _ in measure(folder, "random", trials)]
    return [{"trials": n, "outside_s": sum(outside[: n - 1])} for n in TRIALS if n <= trials]


def picture(found: dict[str, Any]) -> Figure:
    """Three panels, each with what cost in proportion would look like."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    for key, name, colour in (("features_s", "the pass through FaceNet", BLUE), ("trials_s", "two trials", VERMILION)):
        first.plot(
            [row["images"] for row in found["images"]], [row[key] for row in found["images"]], "o-", color=colour,
            label=name,
        )  # fmt: skip
    first.set(xlabel="images", ylabel="seconds", xscale="log", yscale="log")
    first.legend(fontsize=9)
    second.plot([row["trials"] for row in found["trials"]], [row["outside_s"] for row in found["trials"]], "o-")
    second.set(xlabel="trials", ylabel="seconds outside the fits", xscale="log", yscale="log")
    third.bar([str(row["workers"]) for row in found["workers"]], [row["whole_s"] for row in found["workers"]])
    third.set(xlabel="worker processes", ylabel="seconds of eight trials")
    for axis in (first.xaxis, first.yaxis, second.xaxis, second.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_formatter(NullFormatter())
    for axes in (first, second, third):
        finish(axes)
    machine = found["hardware"]
    figure.suptitle(f"What a sweep costs: {machine['cores']} cores, {machine['cpu']}", fontsize=11)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=max(TRIALS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {"hardware": {k: v for k, v in hardware().items() if k != "host"}}
    with tempfile.TemporaryDirectory(prefix="growth-") as temporary:
        folder = Path(temporary)
        found["images"] = [by_images(folder / str(images), images) for images in IMAGES]
        found["workers"] = [by_workers(folder, workers) for workers in WORKERS]
        found["trials"] = by_trials(folder / "trials", given.trials)
    for rows in (found["images"], found["trials"], found["workers"]):
        names = list(rows[0])
        print("\n".join(["", f"| {' | '.join(names)} |", "|" + " ---: |" * len(names)]))
        for row in rows:
            print("| " + " | ".join(f"{row[name]:,.0f}" for name in names) + " |")
    if given.json:
        write_json(given.json, found)
    if given.png:
        picture(found).savefig(given.png, dpi=120)


if __name__ == "__main__":
    main()
