"""The pocket backbone, trained from scratch on pixels: its network, and what is kept of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from fer_experiments.backbones import pocket
from fer_experiments.config import PretrainConfig
from fer_experiments.config.marks import ASIDE
from fer_experiments.config.parts import YOUNGER, marked
from fer_experiments.data import Dataset
from fer_experiments.training.pixels import Network, OnEpoch, compile_for, train_on_pixels
from fer_experiments.training.result import TrainingResult


@dataclass(frozen=True)
class PretrainResult(TrainingResult):
    """A finished training of the pocket network, plain and float32; history as `train_on_pixels` has it.

    weights: of the best epoch by val/accuracy, float16, as `pocket.save` takes them.
    """

    weights: dict[str, np.ndarray]


def recipe(config: PretrainConfig) -> dict[str, Any]:
    """Return the fields that decide what is learned; those that came later only where they decide something."""
    aside, fields = marked("part", ASIDE), {f"pretrain.{key}": value for key, value in asdict(config).items()}
    kept = {path: value for path, value in fields.items() if path not in aside and YOUNGER.get(path, ...) != value}
    return {path.removeprefix("pretrain."): value for path, value in kept.items()}


def pretrain(
    dataset: Dataset, config: PretrainConfig, *, checkpoint_dir: Path, on_epoch: OnEpoch | None = None
) -> PretrainResult:
    """Train the network on dataset.train, choose the epoch on dataset.val.

    checkpoint_dir, on_epoch: see `train_on_pixels`, which raises what this raises.
    """
    keras.utils.set_random_seed(config.seed)
    model = pocket.build(
        config.widths,
        config.blocks,
        len(dataset.classes),
        dropout=config.dropout,
        training_form=True,
        dtype=config.precision,
    )
    compile_for(model, config, logits=True)

    def score(weights: dict[str, np.ndarray]) -> np.ndarray:
        return predict(pocket.with_weights(config.widths, config.blocks, weights), dataset.images[dataset.val])

    network = Network(model, _scaled, lambda: pocket.folded(model), score, "pretrain.learning_rate")
    done = train_on_pixels(network, dataset, config, checkpoint_dir, seed=config.seed, on_epoch=on_epoch)
    best = pocket.with_weights(config.widths, config.blocks, done.best)
    history = pd.DataFrame(done.history)
    labels = dataset.labels[dataset.val]
    return PretrainResult(best, history, done.best_epoch, score(done.best), labels, done.seconds, done.best)


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the probabilities, float32 [n, classes], of uint8 images [n, 48, 48]."""
    logits = model.predict(_scaled(images), batch_size=256, verbose=0)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _scaled(images: np.ndarray) -> np.ndarray:
    """Return gray images as the network takes them, float32 [n, 48, 48, 1]."""
    scaling = pocket.SCALING
    return ((images.astype(np.float32) - scaling["mean"]) / scaling["scale"])[..., None]
