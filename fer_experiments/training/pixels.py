"""Trains the pocket backbone from scratch; its state is on disk after each epoch, and the same call goes on from there.

Knows nothing of MLflow: `pretrain` is what records it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from fer_experiments import termination
from fer_experiments.backbones import pocket
from fer_experiments.config import PretrainConfig
from fer_experiments.config.marks import ASIDE
from fer_experiments.config.parts import marked
from fer_experiments.data import Dataset
from fer_experiments.errors import FitError
from fer_experiments.evaluation import metrics
from fer_experiments.training.augment import augment
from fer_experiments.training.result import TrainingResult

STATE = "state.npz"


@dataclass(frozen=True)
class PretrainResult(TrainingResult):
    """A finished training of the pocket network, plain and float32.

    history: train/ with dropout, on augmented images, smoothed labels; val/ of averaged weights, plain cross-entropy;
    learning_rate at the epoch's end. weights: of the best epoch by val/accuracy, float16, as `pocket.save` takes them.
    """

    weights: dict[str, np.ndarray]


def recipe(config: PretrainConfig) -> dict[str, Any]:
    """Return the fields that decide what is learned."""
    aside = marked("part", ASIDE)
    return {k: v for k, v in asdict(config).items() if f"pretrain.{k}" not in aside}


def pretrain(
    dataset: Dataset,
    config: PretrainConfig,
    *,
    checkpoint_dir: Path,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> PretrainResult:
    """Train the network on dataset.train, choose the epoch on dataset.val.

    checkpoint_dir: holds the state after each epoch, of this dataset and recipe alone; a call that finds one goes on
    from it, a finished one trains no more. on_epoch(epoch, row of the history) is called after each epoch.

    Raises:
        FitError: the loss is not a number; the state stays that of the epoch before.
    """
    keras.utils.set_random_seed(config.seed)
    batch_size = min(config.batch_size, len(dataset.train))
    model = _compiled(config, len(dataset.classes), len(dataset.train) // batch_size)
    progress = _Progress(model, dataset, config, checkpoint_dir / STATE, on_epoch)
    done = progress.restore()
    if done < config.epochs:
        model.fit(
            _batches(dataset, config, batch_size, range(done, config.epochs)),
            steps_per_epoch=len(dataset.train) // batch_size,
            initial_epoch=done,
            epochs=config.epochs,
            callbacks=[progress],
            shuffle=False,
            verbose=0,
        )
    history = pd.DataFrame(progress.history)
    best = pocket.with_weights(config.widths, config.blocks, progress.best)
    probabilities = predict(best, dataset.images[dataset.val])
    labels = dataset.labels[dataset.val]
    return PretrainResult(best, history, progress.best_epoch, probabilities, labels, progress.seconds, progress.best)


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the probabilities, float32 [n, classes], of uint8 images [n, 48, 48]."""
    logits = model.predict(_scaled(images), batch_size=256, verbose=0)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _scaled(images: np.ndarray) -> np.ndarray:
    """Return gray images as the network takes them, float32 [n, 48, 48, 1]."""
    scaling = pocket.SCALING
    return ((images.astype(np.float32) - scaling["mean"]) / scaling["scale"])[..., None]


def _compiled(config: PretrainConfig, classes: int, steps: int) -> keras.Model:
    """Return the network in its training form, with optimizer and loss."""
    model = pocket.build(
        config.widths, config.blocks, classes, dropout=config.dropout, training_form=True, dtype=config.precision
    )
    warmup = config.warmup_epochs * steps
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, config.epochs * steps - warmup), warmup_target=config.learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=config.weight_decay, use_ema=True, ema_momentum=config.ema
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gain"])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing)
    model.compile(optimizer, loss, metrics=["accuracy"])
    optimizer.build(model.trainable_variables)
    return model


