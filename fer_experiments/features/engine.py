"""A backbone's forward pass in the fastest form that the Keras backend offers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np

from fer_experiments.backbones.networks import Backbone
from fer_experiments.errors import UserError

Forward = Callable[[np.ndarray], list[np.ndarray]]

# Relative error of a whole batch of features that is allowed; rounding gives 1e-5 in float32 and 1e-2 in bfloat16.
TOLERANCE = {"float32": 1e-2, "bfloat16": 5e-2}


def compile_forward(backbone: Backbone, batch_size: int, precision: str = "float32") -> Forward:
    """A function from uint8 pixels [b, h, w(, 3)], 1 <= b <= batch_size, to float32 features, one array a cut layer.

    Raises:
        UserError: a precision that the engine does not have.
    """
    import keras

    engine = import_module(f"fer_experiments.features.engines.{keras.config.backend()}")
    forward: Forward = engine.compile_forward(backbone, batch_size, precision)
    return forward


def check_parity(backbone: Backbone, forward: Forward, images: np.ndarray, precision: str = "float32") -> None:
    """Stops when the compiled form disagrees with Keras on these pixels.

    An exported form can be wrong while `predict` is right (MobileNetV2 behind preprocessing layers, without a warning).

    Raises:
        UserError: a relative error (norm of the difference over the norm) above TOLERANCE, or features that are NaN.
    """
    import keras

    # flatten: Keras gives the only output of a model as it is, not as a list of one
    expected = [keras.ops.convert_to_numpy(x) for x in keras.tree.flatten(backbone.model(images, training=False))]
    for layer, ours, theirs in zip(backbone.layers, forward(images), expected, strict=True):
        if not np.isfinite(theirs).all():
            raise UserError(f"backbone={backbone.config.name}: {layer} gives NaN or infinity; are its weights whole?")
        error = float(np.linalg.norm(ours - theirs)) / max(float(np.linalg.norm(theirs)), 1e-30)
        if not error <= TOLERANCE[precision]:
            raise UserError(
                f"backbone={backbone.config.name}: the compiled network and Keras disagree on {layer} by {error:.1%} "
                f"(allowed: {TOLERANCE[precision]:.0%}); nothing was stored"
            )
