"""Optimizers by name, and rates that differ from layer to layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

NOT_DECAYED = ["bias", "gain", "gamma", "beta"]


def build_optimizer(
    name: str, learning_rate: float, *, scales: Sequence[float] | None = None, **options: Any
) -> keras.optimizers.Optimizer:
    """An optimizer: adam, adamw, or sgd with a Nesterov momentum of 0.9.

    scales: what each trainable variable's rate is multiplied with, in the model's order; weights decay at the whole
        rate.
    options: of Keras, such as weight_decay, from which biases and the gains of normalisations are exempt.
    """
    kinds = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW, "sgd": keras.optimizers.SGD}
    if name == "sgd":
        options |= {"momentum": 0.9, "nesterov": True}
    kind = kinds[name]
    if keras.config.backend() == "tensorflow" and name != "sgd":
        kind = _in_one_operation(kind)
    if scales is not None:
        kind = _scaled(kind, scales)
    optimizer = kind(learning_rate, **options)
    if "weight_decay" in options:
        optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer


def _scaled(kind: type[keras.optimizers.Optimizer], scales: Sequence[float]) -> type[keras.optimizers.Optimizer]:
    """The optimizer with a rate of its own for each variable: scaling gradients would do nothing to Adam."""

    class Scaled(kind):  # type: ignore[misc, valid-type]
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            scale = scales[self._get_variable_index(variable)]
            super().update_step(gradient, variable, learning_rate * scale)

    return Scaled


def _in_one_operation(kind: type[keras.optimizers.Adam]) -> type[keras.optimizers.Adam]:
    """Adam with the step of each variable as the one operation that TensorFlow has for it, where Keras has twenty.

    Small heads take most of their time for these otherwise. XLA, which JAX compiles with, makes one of them by itself.
    """
    import tensorflow as tf

    class Adam(kind):  # type: ignore[misc, valid-type]
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            if isinstance(gradient, tf.IndexedSlices) or self.amsgrad:
                super().update_step(gradient, variable, learning_rate)
                return
            number, dtype = self._get_variable_index(variable), variable.dtype
            step = tf.cast(self.iterations + 1, dtype)
            # What Keras hands over is TensorFlow's variable in its own loop, and Keras' elsewhere.
            held = [getattr(v, "_value", v) for v in (variable, self._momentums[number], self._velocities[number])]
            tf.raw_ops.ResourceApplyAdam(
                **dict(zip(("var", "m", "v"), (v.handle for v in held), strict=True)),
                beta1_power=tf.cast(self.beta_1, dtype) ** step,
                beta2_power=tf.cast(self.beta_2, dtype) ** step,
                lr=tf.cast(learning_rate, dtype),
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon,
                grad=tf.cast(gradient, dtype),
            )

    return Adam
