"""Images a second of fine-tuning a whole network on pixels, beside Keras' own steps, in turns.

    python benchmarks/bench_pixels.py [--rounds 3] [--steps 5] [--json out.json] [overrides]

Random images; FaceNet at 96x96 under a linear head, batches of 128, AdamW with averaged weights, normalisations as they
are. Steps alone: drawing batches goes on beside them in a thread of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fer_experiments.backbones.networks import load_backbone
from fer_experiments.config.compose import compose
from fer_experiments.environment import hardware
from fer_experiments.training import backends
from fer_experiments.training.finetuning import unfreeze
from fer_experiments.training.heads import build_head
from fer_experiments.training.pixels import compile_for
from fer_experiments.training.whole import joined

GIVEN = [
    *["backbone=facenet", "backbone.input_size=96", "backbone.layers=[Block8_6_add]", "backbone.pooling=avg"],
    *["head=linear", "head.normalize=false", "training=finetune"],
    *["training.finetune.ema=0.998", "training.finetune.batch_size=128"],
]
CASES = [(whose, precision) for precision in ("float32", "mixed_bfloat16") for whose in ("Keras", "ours")]


@dataclass
class Case:
    """A network that is trained. spread: in which its steps are taken."""

    model: keras.Model
    spread: Callable[[], AbstractContextManager[Any]]

    def rate(self, images: np.ndarray, labels: np.ndarray, steps: int) -> float:
        """Images a second."""
        with self.spread():
            begun = time.perf_counter()
            for _ in range(steps):
                self.model.train_on_batch(images, labels)
            return steps * len(images) / (time.perf_counter() - begun)


def case(whose: str, precision: str, overrides: list[str]) -> Case:
    """A fresh network in that precision, as `fer train` compiles it, or with Keras' own optimizer."""
    config = compose([*GIVEN, *overrides])
    how = config.training.finetune
    assert how is not None
    backbone = load_backbone(config.backbone, (48, 48, 1), precision)
    unfreeze(backbone.trunk, config.training)
    shapes = [tuple(output.shape[1:]) for output in backbone.model.outputs]
    model = joined(backbone.model, [build_head(config.head, shapes, 7, precision=precision)], (48, 48), ["original"])
    compile_for(model, how)
    if whose == "Keras":
        options = {"weight_decay": how.weight_decay, "global_clipnorm": how.clip_norm}
        optimizer = keras.optimizers.AdamW(how.learning_rate, use_ema=True, ema_momentum=how.ema, **options)
        model.compile(optimizer, model.loss, metrics=["accuracy"])
        return Case(model, nullcontext)
    return Case(model, lambda: backends.of_keras().spread(model, how.batch_size))


def main() -> None:
    """Prints a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    print(f"{keras.config.backend()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.rounds} rounds")
    config = compose([*GIVEN, *options.overrides])
    assert config.training.finetune is not None
    size = config.training.finetune.batch_size
    images = np.random.default_rng(0).integers(0, 256, (size, 48, 48)).astype("uint8")
    labels = np.eye(7, dtype="float32")[np.arange(size) % 7]
    cases = {", ".join(which): case(*which, options.overrides) for which in CASES}
    for each in cases.values():
        each.rate(images, labels, 2)  # what is traced
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(options.rounds):
        for name, each in cases.items():
            rates[name].append(each.rate(images, labels, options.steps))
    keras_rate = np.median(rates["Keras, float32"])
    for name, found in rates.items():
        median, span = np.median(found), f"({min(found):.1f} to {max(found):.1f})"
        print(f"{name:24}{median:8.1f} images/s {span:18}{median / keras_rate:6.2f}x")
    if options.json:
        machine = {key: value for key, value in hardware().items() if key != "host"}
        result = {"hardware": machine, "backend": keras.config.backend(), "images_per_s": rates}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
