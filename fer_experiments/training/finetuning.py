"""Fine-tuning: a backbone's upper layers and a head that is fitted already, trained together on pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from fer_experiments.backbones.networks import Backbone
from fer_experiments.config import TrainingConfig, close
from fer_experiments.data import Dataset
from fer_experiments.errors import UserError
from fer_experiments.training.fit import make_reproducible
from fer_experiments.training.pixels import Network, OnEpoch, Weights, compile_for, train_on_pixels
from fer_experiments.training.result import TrainingResult
from fer_experiments.training.whole import assemble, joined


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
    how = training.finetune
    assert how is not None
    make_reproducible(training)
    shape, classes, val = dataset.images.shape[1:], len(dataset.classes), dataset.images[dataset.val]
    model = joined(backbone.model, [fit.model], shape, ["original"], classes)
    compile_for(model, how, scales=_scales(model, backbone.trunk, how.layer_decay))
    whole = assemble(backbone.config, shape, [fit.model], views, classes)

    def kept() -> Weights:
        return {f"weight_{i}": weight for i, weight in enumerate(model.get_weights())}

    def score(weights: Weights) -> np.ndarray:
        whole.set_weights([weights[f"weight_{i}"] for i in range(len(weights))])
        probabilities: np.ndarray = whole.predict(val, batch_size=how.batch_size, verbose=0)
        return probabilities

    done = train_on_pixels(
        Network(model, _in_uint8, kept, score, "training.finetune.learning_rate"),
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
    best, probabilities, labels = before + done.best_epoch, score(done.best), dataset.labels[dataset.val]
    return TrainingResult(whole, history, best, probabilities, labels, fit.seconds + done.seconds)


def unfreeze(trunk: keras.Model, training: TrainingConfig) -> None:
    """Makes trainable what training.unfreeze says: of the layers that have weights, in the order of the network.

    Raises:
        UserError: no such layer, or not as many.
    """
    assert training.unfreeze is not None and training.finetune is not None
    named = training.unfreeze
    layers = [layer for layer in _flat(trunk) if layer.weights]
    names = [layer.name for layer in _flat(trunk)]
    if named == "all":
        upper = layers
    elif named.isdecimal():
        if int(named) > len(layers):
            raise UserError(
                f"training.unfreeze={named}: {trunk.name} has {len(layers)} layers with weights; or say all"
            )
        upper = layers[-int(named) :]
    elif named in names:
        above = names[names.index(named) :]
        upper = [layer for layer in layers if layer.name in above]
    else:
        raise UserError(f"training.unfreeze={named}: {trunk.name} has no such layer{close(named, names)}")
    trunk.trainable = True
    for layer in layers:
        # Keras 3.15 trains a model's layers with training=True whatever it was called with: only a normalisation that
        # is not trainable goes on with the statistics that it has.
        still = isinstance(layer, keras.layers.BatchNormalization) and not training.finetune.batch_norm
        layer.trainable = layer in upper and not still
    if not trunk.trainable_variables:
        raise UserError(f"training.unfreeze={named}: nothing there can learn; say a layer further down")


def trainable_parameters(model: keras.Model) -> int:
    """The number of those that learn."""
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def _flat(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model, and those of models in it, in the order of the network."""
    for layer in model.layers:
        yield from _flat(layer) if isinstance(layer, keras.Model) else [layer]


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
