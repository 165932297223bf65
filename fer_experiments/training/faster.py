"""The same as Keras asks for, by operations of TensorFlow that are faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial

import keras
import numpy as np
import tensorflow as tf

from fer_experiments.training.precision import computes_products_in_bfloat16

Gradients = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
LARGE = 400  # places of a map: of the larger ones, whose channels are few, taps are added slowly
THIN = 32  # channels: places of fewer are gathered slowly


@contextmanager
def faster(model: keras.Model) -> Iterator[None]:
    """What is traced of a model in it computes its L2 penalties, its normalisations and, where that pays, its
    convolutions as below."""
    layers = list(model._flatten_layers())
    convolutions = [layer for layer in layers if _suits(layer)] if pays() else []
    normalisations = [layer for layer in layers if _normalises_maps(layer)]
    ridges = [(v, v.regularizer) for v in model.trainable_variables if type(v.regularizer) is keras.regularizers.L2]
    for layer in convolutions:
        layer.convolution_op = partial(_convolved, layer)  # the method that Keras has for this
    for layer in normalisations:
        layer.call = partial(normalised, layer)
    for variable, ridge in ridges:
        variable.regularizer = partial(penalty, ridge.l2)
    try:
        yield
    finally:
        for layer in convolutions:
            del layer.convolution_op
        for layer in normalisations:
            del layer.call
        for variable, ridge in ridges:
            variable.regularizer = ridge


def penalty(l2: float, weights: tf.Tensor) -> tf.Tensor:
    """l2 times the sum of squares: one pass over the weights, and one for its gradient, where Keras' has six."""
    return 2 * l2 * tf.nn.l2_loss(weights)


def _normalises_maps(layer: keras.Layer) -> bool:
    return (
        type(layer) is keras.layers.BatchNormalization
        and (layer.input_spec.ndim, layer.axis) in [(4, 3), (4, -1)]
        and not layer.synchronized
        and not layer.renorm
        and layer.epsilon > 1.001e-5  # cuDNN's least
    )


def normalised(
    layer: keras.layers.BatchNormalization, maps: tf.Tensor, training: bool = False, mask: tf.Tensor | None = None
) -> tf.Tensor:
    """What the layer's `call` gives, by one operation, and one for its gradients, where Keras has twenty passes."""
    if mask is not None:
        return type(layer).call(layer, maps, training=training, mask=mask)
    maps = tf.cast(maps, layer.compute_dtype)
    learns = bool(training and layer.trainable)
    moving = layer.moving_mean, layer.moving_variance
    ones = tf.ones_like(moving[0])
    result = tf.raw_ops.FusedBatchNormV3(
        x=maps,
        scale=layer.gamma if layer.scale else ones,
        offset=layer.beta if layer.center else 0 * ones,
        mean=[] if learns else moving[0],
        variance=[] if learns else moving[1],
        epsilon=layer.epsilon,
        is_training=learns,
    )
    if learns:
        rows = tf.cast(tf.size(maps[..., 0]), "float32")
        # Keras divides by all rows, this operation by one less.
        now = result.batch_mean, result.batch_variance * (rows - 1) / rows
        for variable, value in zip(moving, now, strict=True):
            variable.assign(variable * layer.momentum + value * (1 - layer.momentum))
    return result.y


@cache
def pays() -> bool:
    """Whether convolutions are faster as products of matrices, as measured: on a CPU with AMX.

    There oneDNN's products are in bfloat16 twice as fast as in float32, and the gradients of its convolutions slower.
    """
    return computes_products_in_bfloat16()


