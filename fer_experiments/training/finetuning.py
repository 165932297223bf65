"""Fine-tuning: a backbone's upper layers and a head that is fitted already, trained together: on pixels, or on stored
features of a cut layer below them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from fer_experiments import termination
from fer_experiments.backbones.copies import in_precision
from fer_experiments.backbones.hub_layers import keep_derived
from fer_experiments.backbones.networks import Backbone
from fer_experiments.config import FinetuneConfig, TrainingConfig, close
from fer_experiments.data import Dataset
from fer_experiments.errors import UserError
from fer_experiments.features.cache import Unstored
from fer_experiments.features.extraction import narrowed
from fer_experiments.training.fit import make_reproducible, predict
from fer_experiments.training.pixels import Network, OnEpoch, Weights, compile_for, train_on_pixels
from fer_experiments.training.result import TrainingResult
from fer_experiments.training.rows import Features, Rows
from fer_experiments.training.whole import assemble, joined, of_each_class

RATE = "training.finetune.learning_rate"
AT_ONCE = 256  # rows of features that go through the upper layers at once


def fine_tune(
    backbone: Backbone,
    fit: TrainingResult,
    dataset: Dataset,
    views: Sequence[str],
    training: TrainingConfig,
    folder: Path,
    on_epoch: OnEpoch | None = None,
) -> TrainingResult:
    """Trains what `unfreeze` has made trainable; the model is the whole network, as `assemble` makes it.

    Args:
        backbone: of images as the dataset's, gray. Its weights change, and so do those of the head.
        fit: of the head; its epochs come first in the history.
        dataset: images, labels, and the rows of the training and validation splits.
        views: that probabilities are averaged over, of the validation images and in the model.
        training: with a section finetune.
        folder, on_epoch: see `train_on_pixels`, which raises what this raises.
    """
    make_reproducible(training)
    shape, classes, val = dataset.images.shape[1:], len(dataset.classes), dataset.images[dataset.val]
    model = joined(backbone.model, [fit.model], shape, ["original"])
    whole = assemble(backbone.config, shape, [fit.model], views, classes)

    def score(weights: Weights) -> np.ndarray:
        said: np.ndarray = _with(weights, whole).predict(val, batch_size=_how(training).batch_size, verbose=0)
        return said

    network = Network(model, _in_uint8, lambda: _weights(model), score, RATE)
    return _trained(network, backbone.trunk, whole, fit, dataset, training, folder, on_epoch)


def fine_tune_above(
    upper: keras.Model,
    fit: TrainingResult,
    dataset: Dataset,
    features: Features,
    training: TrainingConfig,
    folder: Path,
    on_epoch: OnEpoch | None = None,
) -> TrainingResult:
    """As `fine_tune`, of the layers above a cut layer, each row in a random view of its features; the model is a head.

    Args:
        upper: `load_upper` of that layer, `unfreeze`d. Its weights change, and so do those of the head.
        fit: of the head, on what `passed` gives.
        features: of dataset.images, of that layer.
    """
    make_reproducible(training)
    inputs = keras.Input(features.shapes[0], name="features_0")
    model = keras.Model(inputs, of_each_class(_on_top(upper, fit.model, inputs)))
    exact = _on_top(in_precision(upper, "float32"), in_precision(fit.model, "float32"), inputs)
    head = keras.Model([inputs], exact, name=f"{upper.name}_{fit.model.name}")

    def draws(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        views = rng.integers(len(features.views), size=len(rows))
        return Rows(features, rows).take(np.arange(len(rows)) + len(rows) * views)[0].astype("float32")

    def score(weights: Weights) -> np.ndarray:
        return predict(_with(weights, head), features, dataset.val)

    network = Network(model, lambda drawn: drawn, lambda: _weights(model), score, RATE, draws)
    return _trained(network, upper, head, fit, dataset, training, folder, on_epoch)


def passed(upper: keras.Model, features: Features, count: int) -> Unstored:
    """What the upper layers make of the stored features of `count` images, in every view, in the dtype of these.

    Raises:
        UserError: that dtype cannot hold it.
    """
    arrays: dict[str, list[np.ndarray]] = {}
    for view in features.views:
        parts = []
        starts = range(0, count, AT_ONCE)
        for start in tqdm(
            starts, f"{upper.name}, {view}", leave=False, file=sys.stderr, disable=not sys.stderr.isatty()
        ):
            termination.check()
            taken = features.take(np.arange(start, min(start + AT_ONCE, count)), view)
            made = keras.tree.flatten(upper.predict_on_batch(taken[0]))
            parts.append([narrowed(array, taken[0].dtype.name, upper.name) for array in made])
        arrays[view] = [np.concatenate(layer) for layer in zip(*parts, strict=True)]
    return Unstored(arrays)


def unfreeze(trunk: keras.Model, training: TrainingConfig) -> None:
    """Makes trainable what training.unfreeze says: of the layers that have weights, in the order of the network.

    Raises:
        UserError: no such layer, or not as many.
    """
    assert training.unfreeze is not None and training.finetune is not None
    named = training.unfreeze
    flat = list(_flat(trunk))
    layers, names = [layer for layer in flat if layer.weights], [layer.name for layer in flat]
    if named == "all":
        upper = layers
    elif named.isdecimal():
        if int(named) > len(layers):
            raise UserError(
                f"training.unfreeze={named}: {trunk.name} has {len(layers)} layers with weights; or say all"
            )
        upper = layers[-int(named) :]
    elif named in names:
        if names.count(named) > 1:
            raise UserError(
                f"training.unfreeze={named}: {trunk.name} has {names.count(named)} layers of that name; say a number "
                "of layers, or another layer"
            )
        above = flat[names.index(named) :]
        upper = [layer for layer in layers if any(layer is one for one in above)]
    else:
        raise UserError(f"training.unfreeze={named}: {trunk.name} has no such layer{close(named, names)}")
    trunk.trainable = True
    for layer in layers:
        layer.trainable = any(layer is one for one in upper)
    # Keras 3.15 trains a model's layers with training=True whatever it was called with: only a normalisation that is
    # not trainable goes on with the statistics that it has. Blocks of KerasHub are layers that have some in them.
    for layer in trunk._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization) and not training.finetune.batch_norm:
            layer.trainable = False
    keep_derived(trunk)
    if not trunk.trainable_variables:
        raise UserError(f"training.unfreeze={named}: nothing there can learn; say a layer further down")


def _flat(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model, and those of models in it, in the order of the network."""
    for layer in model.layers:
        yield from _flat(layer) if isinstance(layer, keras.Model) else [layer]


