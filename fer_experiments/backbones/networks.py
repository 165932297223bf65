"""Frozen backbones: from uint8 pixels to the features at one or several cut layers, as one Keras model.

An application of keras.applications (by the name of its class), a preset of KerasHub (see `hub`), any .keras file, or
our own `pocket`. Everything between the pixels and the features is inside the model and survives saving it: resizing,
channels, scaling, pooling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments.backbones.copies import in_precision, take_weights
from fer_experiments.backbones.hub import load_preset, of_tokens
from fer_experiments.backbones.preprocessing import parse_scaling, preprocess
from fer_experiments.backbones.trunks import load_trunk, quiet_and_seeded
from fer_experiments.backbones.weights import weights_identity
from fer_experiments.config import USAGES, BackboneConfig, close
from fer_experiments.data import Dataset
from fer_experiments.data.known import known_images, ships
from fer_experiments.errors import UserError, first_line
from fer_experiments.files import digest

if TYPE_CHECKING:
    import keras

CODE_VERSION = 1  # raise it when the same config and weights come to give other features


@dataclass(frozen=True)
class Backbone:
    """A frozen network.

    model: uint8 pixels [b, h, w] or [b, h, w, 3] to a list of features, one tensor a cut layer; `trunk` is in it, from
    scaled pixels. layers: the names of the cut layers. fingerprint: see `backbone_fingerprint`.
    """

    config: BackboneConfig
    model: keras.Model
    trunk: keras.Model
    layers: tuple[str, ...]
    fingerprint: str


def backbone_fingerprint(cfg: BackboneConfig) -> str:
    """The sha256 (hex) of everything that decides the features of given pixels; builds no network.

    Raises:
        UserError: weights that are not there, or an unknown scaling.
    """
    parts = {
        "kind": cfg.kind,
        "architecture": cfg.architecture,
        "weights": weights_identity(cfg),
        "layers": list(cfg.layers),
        "input_size": cfg.input_size,
        "channels": cfg.channels,
        "scaling": parse_scaling(cfg),
        "pooling": cfg.pooling,
        "code": CODE_VERSION,
    }
    if cfg.interpolation != "bilinear":  # fingerprints are older than this key
        parts["interpolation"] = cfg.interpolation
    return digest(parts)


def check_not_seen(cfg: BackboneConfig, dataset: Dataset) -> None:
    """Refuses to evaluate a backbone on images that its weights were trained on; see `check_part_not_seen`."""
    val = dataset.val
    check_part_not_seen(cfg, dataset.source, dataset.images[val], dataset.usage[val], "validation")


def check_part_not_seen(cfg: BackboneConfig, source: str, images: np.ndarray, usage: np.ndarray, split: str) -> None:
    """Refuses a split when one of its images belongs to a part that the backbone's config declares as seen.

    A part is recognised by its name, <data.source>/<usage>, and FER2013's Training by its pixels too, whatever the
    source is called (`data.known` says what is not recognised).

    Args:
        source: the dataset's `data.source`. split: its name, for the message.
        images: uint8 [n, h, w]. usage: str [n], of the images.

    Raises:
        UserError: with the number of seen images.
    """
    for part in cfg.seen:
        seen_source, _, seen_usage = part.rpartition("/")
        seen = known_images(part, images)
        if seen_source == source:  # what is of no part may be of any, where its pixels do not tell
            parts = [seen_usage] if ships(part) else [seen_usage, ""]
            seen |= np.isin(usage, parts if seen_usage else [*USAGES, ""])
        if count := int(np.sum(seen)):
            raise UserError(
                f"backbone={cfg.name} was trained on {part}, and {count:,} of the {len(usage):,} {split} images are "
                f"from there: say data.split=official with {seen_source} as it is, or take another backbone"
            )


def seen_near_twins(cfg: BackboneConfig, dataset: Dataset) -> int:
    """How many validation images are of a photograph that the backbone's weights were trained on: near twins of these.

    They are no ground to refuse, as the images themselves are; a score on them flatters the backbone.
    """
    if dataset.near_training is None or not any(_learned(part, dataset) for part in cfg.seen):
        return 0
    return int(dataset.near_training[dataset.val].sum())


def _learned(part: str, dataset: Dataset) -> bool:
    """Whether a part that was seen is the dataset's Training, by its name or its pixels."""
    named = part in (f"{dataset.source}/Training", f"{dataset.source}/")
    return named or bool(known_images(part, dataset.images[dataset.usage == "Training"]).any())