def _convolved(layer: keras.layers.Conv2D, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """As below, or as Keras does where the maps are large, or their size is not known when they are traced."""
    size = x.shape[1:3]
    if None in size or (layer.kernel_size != (1, 1) and size[0] * size[1] > LARGE):
        return type(layer).convolution_op(layer, x, kernel)
    return convolution(x, kernel) if layer.strides == (1, 1) else strided(layer.strides, x, kernel)


def _suits(layer: keras.Layer) -> bool:
    if type(layer) is not keras.layers.Conv2D or layer.data_format != "channels_last" or layer.groups != 1:
        return False
    if layer.dilation_rate != (1, 1):
        return False
    if layer.strides != (1, 1):
        return layer.padding == "valid" and layer.compute_dtype == "bfloat16" and layer.kernel.shape[2] >= THIN
    same = layer.padding == "same" or layer.kernel_size == (1, 1)
    return same and (layer.compute_dtype == "bfloat16" or _is_narrow(layer.kernel.shape))


def _is_narrow(kernel: tuple[int, ...]) -> bool:
    """Whether all that its taps give is no more than what they take, so that it need not be summed in between."""
    height, width, inputs, outputs = kernel
    return height * width * outputs <= inputs


@tf.custom_gradient
def convolution(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
    """Of maps [n, h, w, c] with a kernel [kh, kw, c, d], zeros beyond the maps' edges: [n, h, w, d].

    Each tap is multiplied with all of the map, and what comes of it shifted: the map, which is the larger, is not
    copied. Where a kernel is not narrow, only the gradient by it is such products.
    """
    x, kernel = tf.convert_to_tensor(x), tf.convert_to_tensor(kernel)
    kh, kw, inputs, outputs = kernel.shape
    height, width = x.shape[1:3]
    # How far below and to the right of an output each tap's input lies.
    taps = [(i - (kh - 1) // 2, j - (kw - 1) // 2) for i in range(kh) for j in range(kw)]
    if len(taps) == 1:
        y = tf.reshape(tf.matmul(tf.reshape(x, (-1, inputs)), kernel[0, 0]), (-1, height, width, outputs))
    elif _is_narrow(kernel.shape):
        each = tf.matmul(tf.reshape(x, (1, -1, inputs)), tf.reshape(kernel, (-1, inputs, outputs)))
        # In float32, or each sum would be rounded.
        maps = tf.cast(tf.reshape(each, (len(taps), -1, height, width, outputs)), "float32")
        y = tf.cast(tf.add_n([_shifted(maps[number], *tap) for number, tap in enumerate(taps)]), x.dtype)
    else:
        y = tf.nn.conv2d(x, kernel, 1, "SAME")

    def gradients(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if len(taps) == 1:
            by_kernel = tf.matmul(tf.reshape(x, (-1, inputs)), tf.reshape(dy, (-1, outputs)), transpose_a=True)
        else:  # with rows first, those that lie so many above are a part of the array as it is
            given = tf.reshape(tf.transpose(x, (1, 0, 2, 3)), (-1, inputs))
            above, left = kh - 1, kw - 1
            around = tf.pad(tf.transpose(dy, (1, 0, 2, 3)), ((above, above), (0, 0), (left, left), (0, 0)))
            beside = tf.concat([around[:, :, left - right : left - right + width] for _, right in taps[:kw]], -1)
            rows = [beside[above - down : above - down + height] for down, _ in taps[::kw]]
            by_row = [tf.matmul(given, tf.reshape(row, (-1, kw * outputs)), transpose_a=True) for row in rows]
            by_kernel = tf.transpose(tf.reshape(tf.stack(by_row), (kh, inputs, kw, outputs)), (0, 2, 1, 3))
        if len(taps) == 1:
            flat = tf.matmul(tf.reshape(dy, (-1, outputs)), kernel[0, 0], transpose_b=True)
            return tf.reshape(flat, tf.shape(x)), tf.reshape(by_kernel, kernel.shape)
        return tf.nn.conv2d_transpose(dy, kernel, tf.shape(x), 1, "SAME"), tf.reshape(by_kernel, kernel.shape)

    return y, gradients


def strided(strides: tuple[int, int], x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Of maps [n, h, w, c] with a kernel [kh, kw, c, d], nothing beyond the maps' edges: [n, h', w', d].

    Only its gradient by the kernel is a product of matrices.
    """
    vertical, horizontal = strides

    @tf.custom_gradient
    def product(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        y = tf.nn.conv2d(x, kernel, strides, "VALID")
        kh, kw, inputs, outputs = kernel.shape
        (height, width), (rows, columns) = x.shape[1:3], y.shape[1:3]

        def gradients(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            down = vertical * np.arange(rows)[:, None, None, None] + np.arange(kh)[:, None]
            right = horizontal * np.arange(columns)[:, None, None] + np.arange(kw)
            taken = tf.gather(tf.reshape(x, (-1, height * width, inputs)), (down * width + right).ravel(), axis=1)
            taps = tf.reshape(taken, (-1, kh * kw * inputs))
            by_kernel = tf.matmul(taps, tf.reshape(dy, (-1, outputs)), transpose_a=True)
            by_map = tf.nn.conv2d_transpose(dy, kernel, tf.shape(x), strides, "VALID")
            return by_map, tf.reshape(by_kernel, kernel.shape)

        return y, gradients

    return product(x, kernel)


def _shifted(maps: tf.Tensor, down: int, right: int) -> tf.Tensor:
    """[n, h, w, d] with what lies so far below and to the right of each place, zeros where that is beyond an edge."""
    height, width = maps.shape[1:3]
    down, right = max(-height, min(down, height)), max(-width, min(right, width))
    top, bottom, left, end = max(0, -down), max(0, down), max(0, -right), max(0, right)
    inner = maps[:, bottom : height - top, end : width - left]
    return tf.pad(inner, ((0, 0), (top, bottom), (left, end), (0, 0)))
