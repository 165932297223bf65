"""TensorFlow: a concrete function with the weights as constants, which its graph optimiser folds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments.backbones.networks import Backbone
from fer_experiments.features.engines import Compiled

if TYPE_CHECKING:
    import keras

BFLOAT16 = "auto_mixed_precision_onednn_bfloat16"  # TensorFlow's graph optimiser of that name


def constant_function(model: keras.Model, batch_size: int | None) -> Any:
    """A model of uint8 pixels as a concrete function whose weights are constants; None: of any batch size."""
    # TensorFlow by name: Keras has no call that traces a function with constant weights, which is what lets the graph
    # optimiser fold batch normalisation into the convolutions.
    import keras
    import tensorflow as tf

    trainable = [variable.numpy() for variable in model.trainable_variables]
    fixed = [variable.numpy() for variable in model.non_trainable_variables]

    def call(images: Any) -> Any:
        constants = [tf.constant(value) for value in trainable], [tf.constant(value) for value in fixed]
        return keras.tree.flatten(model.stateless_call(*constants, images, training=False)[0])

    spec = tf.TensorSpec((batch_size, *model.input_shape[1:]), tf.uint8)
    return tf.function(call, autograph=False).get_concrete_function(spec)


def compile_forward(backbone: Backbone, batch_size: int, precision: str) -> Compiled:
    """See `engine.compile_forward`; convolutions are in bfloat16 when asked for."""
    import tensorflow as tf

    function = constant_function(backbone.model, None)

    def start(images: np.ndarray) -> Callable[[], list[np.ndarray]]:
        # The options of the moment of the call decide how its graph is optimised.
        tf.config.optimizer.set_experimental_options({BFLOAT16: precision == "bfloat16"})
        try:
            features = function(tf.constant(images))
        finally:
            tf.config.optimizer.set_experimental_options({BFLOAT16: False})
        return lambda: [each.numpy() for each in features]

    return Compiled(start, batch_size, ahead=2)  # a GPU works while the host stores what it made before
