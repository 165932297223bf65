"""Trains networks on augmented pixels, or what is drawn in their place; its state is on disk after each epoch, and the
same call goes on from it.

Knows nothing of MLflow, and not what the network is: `pretraining` and `finetuning` make it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fer_experiments import termination
from fer_experiments.config import PixelsConfig
from fer_experiments.data import Dataset
from fer_experiments.errors import FitError, UserError, first_line
from fer_experiments.evaluation import metrics
from fer_experiments.files import write_atomically
from fer_experiments.training import backends
from fer_experiments.training.augment import augment, mixed
from fer_experiments.training.optimizer import build_optimizer

STATE = "state.npz"
Weights = dict[str, np.ndarray]
Batch = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # images, one-hot labels, weights of the images
OnEpoch = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Network:
    """What is trained.

    model: compiled by `compile_for`. takes: augmented images, float32 [b, h, w] in [0, 255], to what the model takes.
    weights: what is to be kept of the model as it is. score: probabilities with that, float32 [val images, classes].
    rate: the config path of the learning rate, for messages. draws: rows of the dataset to what is augmented of them,
    float32 [b, ...], in the place of its images.
    """

    model: keras.Model
    takes: Callable[[np.ndarray], np.ndarray]
    weights: Callable[[], Weights]
    score: Callable[[Weights], np.ndarray]
    rate: str
    draws: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None


@dataclass
class Trained:
    """How far a training has come. history: a row an epoch. best: the weights of the best epoch. seconds: so far."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    seconds: float = 0.0
    best: Weights = field(default_factory=dict)


def train_on_pixels(
    network: Network,
    dataset: Dataset,
    config: PixelsConfig,
    folder: Path,
    *,
    seed: int,
    monitor: str = "val_accuracy",
    patience: int | None = None,
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """Trains the network on dataset.train and keeps the epoch that is the best on dataset.val.

    The rows of the history: train/ on augmented images and smoothed labels, val/ of the averaged weights (plain
    cross-entropy), learning_rate at the epoch's end.

    Args:
        network: with the weights that the training begins with.
        dataset: images [n, h, w]; its class weights weigh the images.
        config: how.
        folder: holds the state after each epoch, of this network, dataset and config alone; a call that finds one goes
            on from it, a finished one trains no more.
        seed: what an epoch sees depends on it and the epoch's number alone.
        monitor: val_accuracy or val_loss.
        patience: epochs without a better one that end the training; None: it has all its epochs.
        on_epoch: is called with each epoch's number and row, when they are on disk.

    Raises:
        FitError: the loss is not a number; the state stays that of the epoch before.
    """
    state = _restored(folder / STATE, _variables(network.model))
    while len(state.history) < config.epochs and not _is_over(state, patience):
        termination.check()
        started, epoch = time.perf_counter(), len(state.history)
        row = _trained(network, dataset, config, state.history, np.random.default_rng([seed, epoch]))
        weights = _averaged(network)
        scores = metrics.classification_metrics(dataset.labels[dataset.val], network.score(weights))
        row |= {"val/loss": scores["loss"], "val/accuracy": scores["accuracy"], "learning_rate": row["learning_rate"]}
        if not np.isfinite([row["train/loss"], row["val/loss"]]).all():
            raise FitError(f"the loss is not a number in epoch {epoch + 1}: try a smaller {network.rate}")
        state.history.append(row)
        if _is_best(state.history, monitor.replace("val_", "val/")):
            state.best, state.best_epoch = weights, epoch
        state.seconds += time.perf_counter() - started
        _store(folder / STATE, state, _variables(network.model))
        if on_epoch:
            on_epoch(epoch, row)
    return state


def compile_for(
    model: keras.Model, config: PixelsConfig, *, logits: bool = False, scales: Sequence[float] | None = None
) -> None:
    """Gives a model of images its loss and optimizer. logits: what it says of them. scales: see `build_optimizer`."""
    averaging = {"use_ema": True, "ema_momentum": config.ema} if config.ema else {}
    optimizer = build_optimizer(
        config.optimizer,
        config.learning_rate,
        model.trainable_variables,
        scales=scales,
        weight_decay=config.weight_decay,
        global_clipnorm=config.clip_norm,
        **averaging,
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=logits, label_smoothing=config.label_smoothing)
    model.compile(optimizer, loss, metrics=["accuracy"])
    optimizer.build(model.trainable_variables)


def on_devices(dataset: Dataset, config: PixelsConfig) -> str:
    """How many devices share each batch, for a line; nothing where one has it all."""
    count = backends.of_keras().sharing(_batch_size(dataset, config))
    return f" on {count} devices" if count > 1 else ""


def _batch_size(dataset: Dataset, config: PixelsConfig) -> int:
    return min(config.batch_size, len(dataset.train))


def _is_best(history: list[dict[str, float]], series: str) -> bool:
    """Whether the last epoch is better than every one before it."""
    *others, last = (row[series] for row in history)
    return all(last < other if series == "val/loss" else last > other for other in others)


def _is_over(state: Trained, patience: int | None) -> bool:
    """Whether so many epochs have brought nothing better."""
    return patience is not None and len(state.history) - 1 - state.best_epoch >= max(1, patience)


def _trained(
    network: Network, dataset: Dataset, config: PixelsConfig, history: list[dict[str, float]], rng: np.random.Generator
) -> dict[str, float]:
    """Trains one epoch; its loss, accuracy, and the rate at its end."""
    model, size = network.model, _batch_size(dataset, config)
    steps = len(dataset.train) // size
    step, rate = len(history) * steps, _rate(config, steps, history)
    logs = []
    with backends.of_keras().spread(model, size) as placed:
        for images, targets, weights in _ahead(_batches(network, dataset, config, size, rng)):
            model.optimizer.learning_rate = placed(rate(step))
            logs.append(model.train_on_batch(images, targets, weights, return_dict=True))
            step += 1
    means = {f"train/{name}": float(np.mean([each[name] for each in logs])) for name in ("loss", "accuracy")}
    return means | {"val/loss": math.nan, "val/accuracy": math.nan, "learning_rate": rate(step)}


def _rate(config: PixelsConfig, steps: int, history: list[dict[str, float]]) -> Callable[[int], float]:
    """The learning rate at each step from the beginning, as it is in the epoch after `history`; steps: of an epoch."""
    warmup = config.warmup_epochs * steps
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, config.epochs * steps - warmup),
        alpha=1.0 if config.schedule == "constant" else 0.0,
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
    )
    factor = config.drop ** _drops(config, [row["val/loss"] for row in history])

    def rate(step: int) -> float:
        whole = float(keras.ops.convert_to_numpy(schedule(step)))
        return min(whole, max(config.floor, whole * factor)) if factor < 1 else whole

    return rate


