"""Heads by name: the trained part, from features to class probabilities. A new head is one function and one YAML,
which says `spatial: true` if it needs a map."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np

from fer_experiments.config import HeadConfig
from fer_experiments.errors import UserError

Moments = tuple[np.ndarray, np.ndarray]  # mean and variance of a layer's features, float32 [channels] each
Body = Callable[[list[keras.KerasTensor], HeadConfig], keras.KerasTensor]


def build_head(
    config: HeadConfig,
    shapes: Sequence[tuple[int, ...]],
    classes: int,
    *,
    moments: Sequence[Moments] | None = None,
    precision: str = "float32",
) -> keras.Model:
    """A Keras model from features (one input a cut layer) to probabilities.

    Args:
        config: which head, and its sizes.
        shapes: of one image's features, a tuple a cut layer: (channels,), (tokens, channels) or (h, w, channels).
        classes: their number. Two give one sigmoid unit, P(class 1), shape [n, 1]; more give a softmax, [n, classes].
        moments: of the training split's features, wanted when config.normalize is set.
        precision: a Keras dtype policy for the body; inputs, normalisation and output stay float32.

    Raises:
        UserError: an unknown head, or a head that needs a spatial map on pooled features.
    """
    check_head(config)
    if config.spatial and any(len(shape) != 3 for shape in shapes):
        own = "map" if any(len(shape) == 2 for shape in shapes) else "none"  # of tokens
        raise UserError(f"head={config.name} needs a spatial map: set backbone.pooling={own}, or take head=pooled")
    inputs = [keras.Input(shape, name=f"features_{i}") for i, shape in enumerate(shapes)]
    hidden = list(inputs)
    if config.normalize:
        hidden = [
            keras.layers.Normalization(mean=mean, variance=variance, name=f"normalize_{i}", dtype="float32")(x)
            for i, (x, (mean, variance)) in enumerate(zip(hidden, moments or (), strict=True))
        ]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        body = HEADS[config.name](hidden, config)
    finally:
        keras.config.set_dtype_policy(before)
    units, activation = (1, "sigmoid") if classes == 2 else (classes, "softmax")
    output = keras.layers.Dense(
        units, activation=activation, kernel_regularizer=_ridge(config), name="probabilities", dtype="float32"
    )(body)
    return keras.Model(inputs, output, name=f"head_{config.name}")


def check_head(config: HeadConfig) -> None:
    """Refuses a head of which there is a YAML alone.

    Raises:
        UserError: naming those that there are.
    """
    if config.name not in HEADS:
        raise UserError(f"head.name={config.name}: no such head; choose one of {', '.join(HEADS)}")


def _ridge(config: HeadConfig) -> keras.regularizers.Regularizer | None:
    return keras.regularizers.L2(config.l2) if config.l2 else None


def _pool(inputs: list[keras.KerasTensor]) -> keras.KerasTensor:
    """Every layer's features averaged over space, or over tokens, side by side."""
    average = {4: keras.layers.GlobalAveragePooling2D, 3: keras.layers.GlobalAveragePooling1D}
    flat = [average[len(x.shape)]()(x) if len(x.shape) in average else x for x in inputs]
    return flat[0] if len(flat) == 1 else keras.layers.Concatenate()(flat)


def _dense(x: keras.KerasTensor, config: HeadConfig) -> keras.KerasTensor:
    """Dense layers of config.dense_widths, the dropout after the first."""
    for i, width in enumerate(config.dense_widths):
        x = keras.layers.Dense(width, activation="relu", kernel_regularizer=_ridge(config))(x)
        if i == 0:
            x = keras.layers.Dropout(config.dropout)(x)
    return x


def _paper(inputs: list[keras.KerasTensor], config: HeadConfig) -> keras.KerasTensor:
    """Convolution and max pooling, flattened into dense layers; the penalty is on the dense layers alone."""
    flat = []
    for x in inputs:
        for filters in config.filters:
            x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
            x = keras.layers.MaxPooling2D(2, padding="same")(x)  # "same": maps may be 1x1 at small input sizes
        flat.append(keras.layers.Flatten()(x))
    return _dense(flat[0] if len(flat) == 1 else keras.layers.Concatenate()(flat), config)


def _conv(inputs: list[keras.KerasTensor], config: HeadConfig) -> keras.KerasTensor:
    """1x1 to the first width, 3x3 to the others, averaged over space."""
    pooled = []
    for x in inputs:
        for i, filters in enumerate(config.filters):
            x = keras.layers.SpatialDropout2D(config.dropout / 2)(x) if i else x
            x = keras.layers.Conv2D(
                filters, 3 if i else 1, padding="same", use_bias=False, kernel_regularizer=_ridge(config)
            )(x)
            x = keras.layers.BatchNormalization()(x)
            x = keras.layers.Activation("relu")(x)
        pooled.append(x)
    return _dense(keras.layers.Dropout(config.dropout)(_pool(pooled)), config)


def _pooled(inputs: list[keras.KerasTensor], config: HeadConfig) -> keras.KerasTensor:
    """Dense layers on averaged features."""
    return _dense(_pool(inputs), config)


def _linear(inputs: list[keras.KerasTensor], config: HeadConfig) -> keras.KerasTensor:
    """Nothing between the averaged features and the output: logistic regression."""
    return _pool(inputs)


HEADS: dict[str, Body] = {"paper": _paper, "pooled": _pooled, "conv": _conv, "linear": _linear}
