"""JAX: loops over batches, jitted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import keras
import psutil
from jax import numpy as jnp

Call = Callable[..., Any]
on_device = jax.device_put


def training(model: keras.Model, measure: Call, mixed: Call) -> Call:
    """As for TensorFlow; the model's variables are arguments, and are set to what comes back."""

    def objective(trainable: Any, fixed: Any, taken: Any, batch: Any) -> Any:
        given = mixed(taken, *batch)
        outputs, fixed, penalties = model.stateless_call(trainable, fixed, given, training=True, return_losses=True)
        loss, measured = measure(outputs, penalties, *batch)
        return loss, (measured, fixed)

    def run(state: Any, arrays: Any, others: Any, places: Any, start: Any, stop: Any) -> Any:
        def step(number: Any, carry: Any) -> Any:
            (trainable, fixed, slots), sums = carry
            taken, batch = _take(arrays, places[number]), _take(others, places[number])
            (_, (measured, fixed)), gradients = jax.value_and_grad(objective, has_aux=True)(
                trainable, fixed, taken, batch
            )
            trainable, slots = model.optimizer.stateless_apply(slots, gradients, trainable)
            return (trainable, fixed, slots), sums + measured

        return jax.lax.fori_loop(start, stop, step, (state, jnp.zeros(2)))

    jitted = jax.jit(run)
    groups = model.trainable_variables, model.non_trainable_variables, model.optimizer.variables

    def call(*arguments: Any) -> Any:
        state, sums = jitted(tuple([variable.value for variable in group] for group in groups), *arguments)
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return sums

    return call


def predicting(model: keras.Model) -> Call:
    """As for TensorFlow."""

    def run(trainable: Any, fixed: Any, arrays: Any, places: Any) -> Any:
        def outputs(rows: Any) -> Any:
            return model.stateless_call(trainable, fixed, _take(arrays, rows), training=False)[0]

        return jax.lax.map(outputs, places)

    jitted = jax.jit(run)

    def call(*arguments: Any) -> Any:
        values = ([v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables])
        return jitted(*values, *arguments)

    return call


def sharing(batch_size: int) -> int:
    """How many of the devices that are seen can take equal shares of a batch."""
    return math.gcd(batch_size, len(jax.devices()))


@contextmanager
def spread(model: keras.Model, batch_size: int) -> Iterator[Call]:
    """So many devices share each batch that a compiled model is trained on in it, with all its variables on each.

    What it gives puts a value there that is to be assigned to a variable meanwhile.
    """
    devices = jax.devices()[: sharing(batch_size)]
    if len(devices) == 1:
        yield lambda value: value
        return
    names = [f"{device.platform}:{device.id}" for device in devices]
    distribution = keras.distribution.DataParallel(devices=names)
    everywhere = jax.sharding.NamedSharding(jax.sharding.Mesh(devices, ("batch",)), jax.sharding.PartitionSpec())

    def move(where: Any) -> None:
        for variable in (*model.variables, *model.optimizer.variables, *model.metrics_variables):
            variable.assign(jax.device_put(variable.value, where))

    with distribution.scope():
        move(everywhere)
        yield lambda value: jax.device_put(jnp.float32(value), everywhere)
    move(devices[0])


def free_memory() -> int:
    """Of the device, in bytes."""
    statistics = jax.local_devices()[0].memory_stats()  # None of a CPU
    if statistics is None:
        return psutil.virtual_memory().available
    return int(statistics["bytes_limit"] - statistics["bytes_in_use"])


def _take(arrays: Any, rows: Any) -> list[Any]:
    return [jnp.take(array, rows, axis=0) for array in arrays]
