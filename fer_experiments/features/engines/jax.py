"""JAX: a jitted stateless call on batches of one size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fer_experiments.backbones.networks import Backbone
from fer_experiments.features.engines import Compiled


def compile_forward(backbone: Backbone, batch_size: int, precision: str) -> Compiled:
    """See `engine.compile_forward`; the last batch is padded, so that it is compiled once."""
    import jax
    import keras

    model = backbone.model
    trainable = [variable.value for variable in model.trainable_variables]
    fixed = [variable.value for variable in model.non_trainable_variables]
    call = jax.jit(lambda images, a, b: keras.tree.flatten(model.stateless_call(a, b, images, training=False)[0]))

    def start(images: np.ndarray) -> Callable[[], list[np.ndarray]]:
        padding = [(0, batch_size - len(images))] + [(0, 0)] * (images.ndim - 1)
        features = call(np.pad(images, padding), trainable, fixed)
        return lambda: [np.asarray(x)[: len(images)] for x in features]

    return Compiled(start, batch_size, ahead=2)  # the device works while the host stores what it made before