def load_backbone(cfg: BackboneConfig, image_shape: tuple[int, ...], precision: str = "float32") -> Backbone:
    """Builds the network and loads its weights.

    image_shape: (h, w) of gray or (h, w, 3) of RGB images. precision: the dtype policy of its trunk.

    Raises:
        UserError: unknown architecture, scaling or cut layer; weights that are not there or are another network's; an
            input size that the network does not take.
    """
    import keras

    fingerprint = backbone_fingerprint(cfg)
    given, resizing = cfg, dict[str, Any]()
    if cfg.kind == "keras_hub":
        with quiet_and_seeded(cfg.seed):
            whole, cfg, resizing = load_preset(cfg)
    else:
        whole = load_trunk(cfg)
    trunk = _cut(whole, cfg)
    if precision != "float32":
        trunk = in_precision(trunk, precision)
    trunk.trainable = False
    pixels = keras.Input(image_shape, dtype="uint8", name="pixels")
    # training=False: without it a SavedModel of MobileNetV2 gave other features than predict, without a warning.
    try:
        features = trunk(preprocess(pixels, cfg, resizing), training=False)
    except ValueError as error:  # a map that shrinks to nothing
        raise UserError(
            f"backbone.input_size={cfg.input_size}: {cfg.name} cannot take it: {first_line(error, 200)}"
        ) from error
    outputs = [_pooled(tensor, cfg) for tensor in (features if isinstance(features, list) else [features])]
    model = keras.Model(pixels, outputs, name=f"{_identifier(cfg.name)}_from_pixels")
    names = tuple(cfg.layers) or tuple(trunk.output_names)
    if len(set(names)) < len(names):
        raise UserError(
            f"backbone.layers=[]: several outputs of {cfg.name} are called the same ({', '.join(names)}); "
            "name the layers that are wanted"
        )
    return Backbone(given, model, trunk, names, fingerprint)


def _pooled(tensor: Any, cfg: BackboneConfig) -> Any:
    from keras import layers

    if cfg.kind == "keras_hub" and len(tensor.shape) == 3:
        return of_tokens(tensor, cfg)
    if cfg.pooling in ("cls", "map"):
        raise UserError(f"backbone.pooling={cfg.pooling}: {cfg.name} gives no tokens there; say none, avg or max")
    if cfg.pooling == "none" or len(tensor.shape) != 4:
        return tensor
    return (layers.GlobalAveragePooling2D if cfg.pooling == "avg" else layers.GlobalMaxPooling2D)()(tensor)


def _cut(trunk: keras.Model, cfg: BackboneConfig) -> keras.Model:
    """The trunk up to the cut layers, for the images that are wanted; refuses what cannot take these."""
    import keras

    names = [layer.name for layer in trunk.layers]
    for layer in cfg.layers:
        if layer not in names:
            hint = close(layer, names) or f"; its last layers are {', '.join(names[-3:])}"
            raise UserError(f"backbone.layers: {cfg.name} has no layer {layer}{hint}")
    try:
        outputs = [trunk.get_layer(layer).output for layer in cfg.layers] or trunk.outputs
        cut = keras.Model(trunk.inputs, outputs, name=_identifier(cfg.name))
    except (ValueError, AttributeError) as error:  # a network within it, say, whose output is of its own graph
        said = f"{cfg.name} cannot be cut there ({first_line(error, 200)})"
        raise UserError(f"backbone.layers={list(cfg.layers)}: {said}; name another layer, or save it cut") from error
    wanted = (cfg.input_size, cfg.input_size, cfg.channels)
    taken = trunk.input_shape[1:] if isinstance(trunk.input_shape, tuple) else ()
    if len(taken) == 3 and all(t in (None, w) for t, w in zip(taken, wanted, strict=True)):
        return cut
    why = ""
    if cfg.kind == "keras_file":
        try:
            return _taking(cut, wanted)
        except Exception as error:  # each layer and backend has its own
            why = f", and cannot be rebuilt for that: {first_line(error, 200)}"
    shape = "x".join("any" if size is None else str(size) for size in taken) or "several inputs"
    raise UserError(
        f"backbone.input_size={cfg.input_size} and backbone.channels={cfg.channels}: {cfg.name} takes {shape} "
        f"(height x width x channels){why}"
    )


def _taking(model: keras.Model, shape: tuple[int | None, ...]) -> keras.Model:
    """The model for images [b, *shape]; raises what its layers do where its weights depend on their size."""
    import keras

    made = keras.models.clone_model(model, input_tensors=[keras.Input(shape)])
    take_weights(made, model)
    made = keras.Model(made.inputs, made.outputs, name=model.name)
    made(keras.ops.zeros((1, *shape)), training=False)  # some layers complain of an array alone
    return made


def _identifier(name: str) -> str:
    """A name that Keras accepts for a model."""
    return re.sub(r"\W", "_", name)
