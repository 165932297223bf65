"""Presets of KerasHub: what is in their folders, and their networks of images with the preprocessing that is theirs.

Imports nothing heavy: that KerasHub or a preset is missing is said before anything is loaded.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments.backbones.hub_layers import check_same, laid_open
from fer_experiments.config import BackboneConfig, close, project_root
from fer_experiments.config.commands import is_checkout
from fer_experiments.config.folders import expanded
from fer_experiments.errors import UserError, first_line

if TYPE_CHECKING:
    import keras

PREPROCESSING = ("config.json", "image_converter.json", "preprocessor*.json")  # and the architecture
WEIGHTS = "model*"  # in one file or several, of KerasHub or of Transformers


def is_installed() -> bool:
    """Whether the extra is there."""
    return find_spec("keras_hub") is not None


def how_to_install() -> str:
    """The end of the message for an extra that is missing."""
    return "`make setup` installs it" if is_checkout() else "pip install 'fer-experiments[hub]'"


def keras_hub() -> Any:
    """KerasHub, imported.

    Raises:
        UserError: it is not installed, or lacks what it needs.
    """
    if not is_installed():
        raise UserError(f"backbone.kind=keras_hub: KerasHub is not installed; {how_to_install()}")
    try:
        import keras_hub
    except ImportError as error:
        raise UserError(
            f"backbone.kind=keras_hub: KerasHub cannot be imported ({first_line(error, 200)}); it takes "
            "TensorFlow, under JAX too: pip install tensorflow"
        ) from error
    return keras_hub


def preset_folder(cfg: BackboneConfig) -> Path:
    """The folder of a preset; one that is no folder here is downloaded, once.

    Raises:
        UserError: no KerasHub, no such preset, or no network.
    """
    if not is_installed():
        raise UserError(f"backbone.kind=keras_hub: KerasHub is not installed; {how_to_install()}")
    preset = cfg.preset or ""
    given = expanded(preset, "backbone.preset")
    for folder in () if "://" in preset else (project_root() / given, Path.cwd() / given):
        if (folder / "config.json").is_file():
            return folder.resolve()
        if folder.exists():
            raise UserError(f"backbone.preset={preset}: {folder} is no preset; there is no config.json in it")
    return _downloaded(preset)


def preset_files(cfg: BackboneConfig) -> list[Path]:
    """The files of a preset that decide its features, by name.

    Raises:
        UserError: what `preset_folder` raises.
    """
    folder = preset_folder(cfg)
    patterns = PREPROCESSING if cfg.weights is None else (*PREPROCESSING, WEIGHTS)
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def _downloaded(preset: str) -> Path:
    """The whole preset, from where its name or address says, in that place's own cache."""
    address = preset if "://" in preset else _address(preset)
    said = "only kaggle:// and hf:// are downloaded"
    if address.startswith(("kaggle://", "hf://")):
        try:
            return _fetched(address)
        except Exception as error:  # of whatever kind their clients raise
            said = f"cannot get {address} ({first_line(error, 200)})"
            if address.startswith("kaggle://") and not address.rsplit("/", 1)[-1].isdecimal():
                said += "; one that was got is found without network under its version, kaggle://.../<number>"
    raise UserError(
        f"backbone.preset={preset}: {said}; put its files into a folder and say backbone.preset=<folder>, or go on "
        "without: backbone=pocket"
    )


@cache
def _fetched(address: str) -> Path:
    """The folder of what is at an address; which version that is, is asked once a process."""
    place, _, handle = address.partition("://")
    if place == "kaggle":
        import kagglehub

        return Path(kagglehub.model_download(handle))
    import huggingface_hub

    return Path(huggingface_hub.snapshot_download(handle, allow_patterns=[*PREPROCESSING, WEIGHTS]))


def _address(name: str) -> str:
    """Where KerasHub keeps a preset of its own."""
    if Path(name).name != name:
        raise UserError(f"backbone.preset={name}: no such folder in {project_root()} or {Path.cwd()}")
    presets = keras_hub().models.Backbone.presets
    if name not in presets:
        here = version("keras-hub")
        raise UserError(f"backbone.preset={name}: no folder, and no preset of KerasHub {here}{close(name, presets)}")
    return str(presets[name]["kaggle_handle"])