def _trained(
    network: Network,
    trunk: keras.Model,
    kept: keras.Model,
    fit: TrainingResult,
    dataset: Dataset,
    training: TrainingConfig,
    folder: Path,
    on_epoch: OnEpoch | None,
) -> TrainingResult:
    """Compiles and trains a network, in which `trunk` has rates of its own; the model is `kept`."""
    how = _how(training)
    compile_for(network.model, how, scales=_scales(network.model, trunk, how.layer_decay))
    done = train_on_pixels(
        network,
        dataset,
        how,
        folder,
        seed=training.seed,
        monitor=training.monitor,
        patience=training.patience,
        on_epoch=on_epoch,
    )
    before = len(fit.history)
    history = pd.concat([fit.history, pd.DataFrame(done.history)], ignore_index=True).rename_axis("epoch")
    best, probabilities, labels = before + done.best_epoch, network.score(done.best), dataset.labels[dataset.val]
    return TrainingResult(kept, history, best, probabilities, labels, fit.seconds + done.seconds, began=before)


def _how(training: TrainingConfig) -> FinetuneConfig:
    assert training.finetune is not None
    return training.finetune


def _weights(model: keras.Model) -> Weights:
    return {f"weight_{i}": weight for i, weight in enumerate(model.get_weights())}


def _with(weights: Weights, model: keras.Model) -> keras.Model:
    """The model, with the weights that `_weights` gave of another with as many."""
    model.set_weights([weights[f"weight_{i}"] for i in range(len(weights))])
    return model


def _on_top(upper: keras.Model, head: keras.Model, features: Any) -> Any:
    """What a head says of what the upper layers make of features."""
    made = keras.tree.flatten(upper(features))
    return head(made if len(made) > 1 else made[0])


def _scales(model: keras.Model, trunk: keras.Model, decay: float) -> list[float] | None:
    """What the rate of each trainable variable is multiplied with: `decay` in the lowest layer, 1 in the head."""
    if decay == 1:
        return None
    layers = [layer for layer in _flat(trunk) if layer.trainable_variables]
    scales = {
        id(variable): decay ** (1 - number / len(layers))
        for number, layer in enumerate(layers)
        for variable in layer.trainable_variables
    }
    return [scales.get(id(variable), 1.0) for variable in model.trainable_variables]


def _in_uint8(images: np.ndarray) -> np.ndarray:
    return np.rint(images).astype("uint8")
