"""Copies of networks: layers made anew from what they say of themselves, with the weights of the original."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def in_precision(model: keras.Model, precision: str) -> keras.Model:
    """A copy that computes by a dtype policy, whatever the model was made in, without optimizer and loss.

    What it takes is float32, or integers as before: a cut through a network of lower precision would round it.
    """
    import keras

    def taken(tensor: Any) -> Any:
        dtype = "float32" if "float" in tensor.dtype else tensor.dtype
        return keras.Input(batch_shape=tensor.shape, dtype=dtype, name=tensor.name)

    def convert(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):
            return in_precision(layer, precision)
        return layer.__class__.from_config({**layer.get_config(), "dtype": precision})

    inputs = keras.tree.map_structure(taken, model.input)
    copy = keras.models.clone_model(model, inputs, convert)
    copy = keras.Model(copy.input, copy.output, name=model.name)  # a clone is compiled as the model was
    take_weights(copy, model)
    return copy


def take_weights(copy: keras.Model, original: keras.Model) -> None:
    """Gives a copy the weights of the original, in its own precision, and what its layers derive from them."""
    copy.set_weights([np.asarray(weight, "float32") for weight in original.get_weights()])
    for layer in copy._flatten_layers():
        if hasattr(layer, "finalize_state"):  # Normalization: what it computes with is not among its weights
            layer.finalize_state()


def is_exact(model: keras.Model) -> bool:
    """Whether all layers compute in float32, or in no floating numbers, and hold their weights so."""
    policies = (layer.dtype_policy for layer in model._flatten_layers())
    dtypes = {dtype for policy in policies for dtype in (policy.compute_dtype, policy.variable_dtype)}
    return not any("float" in dtype and dtype != "float32" for dtype in dtypes)
