"""What an image takes a model of one head, and one that averages several on the same backbone, in turns.

    python benchmarks/ensemble_latency.py [--heads 5] [--repeats 100] [--json out.json] [backbone=facenet head=conv ...]

The models are written and loaded as a promotion does it (`promote.ensemble=none` and `seeds`), with heads of random
weights, which do not change the speed; `fer predict` and `fer serve` ask them by the engine that is named.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from fer_experiments.backbones.networks import load_backbone
from fer_experiments.config import Config
from fer_experiments.config.compose import compose
from fer_experiments.environment import hardware
from fer_experiments.serving.fast import answering
from fer_experiments.tracking import models
from fer_experiments.training.heads import build_head
from fer_experiments.training.whole import assemble

WARM_UP = 5
SIZE = (48, 48)
AT_ONCE = (1, 64)  # images a call
CLASSES = ["happy", "other"]
Call = Callable[[np.ndarray], np.ndarray]


def registered(config: Config, count: int, folder: Path) -> dict[str, Call]:
    """By engine, what asks a model with so many heads."""
    shapes = [tuple(output.shape[1:]) for output in load_backbone(config.backbone, (*SIZE, 1)).model.outputs]
    moments = [(np.zeros(shape[-1], "float32"), np.ones(shape[-1], "float32")) for shape in shapes]
    heads = [build_head(config.head, shapes, len(CLASSES), moments=moments) for _ in range(count)]
    network = assemble(config.backbone, SIZE, heads, config.features.views, len(CLASSES), 1.1)
    models.save_classifier(network, CLASSES, folder)
    classifier = models.load_classifier(folder)
    fast = answering(classifier)
    return {"keras": classifier.probabilities, fast.engine: fast.probabilities}


def measure(asked: dict[tuple[int, str], Call], repeats: int) -> dict[tuple[int, str, int], list[float]]:
    """Milliseconds an image of each call, by heads, engine and images a call; they take turns."""
    pixels = np.random.default_rng(0).integers(0, 256, (max(AT_ONCE), *SIZE), dtype=np.uint8)
    taken: dict[tuple[int, str, int], list[float]] = {(*key, size): [] for size in AT_ONCE for key in asked}
    for size in AT_ONCE:
        for number in range(WARM_UP + repeats):
            for key, call in asked.items():
                started = time.perf_counter()
                call(pixels[:size])
                if number >= WARM_UP:
                    taken[*key, size].append(1000 * (time.perf_counter() - started) / size)
    return taken


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*", default=["backbone=facenet", "head=conv"])
    options = parser.parse_args()
    config = compose(options.overrides)
    with tempfile.TemporaryDirectory() as folder:
        asked = {
            (count, engine): call
            for count in (1, options.heads)
            for engine, call in registered(config, count, Path(folder) / str(count)).items()
        }
        taken = measure(asked, options.repeats)
    print(
        f"{config.backbone.name} {config.head.name}, milliseconds an image, {options.repeats} calls, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'heads':>5}  {'engine':10}{'images a call':>14}{'median':>9}{'p95':>9}{'over one head':>15}")
    rows = []
    for (count, engine, size), values in taken.items():
        median, late = np.percentile(values, [50, 95])
        ratio = median / np.median(taken[1, engine, size])
        print(f"{count:5}  {engine:10}{size:14}{median:9.2f}{late:9.2f}{ratio:14.2f}x")
        rows.append({"heads": count, "engine": engine, "images": size, "median_ms": median, "p95_ms": late})
    if options.json:
        machine = {key: value for key, value in hardware().items() if key != "host"}
        options.json.write_text(json.dumps({"hardware": machine, "latency": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
