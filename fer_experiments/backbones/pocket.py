"""The pocket backbone: a small residual network of our own for 48x48 gray faces, its weights shipped in the package.

    gray 48x48 -> standardised image -> stem, pooled to 24x24 -> stage1 24x24 -> stage2 12x12 -> stage3 6x6 -> pool

It has no batch normalisation, whose passes over memory took more than half of a training step on a CPU. While it
learns, each kernel is standardised and has a gain per filter, and what a block adds to its shortcut starts small (Brock
et al., arXiv:2101.08692). Folded together they are plain convolutions: what is stored and loaded consists of Keras' own
layers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from fer_experiments.backbones.weights import POCKET_WEIGHTS
from fer_experiments.files import write_atomically

SIZE = 48
SCALING = {"mean": 127.5, "scale": 127.5}  # what the input went through; any other would do: the network standardises
RELU_GAIN = 1.71  # keeps the variance of a standard normal through ReLU
BRANCH_GAIN = 0.5  # of what a block adds to its shortcut


class StandardizedConv2D(layers.Conv2D):
    """A convolution whose kernels have mean 0 and norm `gain`, one gain a filter; only for training.

    gain: the initial value. Call `folded` for the plain convolution it amounts to.
    """

    def __init__(self, *args: Any, gain: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial_gain = gain

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create kernel, bias and gain."""
        super().build(input_shape)
        start = keras.initializers.Constant(self.initial_gain)
        self.gain = self.add_weight(shape=(self.filters,), initializer=start, name="gain")

    def folded(self) -> Any:
        """Return the standardised kernel, a float32 tensor [h, w, in, out]."""
        kernel = ops.cast(self.kernel, "float32")
        kernel = kernel - ops.mean(kernel, axis=(0, 1, 2), keepdims=True)
        norm = ops.sum(ops.square(kernel), axis=(0, 1, 2), keepdims=True)
        return kernel * ops.rsqrt(norm + 1e-6) * ops.cast(self.gain, "float32")

    def call(self, inputs: Any) -> Any:
        """Convolve with the folded kernel."""
        kernel = ops.cast(self.folded(), self.compute_dtype)
        return ops.conv(inputs, kernel, self.strides, self.padding) + self.bias


def build(
    widths: Sequence[int],
    blocks: Sequence[int],
    classes: int,
    *,
    dropout: float = 0.0,
    training_form: bool = False,
    dtype: str = "float32",
) -> keras.Model:
    """Return the network with random weights, from gray faces [b, 48, 48, 1] to logits [b, classes].

    widths, blocks: filters and residual blocks of each stage; each stage halves the map of the one before. Layers to
    cut at: `stem`, `stage1`, `stage2`, ..., `pool`. training_form: with standardised convolutions (see `folded`).
    """

    def conv(x: Any, filters: int, kernel: int, strides: int, gain: float, name: str) -> Any:
        options: dict[str, Any] = {"strides": strides, "padding": "same", "name": name, "dtype": dtype}
        if training_form:
            return StandardizedConv2D(filters, kernel, gain=gain, **options)(x)
        return layers.Conv2D(filters, kernel, **options)(x)

    def block(x: Any, filters: int, strides: int, name: str) -> Any:
        shortcut = x
        if strides > 1:
            shortcut = layers.AveragePooling2D(strides, dtype=dtype)(shortcut)
        if shortcut.shape[-1] != filters:
            shortcut = conv(shortcut, filters, 1, 1, 1.0, f"{name}_shortcut")
        y = conv(x, filters, 3, strides, RELU_GAIN, f"{name}_conv1")
        y = layers.ReLU(dtype=dtype)(y)
        y = conv(y, filters, 3, 1, BRANCH_GAIN, f"{name}_conv2")
        return layers.Add(dtype=dtype)([shortcut, y])

    face = layers.Input((SIZE, SIZE, 1), name="face")
    # Light and contrast differ between photographs and say nothing about the expression.
    x = layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False, dtype="float32", name="standardize")(face)
    x = conv(x, widths[0], 3, 1, 1.0, "stem_conv")
    x = layers.ReLU(dtype=dtype)(x)
    x = layers.MaxPooling2D(2, dtype=dtype, name="stem")(x)
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
        for number in range(1, count + 1):
            x = block(x, width, 2 if stage > 1 and number == 1 else 1, f"stage{stage}_block{number}")
            x = layers.ReLU(dtype=dtype, name=f"stage{stage}" if number == count else f"stage{stage}_block{number}")(x)
    x = layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, dtype="float32", name="dropout")(x)
    return keras.Model(face, layers.Dense(classes, dtype="float32", name="logits")(x), name="pocket")


def folded(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the weights of the plain network that `model`, in its training form, amounts to.

    Maps <layer>/kernel and <layer>/bias to float16 arrays.
    """
    weights = {}
    for layer in model.layers:
        if layer.weights:
            kernel = layer.folded() if isinstance(layer, StandardizedConv2D) else layer.kernel
            weights[f"{layer.name}/kernel"] = ops.convert_to_numpy(kernel).astype(np.float16)
            weights[f"{layer.name}/bias"] = ops.convert_to_numpy(layer.bias).astype(np.float16)
    return weights


def with_weights(widths: Sequence[int], blocks: Sequence[int], weights: dict[str, np.ndarray]) -> keras.Model:
    """Return the plain float32 network with the weights of `folded`, cast up."""
    model = build(widths, blocks, len(weights["logits/bias"]))
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([weights[f"{layer.name}/{part}"].astype(np.float32) for part in ("kernel", "bias")])
    return model


def save(path: Path, widths: Sequence[int], blocks: Sequence[int], weights: dict[str, np.ndarray]) -> None:
    """Write the architecture and the weights of `folded` to an .npz file, float16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"widths": np.array(widths), "blocks": np.array(blocks), **weights}
    write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def load_classifier(path: Path = POCKET_WEIGHTS) -> keras.Model:
    """Return the network stored at `path`, in float32: scaled gray faces [b, 48, 48, 1] to seven logits."""
    with np.load(path) as stored:
        arrays = dict(stored)
    widths, blocks = arrays.pop("widths").tolist(), arrays.pop("blocks").tolist()
    return with_weights(widths, blocks, arrays)


def load_trunk(path: Path = POCKET_WEIGHTS) -> keras.Model:
    """Return the network without its classifier, in float32: scaled gray faces [b, 48, 48, 1] to `pool`."""
    classifier = load_classifier(path)
    return keras.Model(classifier.input, classifier.get_layer("pool").output, name="pocket")