def _drops(config: PixelsConfig, losses: list[float]) -> int:
    """How often the rate has been dropped after epochs with these losses."""
    count = len(losses) // config.drop_epochs if config.drop_epochs else 0
    best, waited = math.inf, 0
    for loss in losses:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == config.drop_patience:
            count, waited = count + 1, 0
    return count


def _batches(
    network: Network, dataset: Dataset, config: PixelsConfig, size: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """An epoch's batches, all of `size`: what is left over waits for another epoch."""
    targets = np.eye(len(dataset.classes), dtype=np.float32)[dataset.labels]
    weights = None
    if dataset.class_weight:
        weights = np.array([dataset.class_weight.get(i, 1.0) for i in range(len(dataset.classes))], np.float32)
    rows = rng.permutation(dataset.train)
    for start in range(0, len(rows) - size + 1, size):
        batch = rows[start : start + size]
        images = network.draws(batch, rng) if network.draws else augment(dataset.images[batch], config, rng)
        labels = targets[batch]
        if config.mixup:
            images, labels = mixed(images, labels, config.mixup, rng)
        yield network.takes(images), *_weighed(labels, weights)


def _weighed(labels: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Targets and the weight of each image; of a mixed one each label counts by the weight of its own class."""
    if weights is None:
        return labels, None
    parts = labels * weights
    each = parts.sum(axis=1)
    return parts / each[:, None], each


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same, each made in a thread while the one before it is in use."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _averaged(network: Network) -> Weights:
    """What is kept of the averaged weights; training goes on from the others."""
    trained = network.model.get_weights()
    network.model.optimizer.finalize_variable_values(network.model.trainable_variables)
    weights = network.weights()
    network.model.set_weights(trained)
    return weights


def _variables(model: keras.Model) -> list[Any]:
    """All that training changes: weights, the state of dropout, moments, averages, the step; not the rate, which the
    history decides."""
    own = [v for layer in model.layers for v in layer.variables]
    return own + [v for v in model.optimizer.variables if v.path != model.optimizer.learning_rate.path]


def _store(path: Path, state: Trained, variables: list[Any]) -> None:
    """Replaces the state on disk, whole or not at all."""
    values = {f"variable_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
    facts = json.dumps({"history": state.history, "best_epoch": state.best_epoch, "seconds": state.seconds})
    best = {f"best_{name}": value for name, value in state.best.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, facts=np.array(facts), **best, **values))


def _restored(path: Path, variables: list[Any]) -> Trained:
    """The state on disk, its variables put in place; a beginning where there is none.

    Raises:
        UserError: it is damaged; nothing is put in place then.
    """
    if not path.exists():
        return Trained()
    try:
        with np.load(path) as stored:
            values = [stored[f"variable_{i}"] for i in range(len(variables))]
            best = {name.removeprefix("best_"): stored[name] for name in stored.files if name.startswith("best_")}
            trained = Trained(**json.loads(str(stored["facts"])), best=best)
    except Exception as error:  # of the zip, its compression, NumPy's headers, or JSON
        raise UserError(f"{path}: damaged ({first_line(error)}); delete it, and training begins anew") from error
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return trained
