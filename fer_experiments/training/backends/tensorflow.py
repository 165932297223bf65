"""TensorFlow: loops over batches as one graph, which XLA compiles where that is faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import psutil
import tensorflow as tf

Call = Callable[..., Any]


def training(model: keras.Model, measure: Call, xla: bool) -> Call:
    """(arrays, others, places, start, stop) -> sums: trains the model on batches start to stop of `places`.

    measure(outputs, *others) -> (mean loss, sums of a batch); others: of each place, as arrays: labels, weights.
    """

    def run(arrays: Any, others: Any, places: Any, start: Any, stop: Any) -> Any:
        def step(number: Any, sums: Any) -> Any:
            rows = places[number]
            taken, batch = _take(arrays, rows), _take(others, rows)
            with tf.GradientTape() as tape:
                loss, measured = measure(model(taken, training=True), model.losses, *batch)
            weights = model.trainable_variables
            model.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return number + 1, sums + measured

        return tf.while_loop(lambda number, _: number < stop, step, (start, tf.zeros(2)))[1]

    return _compiled(run, xla)


def predicting(model: keras.Model, xla: bool) -> Call:
    """(arrays, places) -> the model's outputs for each batch of places, [batches, rows, units]."""

    def run(arrays: Any, places: Any) -> Any:
        spec = tf.TensorSpec((places.shape[1], *model.output_shape[1:]), model.outputs[0].dtype)
        return tf.map_fn(lambda rows: model(_take(arrays, rows), training=False), places, fn_output_signature=spec)

    return _compiled(run, xla)


def on_device(array: np.ndarray) -> Any:
    """The array where the passes run."""
    return tf.convert_to_tensor(array)


def free_memory() -> int:
    """Of that device, in bytes."""
    return psutil.virtual_memory().available


def _take(arrays: Any, rows: Any) -> list[Any]:
    return [tf.gather(array, rows) for array in arrays]


def _compiled(function: Call, xla: bool) -> Call:
    graph: Call = tf.function(function, autograph=False, jit_compile=xla)
    return graph
