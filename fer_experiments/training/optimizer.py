"""Optimizers by name, and rates that differ from layer to layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras

NOT_DECAYED = ("bias", "gain", "gamma", "beta")  # as the names of variables end


def build_optimizer(
    name: str,
    learning_rate: float,
    variables: Sequence[keras.Variable] = (),
    *,
    scales: Sequence[float] | None = None,
    **options: Any,
) -> keras.optimizers.Optimizer:
    """An optimizer: adam, adamw, or sgd with a Nesterov momentum of 0.9.

    variables: all that weights decay among.
    scales: what each trainable variable's rate is multiplied with, in the model's order; weights decay at the whole
        rate.
    options: of Keras, such as weight_decay, from which biases and the gains of normalisations are exempt.
    """
    kinds = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW, "sgd": keras.optimizers.SGD}
    if name == "sgd":
        options |= {"momentum": 0.9, "nesterov": True}
    at_once = keras.config.backend() == "tensorflow" and name != "sgd"
    step: Any = _in_one_operation if at_once else kinds[name].update_step
    if scales is not None:
        step = partial(_scaled, step, scales)
    optimizer = kinds[name](learning_rate, **options)
    optimizer.update_step = partial(step, optimizer)  # its class stays one that Keras can save, copy and load
    if "weight_decay" in options:
        # Not by names, which Keras looks for in those of layers too, with TensorFlow and not with JAX.
        optimizer.exclude_from_weight_decay([v for v in variables if v.name.endswith(NOT_DECAYED)])
    return optimizer


def _scaled(step: Any, scales: Sequence[float], optimizer: Any, gradient: Any, variable: Any, rate: Any) -> None:
    """A step with a rate of its own for each variable: scaling gradients would do nothing to Adam."""
    step(optimizer, gradient, variable, rate * scales[optimizer._get_variable_index(variable)])


def _in_one_operation(optimizer: Any, gradient: Any, variable: Any, rate: Any) -> None:
    """Adam's step of a variable as the one operation that TensorFlow has for it, where Keras has twenty.

    Small heads take most of their time for these otherwise. XLA, which JAX compiles with, makes one of them by itself.
    """
    import tensorflow as tf

    if isinstance(gradient, tf.IndexedSlices) or optimizer.amsgrad:
        type(optimizer).update_step(optimizer, gradient, variable, rate)
        return
    number, dtype = optimizer._get_variable_index(variable), variable.dtype
    step = tf.cast(optimizer.iterations + 1, dtype)
    # What Keras hands over is TensorFlow's variable in its own loop, and Keras' elsewhere.
    held = [getattr(v, "_value", v) for v in (variable, optimizer._momentums[number], optimizer._velocities[number])]
    tf.raw_ops.ResourceApplyAdam(
        **dict(zip(("var", "m", "v"), (v.handle for v in held), strict=True)),
        beta1_power=tf.cast(optimizer.beta_1, dtype) ** step,
        beta2_power=tf.cast(optimizer.beta_2, dtype) ** step,
        lr=tf.cast(rate, dtype),
        beta1=optimizer.beta_1,
        beta2=optimizer.beta_2,
        epsilon=optimizer.epsilon,
        grad=tf.cast(gradient, dtype),
    )
