"""Fits a head on stored features."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from fer_experiments import termination
from fer_experiments.config import HeadConfig, TrainingConfig
from fer_experiments.data import Dataset
from fer_experiments.errors import FitError, UserError
from fer_experiments.training.heads import Moments, build_head
from fer_experiments.training.optimizer import build_optimizer
from fer_experiments.training.passes import Passes
from fer_experiments.training.precision import decisions
from fer_experiments.training.result import TrainingResult
from fer_experiments.training.rows import Features, load


def fit_head(
    features: Features,
    dataset: Dataset,
    head: HeadConfig,
    training: TrainingConfig,
    *,
    moments: Sequence[Moments] | None = None,
    initial_epoch: int = 0,
    initial_weights: Sequence[np.ndarray] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, row: None,
    description: str = "fit",
) -> TrainingResult:
    """Fits a head with early stopping, and scores it on the validation split, averaged over the stored views.

    Without validation rows it has all its epochs, the last is the best, and there is no score. The losses of the
    history include the L2 penalty, as minimised; those on validation images are of labels that are not smoothed.

    Args:
        features: of dataset.images, row by row.
        dataset: labels, and the rows of the training and validation splits.
        head: what is fitted.
        training: how. `deterministic` makes every operation of this process deterministic.
        moments: `feature_moments` of the training split, when a head that normalises shares them with others.
        initial_epoch: where to go on, of training.epochs (Hyperband's later rounds).
        initial_weights: as `get_weights` gives them, to start from.
        callbacks: of Keras, besides its own; they may end the fit. Among an epoch's logs are val_probabilities, of
            the validation images as they are, float32 [rows, classes].
        on_epoch: hears of each epoch, from 0, and its row of the history.
        description: of the progress bar.

    Raises:
        FitError: the loss is not a number. UserError: a dataset of several folds.
    """
    if dataset.folds:
        raise UserError("data.fold=all: a fit is of one fold; give it each of dataset.parts()")
    training = decisions(training, head)[0]
    make_reproducible(training)
    classes = len(dataset.classes)
    if head.normalize and moments is None:
        moments = feature_moments(features, dataset.train)
    model = build_head(head, features.shapes, classes, moments=moments, precision=training.precision)
    labels, loss = _targets(dataset.labels, classes, training.label_smoothing)
    model.compile(optimizer=build_optimizer(training.optimizer, training.learning_rate), loss=loss)
    if initial_weights is not None:
        model.set_weights(initial_weights)
    weights = np.array([(dataset.class_weight or {}).get(i, 1.0) for i in range(classes)], "float32")[dataset.labels]
    passes = Passes(model)
    train = load(features, dataset.train, passes.backend)
    val = load(features, dataset.val, passes.backend) if len(dataset.val) else None
    progress = EpochProgress(training.epochs - initial_epoch, description)
    stopping = [] if val is None else [_early_stopping(training)]
    ending = keras.callbacks.CallbackList(
        [keras.callbacks.TerminateOnNaN(), *stopping, progress, *callbacks], model=model, epochs=training.epochs
    )
    started = time.perf_counter()
    ending.on_train_begin()
    order = orders(len(train), len(features.views), training.seed)
    shares = np.random.default_rng([training.seed, 1])
    for epoch in range(initial_epoch, training.epochs):
        ending.on_epoch_begin(epoch)
        logs: dict[str, Any] = {"loss": math.nan, "accuracy": math.nan}
        others = [labels[dataset.train], weights[dataset.train]]
        if training.mixup:
            others.append(_shares(training.mixup, len(train), shares))
        with closing(passes.train(train, others, next(order), training.batch_size)) as calls:
            for number, logs in enumerate(calls):
                ending.on_train_batch_end(number, logs)
                if model.stop_training:
                    break
        if val is not None:
            outputs = passes.predict(val)
            logs |= passes.evaluate(outputs, labels[dataset.val])
            logs["val_probabilities"] = _probabilities([outputs])
        ending.on_epoch_end(epoch, logs)
        on_epoch(epoch, progress.rows[-1])
        if model.stop_training:
            break
    ending.on_train_end()
    history = pd.DataFrame(progress.rows)
    if history.empty or not np.isfinite(history.filter(like="/loss").to_numpy()).all():
        raise FitError(f"the loss is not a number after {len(history)} epochs: try a smaller training.learning_rate")
    history.index = pd.RangeIndex(initial_epoch, initial_epoch + len(history), name="epoch")
    said = [passes.predict(val, view) for view in features.views] if val else [np.zeros((0, classes), "float32")]
    return TrainingResult(
        model=model,
        history=history,
        best_epoch=_best_epoch(history, training.monitor),
        val_probabilities=_probabilities(said),
        val_labels=dataset.labels[dataset.val],
        seconds=time.perf_counter() - started,
    )


def _targets(labels: np.ndarray, classes: int, smoothing: float) -> tuple[np.ndarray, keras.losses.Loss]:
    """Labels, and the loss that takes them so."""
    if classes == 2:
        return labels.astype("float32").reshape(-1, 1), keras.losses.BinaryCrossentropy(label_smoothing=smoothing)
    if smoothing == 0:
        return labels.astype("int32"), keras.losses.SparseCategoricalCrossentropy()
    targets = np.eye(classes, dtype="float32")[labels]
    return targets, keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)


def _shares(alpha: float, rows: int, random: np.random.Generator) -> np.ndarray:
    """What each row keeps of itself in an epoch, float32: half of it at the least, so that it keeps its label."""
    share = random.beta(alpha, alpha, rows)
    return np.maximum(share, 1 - share).astype("float32")


def _early_stopping(training: TrainingConfig) -> keras.callbacks.EarlyStopping:
    mode = "min" if training.monitor == "val_loss" else "max"
    return keras.callbacks.EarlyStopping(
        training.monitor, mode=mode, patience=training.patience, restore_best_weights=True
    )


def _best_epoch(history: pd.DataFrame, monitor: str) -> int:
    """Whose weights the model has; the last one where nothing was monitored."""
    epochs, name = history.index.to_numpy(), monitor.replace("val_", "val/")
    if name not in history:
        return int(epochs[-1])
    series = history[name].to_numpy()
    return int(epochs[series.argmin() if monitor == "val_loss" else series.argmax()])


def orders(rows: int, views: int, seed: int) -> Iterator[np.ndarray]:
    """Of each epoch, the places (see `Rows`) to train on: every row once, in a random view, int32 [rows]."""
    random = np.random.default_rng(seed)
    random.permutation(rows)  # Keras' own loop draws one that it does not use: what was fitted with it is fitted again
    while True:
        order = random.permutation(rows)
        if views > 1:
            order += rows * random.integers(views, size=rows)
        yield order.astype("int32")


def predict(model: keras.Model, features: Features, rows: np.ndarray, batch_size: int = 512) -> np.ndarray:
    """Class probabilities of these rows, averaged over the stored views: float32 [rows, classes]."""
    parts = []
    for start in range(0, len(rows), batch_size):
        chunk = rows[start : start + batch_size]
        parts.append(_probabilities([model.predict_on_batch(features.take(chunk, view)) for view in features.views]))
    return np.concatenate(parts)


def _probabilities(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of a head's outputs for several views, a column a class: float32 [rows, classes]."""
    mean = np.mean(np.stack(outputs), axis=0, dtype="float32")
    return np.concatenate([1 - mean, mean], axis=1) if mean.shape[1] == 1 else mean


def feature_moments(features: Features, rows: np.ndarray, chunk: int = 1024) -> list[Moments]:
    """Mean and variance (1 of a constant) of each channel over these rows, one pair a cut layer, float32."""
    count = [0] * len(features.shapes)
    total = [np.zeros(shape[-1]) for shape in features.shapes]
    squares = [np.zeros(shape[-1]) for shape in features.shapes]
    for start in range(0, len(rows), chunk):
        for i, array in enumerate(features.take(rows[start : start + chunk])):
            flat = array.reshape(-1, array.shape[-1]).astype("float32")
            count[i] += len(flat)
            total[i] += flat.sum(axis=0, dtype="float64")
            if array.dtype == "float16":  # whose squares are exact in float32
                squares[i] += np.square(flat).sum(axis=0, dtype="float64")
            else:
                squares[i] += np.einsum("ij,ij->j", flat, flat, dtype="float64")
    moments = []
    for n, s, q in zip(count, total, squares, strict=True):
        mean = s / n
        variance = np.maximum(q / n - mean**2, 0)
        # A channel that never moves here is only centred: elsewhere any move of it would count as thousands.
        variance[variance <= 1e-12 * (mean**2 + 1e-6)] = 1  # what rounding leaves of none
        moments.append((mean.astype("float32"), variance.astype("float32")))
    return moments


def make_reproducible(training: TrainingConfig) -> None:
    """Seeds Python, NumPy and the backend, and makes operations deterministic when asked to."""
    keras.utils.set_random_seed(training.seed)
    if training.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # Keras has no switch of its own for deterministic operations

        tf.config.experimental.enable_op_determinism()


def forget() -> None:
    """Drops what fits leave behind in this process, so that the thousandth costs no more than the first."""
    keras.utils.clear_session(free_memory=False)
    if keras.backend.backend() == "tensorflow":
        # TensorFlow 2.21 registers the gradient of each use of a custom gradient under a name of its own, and keeps it,
        # and with it the graph, for ever: 4 MB a fit. A graph that is built needs it no more.
        from tensorflow.python.framework import ops

        registered = ops.gradient_registry._registry
        for name in [name for name in registered if name.startswith("CustomGradient-")]:
            del registered[name]


class EpochProgress(keras.callbacks.Callback):
    """A progress bar over epochs, and the history as rows named the way they are logged."""

    def __init__(self, epochs: int, description: str) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self.bar = tqdm(
            total=epochs, desc=description, unit="epoch", leave=False, file=sys.stderr, disable=not sys.stderr.isatty()
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Records the epoch and moves the bar."""
        termination.check()
        logs = logs or {}
        row = {"train/loss": logs["loss"], "train/accuracy": logs["accuracy"]}
        if "val_loss" in logs:
            row |= {"val/loss": logs["val_loss"], "val/accuracy": logs["val_accuracy"]}
        row["learning_rate"] = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        self.rows.append({name: float(value) for name, value in row.items()})
        shown = "val/accuracy" if "val/accuracy" in row else "train/accuracy"
        self.bar.set_postfix({shown.replace("/", "_"): f"{self.rows[-1][shown]:.4f}"}, refresh=False)
        self.bar.update()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes the bar away."""
        self.bar.close()