def _batches(
    dataset: Dataset, config: PretrainConfig, batch_size: int, epochs: range
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield augmented images and one-hot labels; what an epoch sees depends on the seed and its number alone."""
    targets = np.eye(len(dataset.classes), dtype=np.float32)[dataset.labels]
    for epoch in epochs:
        rng = np.random.default_rng([config.seed, epoch])
        rows = rng.permutation(dataset.train)
        for start in range(0, len(rows) - batch_size + 1, batch_size):
            batch = rows[start : start + batch_size]
            yield _scaled(augment(dataset.images[batch], config, rng)), targets[batch]


class _Progress(keras.callbacks.Callback):
    """After each epoch: scores the averaged weights, keeps the best, and puts the whole state on disk."""

    def __init__(
        self,
        network: keras.Model,
        dataset: Dataset,
        config: PretrainConfig,
        path: Path,
        on_epoch: Callable[[int, dict[str, float]], None] | None,
    ) -> None:
        super().__init__()
        self.network, self.dataset, self.config, self.path, self.on_epoch = network, dataset, config, path, on_epoch
        self.history: list[dict[str, float]] = []
        self.best: dict[str, np.ndarray] = {}
        self.best_epoch = -1
        self.seconds = 0.0
        self.started = time.perf_counter()

    @property
    def variables(self) -> list[Any]:
        """All that training changes: weights, the state of dropout, moments, averages, the step."""
        return [v for layer in self.network.layers for v in layer.variables] + self.network.optimizer.variables

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Score, keep, save."""
        termination.check()
        logs = logs or {}
        weights = self.averaged()
        labels = self.dataset.labels[self.dataset.val]
        plain = pocket.with_weights(self.config.widths, self.config.blocks, weights)
        probabilities = predict(plain, self.dataset.images[self.dataset.val])
        scores = metrics.classification_metrics(labels, probabilities)
        row = {
            "train/loss": float(logs["loss"]),
            "train/accuracy": float(logs["accuracy"]),
            "val/loss": scores["loss"],
            "val/accuracy": scores["accuracy"],
            "learning_rate": float(keras.ops.convert_to_numpy(self.network.optimizer.learning_rate)),
        }
        if not np.isfinite([row["train/loss"], row["val/loss"]]).all():
            raise FitError(f"the loss is not a number in epoch {epoch + 1}: try a smaller pretrain.learning_rate")
        if all(row["val/accuracy"] > earlier["val/accuracy"] for earlier in self.history):
            self.best, self.best_epoch = weights, epoch
        self.history.append(row)
        now = time.perf_counter()
        self.seconds, self.started = self.seconds + now - self.started, now
        self.store()
        if self.on_epoch:
            self.on_epoch(epoch, row)

    def averaged(self) -> dict[str, np.ndarray]:
        """Return the averaged weights, folded, float16; training goes on from the others."""
        trained = self.network.get_weights()
        self.network.optimizer.finalize_variable_values(self.network.trainable_variables)
        weights = pocket.folded(self.network)
        self.network.set_weights(trained)
        return weights

    def store(self) -> None:
        """Replace the state on disk, whole or not at all."""
        values = {f"variable_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(self.variables)}
        facts = {"history": self.history, "best_epoch": self.best_epoch, "seconds": self.seconds}
        best = {f"best_{name}": value for name, value in self.best.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name("partial.npz")
        np.savez(partial, allow_pickle=False, facts=np.array(json.dumps(facts)), **best, **values)
        partial.replace(self.path)

    def restore(self) -> int:
        """Take up the state on disk, if there is one; return the number of finished epochs."""
        if not self.path.exists():
            return 0
        with np.load(self.path) as stored:
            for i, variable in enumerate(self.variables):
                variable.assign(stored[f"variable_{i}"])
            self.best = {name.removeprefix("best_"): stored[name] for name in stored.files if name.startswith("best_")}
            facts = json.loads(str(stored["facts"]))
        self.history, self.best_epoch, self.seconds = facts["history"], facts["best_epoch"], facts["seconds"]
        return len(self.history)
