"""From uint8 pixels to what a backbone was trained on, in layers that can be saved with it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from fer_experiments.config import BackboneConfig
from fer_experiments.errors import UserError

BILINEAR = {"interpolation": "bilinear", "antialias": False}  # options of keras.layers.Resizing


def parse_scaling(cfg: BackboneConfig) -> str | dict[str, list[float]]:
    """`backbone.scaling` in one form: "keras", "raw255", or mean and scale as lists of floats.

    Raises:
        UserError: anything else, a scale of 0, or "keras" for a network that has none of its own.
    """
    scaling, given = cfg.scaling, f"backbone.scaling={cfg.scaling}"
    if scaling == "keras" and cfg.kind not in ("application", "vggface", "keras_hub"):
        raise UserError(
            f"{given}: only an application, vggface or a preset has its own; say raw255 or {{mean: m, scale: s}}"
        )
    if scaling in ("keras", "raw255"):
        return scaling
    if not isinstance(scaling, dict) or set(scaling) != {"mean", "scale"}:
        raise UserError(f"{given}: choose keras, raw255 or {{mean: m, scale: s}}")
    try:
        parsed = {key: np.asarray(scaling[key], float).reshape(-1).tolist() for key in ("mean", "scale")}
    except (TypeError, ValueError) as error:
        raise UserError(f"{given}: mean and scale are numbers, or a list with one number a channel") from error
    if any(len(values) not in (1, cfg.channels) for values in parsed.values()):
        raise UserError(f"{given}: one number, or one for each of the {cfg.channels} channels")
    if 0 in parsed["scale"]:
        raise UserError(f"{given}: the scale must not be 0")
    return parsed


def preprocess(pixels: Any, cfg: BackboneConfig, resizing: dict[str, Any] | None = None) -> Any:
    """Resized and scaled pixels, float32 [b, s, s, channels], of a uint8 Keras input [b, h, w] or [b, h, w, 3].

    Resizing is as backbone.interpolation says, unless these options of keras.layers.Resizing say otherwise, and comes
    before scaling, as in the system that this project began with.
    """
    from keras import layers

    size = (cfg.input_size, cfg.input_size)
    x = layers.Rescaling(1.0, name="as_float")(pixels)
    if len(pixels.shape) == 3:
        x = layers.Reshape((*pixels.shape[1:], 1), name="one_channel")(x)
    if tuple(x.shape[1:3]) != size:
        x = _resized(x, size, {**BILINEAR, "interpolation": cfg.interpolation, **(resizing or {})})
    return _scaled(_with_channels(x, cfg.channels), cfg)


def _resized(x: Any, size: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Pictures [b, h, w, c] at another size; options: of keras.layers.Resizing.

    All but a bilinear one is by matrices, which any resizing amounts to: OpenVINO has no other.
    """
    from keras import layers, ops

    if options == BILINEAR:
        return layers.Resizing(*size, **options, name="resize")(x)
    rows, columns = (
        np.asarray(ops.image.resize(np.eye(side, dtype="float32")[..., None], (to, side), **options))[..., 0]
        for side, to in zip(x.shape[1:3], size, strict=True)
    )
    planes = ops.transpose(x, (0, 3, 1, 2))
    return ops.transpose(ops.matmul(ops.matmul(rows, planes), columns.T), (0, 2, 3, 1))


def _with_channels(x: Any, channels: int) -> Any:
    from keras import layers

    if channels not in (1, 3):
        raise UserError(f"backbone.channels={channels}: must be 1 (gray) or 3 (RGB)")
    if x.shape[-1] == 1 and channels == 3:
        return layers.Concatenate(name="gray_to_rgb")([x, x, x])
    return x


def _scaled(x: Any, cfg: BackboneConfig) -> Any:
    from keras import layers, ops

    scaling = parse_scaling(cfg)
    if scaling == "raw255":
        return x
    if isinstance(scaling, dict):
        scale = 1 / np.array(scaling["scale"])
        offset = -np.array(scaling["mean"]) * scale
    else:
        order, scale, offset = own_scaling(cfg)
        if order != sorted(order):
            x = ops.take(x, order, axis=-1)
    if np.all(scale == 1) and np.all(offset == 0):
        return x
    return layers.Rescaling(scale.tolist(), offset.tolist(), name="scaling")(x)


def own_scaling(cfg: BackboneConfig) -> tuple[list[int], np.ndarray, np.ndarray]:
    """A network's own preprocessing as (order, scale, offset): y[c] = x[order[c]] * scale[c] + offset[c].

    Raises:
        UserError: one that is not of that form, or not for the channels of the config.
    """
    if cfg.kind == "vggface":
        from fer_experiments.backbones.vggface import MEANS

        order, scale, offset = np.array([2, 1, 0]), np.ones(3, "float32"), -np.array(MEANS)
    else:
        order, scale, offset = _application_scaling(cfg)
    if cfg.channels == 3:
        return order.tolist(), scale, offset
    if np.ptp(scale) > 1e-6 or np.ptp(offset) > 1e-6:
        raise UserError(f"backbone.channels=1: {cfg.name} scales each channel its own way; say backbone.scaling=raw255")
    return [0], scale[:1], offset[:1]


def _application_scaling(cfg: BackboneConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An application's preprocess_input, as `own_scaling` gives it.

    Found by asking it about black and about each pure channel, so that no application needs code of its own.
    """
    import keras

    module = sys.modules[getattr(keras.applications, cfg.architecture or "").__module__]

    def ask(colour: np.ndarray) -> np.ndarray:
        image = np.broadcast_to(colour, (1, 2, 2, 3)).astype(float)  # a copy: preprocess_input writes into its input
        return np.asarray(module.preprocess_input(image), float)[0, 0, 0]

    offset = ask(np.zeros(3))
    matrix = np.stack([(ask(255 * pure) - offset) / 255 for pure in np.eye(3)], axis=1)
    order = np.abs(matrix).argmax(axis=1)
    scale = matrix[np.arange(3), order].astype("float32")
    colour = np.array([31.0, 200.0, 101.0])
    if not np.allclose(colour[order] * scale + offset, ask(colour), rtol=1e-4, atol=1e-4):
        raise UserError(f"backbone.scaling=keras: {cfg.architecture} does more than scale; say {{mean: m, scale: s}}")
    return order, scale, offset
