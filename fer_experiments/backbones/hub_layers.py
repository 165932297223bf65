"""Layers of KerasHub one by one: a network of them to be cut, copied, saved and trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments.backbones.copies import take_weights
from fer_experiments.config import BackboneConfig
from fer_experiments.errors import UserError

if TYPE_CHECKING:
    import keras

MISSTATED = ("SigLIPVisionEmbedding",)  # layers that state one token more than they make, in KerasHub 0.29 to 0.32
DERIVED = {"DINOV2Embedding": ("interpolated_position_embeddings",)}  # weights computed anew where a network is loaded
SAME = 1e-3  # of the largest feature: what rounding may make of it


def laid_open(network: keras.Model) -> keras.Model:
    """A copy whose blocks are layers of their own, to be cut at, and are called as in any preset of that kind."""
    import keras

    def call(layer: keras.layers.Layer, *inputs: Any, **options: Any) -> Any:
        return (layer.call if _is_stack(layer) else layer)(*inputs, **options)

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        return _copied(layer, layer.name.removeprefix(f"{network.name}_"))

    plain = keras.Model(network.inputs, network.outputs, name=network.name)
    opened = keras.models.clone_model(plain, clone_function=lambda layer: layer, call_function=call)
    copy = keras.models.clone_model(opened, clone_function=copied)
    take_weights(copy, opened)
    # A clone asks for its input as the original does, as a dict of one.
    return keras.Model(copy.inputs[0] if len(copy.inputs) == 1 else copy.inputs, copy.outputs, name=network.name)


def check_same(network: keras.Model, copy: keras.Model, shape: tuple[int, ...], cfg: BackboneConfig) -> None:
    """Refuses a copy that is laid open and says something else than the original, of noise of that shape."""
    import keras

    noise = np.random.default_rng(0).standard_normal(shape).astype("float32")
    original = keras.Model(network.inputs[0], network.outputs)
    want, got = (keras.tree.flatten(model(noise, training=False)) for model in (original, copy))
    for one, other in zip(want, got, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        if not np.abs(one - other).max() <= SAME * np.abs(one).max():  # nan too
            raise UserError(
                f"backbone.preset={cfg.preset}: its layers, one by one, give other features than KerasHub's network "
                "does; take a preset of another kind of network"
            )


def mended(network: keras.Model) -> keras.Model:
    """A network out of a file, whose layers of KerasHub can be copied and saved, whatever this process did before."""
    import keras

    for layer in network.layers:
        if isinstance(layer, keras.Model):
            mended(layer)
        else:
            _mend(layer)
    return network


def keep_derived(network: keras.Model) -> None:
    """Takes from training what KerasHub computes anew from other weights where a network is loaded: see DERIVED."""
    for layer in network._flatten_layers():
        for name in DERIVED.get(type(layer).__name__, ()):
            getattr(layer, name).trainable = False


def _is_stack(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a list of blocks, one after the other, as the encoders of ViT and DINOv2 are."""
    import keras

    own = [value for name, value in vars(layer).items() if not name.startswith("_")]
    blocks = [v for v in own if isinstance(v, list) and v and all(isinstance(b, keras.layers.Layer) for b in v)]
    return bool(blocks) and not isinstance(layer, keras.Model)


def _copied(layer: keras.layers.Layer, name: str) -> keras.layers.Layer:
    """A layer of the same config under a name of its own.

    Raises:
        ValueError: one of KerasHub that does not keep all that it was made with.
    """
    _mend(layer)
    return type(layer).from_config({**layer.get_config(), "name": name})


def _mend(layer: keras.layers.Layer) -> None:
    """Lets the layer's kind, if it is one of KerasHub's, say of itself what it takes and what it makes."""
    import keras

    kind = type(layer)
    if not kind.__module__.startswith("keras_hub."):
        return
    if kind.__name__ in MISSTATED:
        kind.compute_output_shape = keras.layers.Layer.compute_output_shape  # found by tracing it
    try:
        kind.from_config(layer.get_config())
    except (TypeError, ValueError) as error:
        # ViT's layers of KerasHub 0.29 to 0.32 say things of themselves that they do not take back: saved one by one,
        # and not as a backbone, they could not be loaded.
        own = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
        given = [p.name for p in own if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]
        said = layer.get_config()
        if lost := [name for name in given if name not in said and not hasattr(layer, name)]:
            raise ValueError(f"{kind.__name__} does not keep its {', '.join(lost)}") from error
        kind.get_config = _accepted(kind, kind.get_config)


def _accepted(kind: type, said: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    """A get_config that says what the constructor takes, and all of it that the layer knows."""
    import keras

    own = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    common = inspect.signature(keras.layers.Layer.__init__).parameters

    def get_config(layer: Any) -> dict[str, Any]:
        known = {name: getattr(layer, name, None) for name in own}
        plain = {name: value for name, value in known.items() if isinstance(value, bool | int | float | str | tuple)}
        return plain | {name: value for name, value in said(layer).items() if name in own or name in common}

    return get_config
