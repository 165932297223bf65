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
    kind = kinds[name] if scales is None else _scaled(kinds[name], scales)
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
