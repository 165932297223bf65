"""A backbone's forward pass in the fastest form that the Keras backend offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fer_experiments.backbones.networks import Backbone
from fer_experiments.errors import UserError

Forward = Callable[[np.ndarray], list[np.ndarray]]

# Relative error of a whole batch of features that is allowed; rounding gives 1e-5 in float32 and 1e-2 in bfloat16.
TOLERANCE = {"float32": 1e-2, "bfloat16": 5e-2}


BFLOAT16 = "auto_mixed_precision_onednn_bfloat16"  # TensorFlow's graph optimiser of that name


def compile_forward(backbone: Backbone, batch_size: int, precision: str = "float32") -> Forward:
    """A function from uint8 pixels [b, h, w(, 3)], 1 <= b <= batch_size, to float32 features, one array a cut layer.

    Raises:
        UserError: bfloat16 on another backend than TensorFlow.
    """
    import keras

    if keras.config.backend() == "tensorflow":
        return _frozen(backbone, precision)
    if precision != "float32":
        raise UserError(
            f"features.precision={precision}: only with the TensorFlow backend; say features.precision=float32"
        )
    return _jitted(backbone, batch_size)


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


def _frozen(backbone: Backbone, precision: str) -> Forward:
    """A concrete function with the weights as constants, its convolutions in bfloat16 when asked for."""
    # TensorFlow by name: Keras has no call that traces a function with constant weights, which is what lets the graph
    # optimiser fold batch normalisation into the convolutions.
    import keras
    import tensorflow as tf

    model = backbone.model
    trainable = [variable.numpy() for variable in model.trainable_variables]
    fixed = [variable.numpy() for variable in model.non_trainable_variables]

    def call(images: Any) -> Any:
        constants = [tf.constant(value) for value in trainable], [tf.constant(value) for value in fixed]
        return keras.tree.flatten(model.stateless_call(*constants, images, training=False)[0])

    spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)
    function = tf.function(call, autograph=False).get_concrete_function(spec)

    def forward(images: np.ndarray) -> list[np.ndarray]:
        # The options of the moment of the call decide how its graph is optimised.
        tf.config.optimizer.set_experimental_options({BFLOAT16: precision == "bfloat16"})
        try:
            return [features.numpy() for features in function(tf.constant(images))]
        finally:
            tf.config.optimizer.set_experimental_options({BFLOAT16: False})

    return forward


def _jitted(backbone: Backbone, batch_size: int) -> Forward:
    """A jitted stateless call on batches of one size, the last one padded, so that it is compiled once."""
    import jax
    import keras

    model = backbone.model
    trainable = [variable.value for variable in model.trainable_variables]
    fixed = [variable.value for variable in model.non_trainable_variables]
    call = jax.jit(lambda images, a, b: keras.tree.flatten(model.stateless_call(a, b, images, training=False)[0]))

    def forward(images: np.ndarray) -> list[np.ndarray]:
        padding = [(0, batch_size - len(images))] + [(0, 0)] * (images.ndim - 1)
        return [np.asarray(x)[: len(images)] for x in call(np.pad(images, padding), trainable, fixed)]

    return forward