def load_preset(cfg: BackboneConfig) -> tuple[keras.Model, BackboneConfig, dict[str, Any]]:
    """A preset's network of images, the config with the preset's own input size and scaling in it, and its resizing.

    The network goes from scaled float32 pixels [b, s, s, channels]; its weights are random where the config has none.
    Of one of pictures and texts it is the part for pictures. Resizing: options of keras.layers.Resizing.

    Raises:
        UserError: what `preset_folder` raises; files that cannot be loaded, a network of something else than images,
            no preprocessing where the config leaves it to the preset.
    """
    folder = str(preset_folder(cfg))
    try:
        network = _network(cfg, folder)
        pictures = getattr(network, "vision_encoder", network)
        trunk, converter = laid_open(pictures), _converter(folder)
    except UserError:
        raise
    except Exception as error:  # a damaged file, another library's layer: each raises something else
        raise UserError(
            f"backbone.preset={cfg.preset}: cannot be loaded: {first_line(error, 200)}; if it is whole, take a preset "
            "of another kind of network"
        ) from error
    shape = trunk.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise UserError(f"backbone.preset={cfg.preset}: {network.name} is not a network of images")
    resizing = {"interpolation": converter.interpolation, "antialias": converter.antialias} if converter else {}
    size = cfg.input_size or shape[1] or (converter.image_size[0] if converter and converter.image_size else None)
    if size is None:
        raise UserError(f"backbone.preset={cfg.preset}: has no input size of its own; say backbone.input_size=<pixels>")
    check_same(pictures, trunk, (2, shape[1] or size, shape[2] or size, shape[3] or cfg.channels), cfg)
    if cfg.scaling != "keras":
        return trunk, replace(cfg, input_size=size), resizing
    if converter is None:
        raise UserError(
            f"backbone.preset={cfg.preset}: has no preprocessing of its own (image_converter.json); say "
            "backbone.scaling={mean: m, scale: s}"
        )
    scaling = _scaling(converter, shape[3] or cfg.channels)  # what it does not take is said when it is cut
    return trunk, replace(cfg, input_size=size, scaling=scaling), resizing


def of_tokens(tokens: Any, cfg: BackboneConfig) -> Any:
    """Tokens [b, t, width] as backbone.pooling has them: `none` all of them, `cls` the first one [b, width].

    The others are of the patches alone, which form a square and come last: `avg` and `max` [b, width], `map`
    [b, side, side, width].

    Raises:
        UserError: a class token is asked for where there are patches alone.
    """
    from keras import layers, ops

    side = math.isqrt(tokens.shape[1])
    before = tokens.shape[1] - side**2
    if cfg.pooling == "cls":
        if not before:
            raise UserError(f"backbone.pooling=cls: {cfg.name} has no class token; say avg, max, map or none")
        return ops.take(tokens, 0, axis=1)
    # Taken by number, which says how many there are where a saved SigLIP is loaded: see `hub_layers`.
    first = 0 if cfg.pooling == "none" else before
    patches = ops.take(tokens, list(range(first, tokens.shape[1])), axis=1)
    if cfg.pooling == "none":
        return patches
    if cfg.pooling == "map":
        return layers.Reshape((side, side, tokens.shape[2]))(patches)
    return (layers.GlobalAveragePooling1D if cfg.pooling == "avg" else layers.GlobalMaxPooling1D)()(patches)


def _network(cfg: BackboneConfig, folder: str) -> keras.Model:
    """KerasHub's backbone, at the input size of the config where it takes one.

    Raises:
        UserError: a size that is no multiple of its patches, of which it would cut the rest.
    """
    load = keras_hub().models.Backbone.from_preset
    how = {"dtype": "float32", "load_weights": cfg.weights is not None}
    if cfg.input_size is not None:
        try:
            sized = load(folder, image_shape=(cfg.input_size, cfg.input_size, cfg.channels), **how)
        except Exception:  # one of pictures and texts, or of fixed positions: what it takes is said of it as it is
            return load(folder, **how)
        patch = getattr(sized, "patch_size", None)
        if isinstance(patch, int) and cfg.input_size % patch:
            raise UserError(
                f"backbone.input_size={cfg.input_size}: {cfg.name} has patches of {patch} pixels; say a multiple"
            )
        return sized
    return load(folder, **how)


def _converter(folder: str) -> Any:
    """The preset's image converter, or None."""
    try:
        # The flag: without it KerasHub up to 0.29 wants tensorflow-text, which is for texts.
        return keras_hub().layers.ImageConverter.from_preset(folder, _allow_python_workflow=True)
    except (FileNotFoundError, ValueError):
        return None


def _scaling(converter: Any, channels: int) -> dict[str, list[float]]:
    """x * scale + offset of a converter, as (x - mean) / scale."""
    factor, offset = (
        np.broadcast_to(np.asarray(default if value is None else value, float).reshape(-1), (channels,))
        for value, default in ((converter.scale, 1), (converter.offset, 0))
    )
    return {"mean": (-offset / factor).tolist(), "scale": (1 / factor).tolist()}
