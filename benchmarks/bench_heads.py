"""Images a second of a head's fit, beside Keras' own `fit` in float32 on the same arrays in memory, in turns.

    python benchmarks/bench_heads.py [--rounds 3] [--rows 6000] [--only pooled] [--json out.json]

Random features, validation included, epochs after the first: what compiling costs is the last columns' matter.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fer_experiments.config import HeadConfig, TrainingConfig
from fer_experiments.config.compose import compose
from fer_experiments.data import Dataset
from fer_experiments.environment import hardware
from fer_experiments.training.fit import fit_head
from fer_experiments.training.heads import build_head

EPOCHS = 4
CASES = {
    "pooled, batch 32": ("pooled", (1536,), 32, "float32"),
    "pooled, batch 128": ("pooled", (1536,), 128, "float32"),
    "paper": ("paper", (3, 3, 1536), 128, "float32"),
    "paper, bfloat16": ("paper", (3, 3, 1536), 128, "mixed_bfloat16"),
    "conv on 8x8": ("conv", (8, 8, 896), 128, "float32"),
    "conv on 8x8, bfloat16": ("conv", (8, 8, 896), 128, "mixed_bfloat16"),
}


class Features:
    """Random ones in memory."""

    views = ("original",)

    def __init__(self, rows: int, shape: tuple[int, ...]) -> None:
        self.shapes = (shape,)
        self.array = np.random.default_rng(0).normal(size=(rows, *shape)).astype("float16")

    def take(self, rows: np.ndarray, view: str = "original") -> list[np.ndarray]:
        """Of these rows."""
        return [self.array[rows]]


class Clock(keras.callbacks.Callback):
    """The times at which epochs end."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks."""
        self.ends.append(time.perf_counter())


def dataset(rows: int) -> Dataset:
    """Labels for them; a sixth is for validation."""
    labels = np.random.default_rng(1).integers(0, 2, rows)
    places = np.arange(rows)
    return Dataset(
        **dict.fromkeys(Dataset.__dataclass_fields__)  # type: ignore[arg-type]
        | {"labels": labels, "classes": ("a", "b"), "train": places[rows // 6 :], "val": places[: rows // 6]}
    )


def plain(features: Features, data: Dataset, head: HeadConfig, training: TrainingConfig, clock: Clock) -> None:
    """Keras' fit, as it is usually written."""
    model = build_head(head, features.shapes, 2)
    model.compile(keras.optimizers.Adam(training.learning_rate), "binary_crossentropy", metrics=["accuracy"])
    x, y = features.array, data.labels.astype("float32").reshape(-1, 1)
    model.fit(
        x[data.train], y[data.train], batch_size=training.batch_size, epochs=EPOCHS, verbose=0, callbacks=[clock],
        validation_data=(x[data.val], y[data.val]), validation_batch_size=512,
    )  # fmt: skip


def ours(features: Features, data: Dataset, head: HeadConfig, training: TrainingConfig, clock: Clock) -> None:
    """The package's."""
    fit_head(features, data, head, training, callbacks=[clock])


def measured(fit: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    """Images a second after the first epoch, and the seconds of building and the first epoch beyond another's."""
    clock, begun = Clock(), time.perf_counter()
    fit(*arguments, clock)
    each = (clock.ends[-1] - clock.ends[0]) / (EPOCHS - 1)
    return len(arguments[1].train) / each, clock.ends[0] - begun - each


def main() -> None:
    """Prints a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{keras.config.backend()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.rounds} rounds")
    cases: dict[str, dict[str, float]] = {}
    print(f"{'head':24}{'Keras /s':>10}{'ours /s':>10}{'times':>7}{'first, s':>10}{'ours':>7}")
    for name, (head_name, shape, batch, precision) in CASES.items():
        if options.only not in name:
            continue
        head = replace(compose([f"head={head_name}"]).head, normalize=False)
        training = TrainingConfig(epochs=EPOCHS, batch_size=batch, precision=precision, patience=EPOCHS)
        rows = options.rows if len(shape) == 1 else options.rows // 2
        given = Features(rows, shape), dataset(rows), head, training
        rounds = np.array([[measured(fit, *given) for fit in (plain, ours)] for _ in range(options.rounds)])
        (theirs, first), (us, second) = np.median(rounds, axis=0)
        print(f"{name:24}{theirs:10,.0f}{us:10,.0f}{us / theirs:7.1f}{first:10.2f}{second:7.2f}", flush=True)
        cases[name] = {"keras": theirs, "ours": us, "first_keras_s": first, "first_ours_s": second}
    if options.json:
        machine = {key: value for key, value in hardware().items() if key != "host"}
        found = {
            "hardware": machine,
            "backend": keras.config.backend(),
            "rounds": options.rounds,
            "images_per_s": cases,
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
