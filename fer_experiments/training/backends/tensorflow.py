"""TensorFlow: loops over batches as graphs.

Not compiled by XLA: on a CPU it draws the random numbers of dropout so slowly that a pooled head ran at a third of the
speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import psutil
import tensorflow as tf

from fer_experiments.environment import gpus
from fer_experiments.training.faster import faster

Call = Callable[..., Any]


def training(model: keras.Model, measure: Call, mixed: Call) -> Call:
    """(arrays, others, places, start, stop) -> sums: trains the model on batches start to stop of `places`.

    measure(outputs, penalties, *others) -> (mean loss, sums of a batch); others: of each place, as arrays: labels,
    weights, shares. mixed(arrays, *others): what the model is given of a batch's arrays.
    """

    def run(arrays: Any, others: Any, places: Any, start: Any, stop: Any) -> Any:
        def step(number: Any, sums: Any) -> Any:
            rows = places[number]
            taken, batch = _take(arrays, rows), _take(others, rows)
            with tf.GradientTape() as tape:
                with faster(model):
                    outputs, penalties = model(mixed(taken, *batch), training=True), model.losses
                loss, measured = measure(outputs, penalties, *batch)
            weights = model.trainable_variables
            model.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return number + 1, sums + measured

        return tf.while_loop(lambda number, _: number < stop, step, (start, tf.zeros(2)))[1]

    return _graph(run)


def predicting(model: keras.Model) -> Call:
    """(arrays, places) -> the model's outputs for each batch of places, [batches, rows, units]."""

    def run(arrays: Any, places: Any) -> Any:
        spec = tf.TensorSpec((places.shape[1], *model.output_shape[1:]), model.outputs[0].dtype)
        with faster(model):
            return tf.map_fn(lambda rows: model(_take(arrays, rows), training=False), places, fn_output_signature=spec)

    return _graph(run)


def on_device(array: np.ndarray) -> Any:
    """The array where the passes run."""
    return tf.convert_to_tensor(array)


def sharing(batch_size: int) -> int:
    """One device trains on a batch: Keras' distribution knows TensorFlow not."""
    return 1


@contextmanager
def spread(model: keras.Model, batch_size: int) -> Iterator[Call]:
    """As for JAX, with the one, on which what Keras traces in it of the model is faster."""
    with faster(model):
        yield lambda value: value


def free_memory() -> int:
    """Of that device, in bytes; of a GPU all of it, which TensorFlow takes for itself."""
    seen = gpus() if tf.config.list_physical_devices("GPU") else []
    if sizes := [int(mib) for gpu in seen if (mib := gpu["memory"].split()[0]).isdigit()]:
        return min(sizes) << 20
    return psutil.virtual_memory().available


def _take(arrays: Any, rows: Any) -> list[Any]:
    return [tf.gather(array, rows) for array in arrays]


def _graph(function: Call) -> Call:
    graph: Call = tf.function(function, autograph=False, jit_compile=False)
    return graph
