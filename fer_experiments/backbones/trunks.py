"""Whole networks by `backbone.kind`, with their weights: from scaled float32 pixels to their output."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fer_experiments.backbones.copies import in_precision, is_exact
from fer_experiments.backbones.hub_layers import mended
from fer_experiments.backbones.weights import how_to_go_on, impatient, obtain_weights, public_weights, weights_file
from fer_experiments.config import BackboneConfig, close
from fer_experiments.errors import UserError, first_line

if TYPE_CHECKING:
    import keras


def load_trunk(cfg: BackboneConfig) -> keras.Model:
    """The whole network, from scaled float32 pixels [b, s, s, channels]."""
    if cfg.kind == "application":
        return _application(cfg)
    path = obtain_weights(cfg)
    if cfg.kind == "vggface":
        return _vggface(cfg, path)
    assert path is not None
    return _pocket(path) if cfg.kind == "pocket" else _from_file(path)


def _pocket(path: Path) -> keras.Model:
    from fer_experiments.backbones import pocket

    try:
        return pocket.load_trunk(path)
    except Exception as error:  # what NumPy makes of a damaged file: an error of the zip, its compression, its headers
        raise UserError(
            f"backbone.weights={path}: not the weights of a pocket backbone: {first_line(error, 200)}"
        ) from error


def _vggface(cfg: BackboneConfig, path: Path | None) -> keras.Model:
    from fer_experiments.backbones import vggface

    size = cfg.input_size or 0
    if size < vggface.LEAST:
        raise UserError(f"backbone.input_size={size}: {cfg.name} takes {vggface.LEAST} or more")
    with quiet_and_seeded(cfg.seed):
        network = vggface.build(size, cfg.channels)
    try:
        if path:
            vggface.read_weights(network, path)
    except Exception as error:
        raise UserError(
            f"backbone.weights={path}: not weights of VGGFace's ResNet-50 without its top, for {cfg.channels} "
            f"channels: {first_line(error, 200)}"
        ) from error
    return network


def _application(cfg: BackboneConfig) -> keras.Model:
    import keras

    name = cfg.architecture or ""
    build = getattr(keras.applications, name, None)
    if not callable(build):
        known = [n for n in dir(keras.applications) if n[0].isupper()]
        raise UserError(f"backbone.architecture={name}: not in keras.applications{close(name, known)}")
    shape = (cfg.input_size, cfg.input_size, cfg.channels)
    path = obtain_weights(cfg)
    weights = str(path) if path else cfg.weights
    try:
        with quiet_and_seeded(cfg.seed), impatient():
            return build(include_top=False, weights=weights, input_shape=shape)
    except Exception as error:  # Keras raises many kinds, some of them Exception itself
        raise _readable(error, cfg) from error


def _readable(error: Exception, cfg: BackboneConfig) -> Exception:
    """What Keras says of an application that cannot be built, as a line that names the key."""
    if found := re.search(r"at least (\d+)x\d+", str(error)):
        return UserError(f"backbone.input_size={cfg.input_size}: {cfg.architecture} takes {found[1]} or more")
    if cfg.weights == "imagenet" and public_weights(cfg) is None:
        return UserError(f"backbone.weights=imagenet: {first_line(error, 200)}; {how_to_go_on(cfg)}")
    if cfg.weights is not None:
        return UserError(
            f"backbone.weights={weights_file(cfg)}: not weights of {cfg.architecture} without its top, for "
            f"{cfg.channels} channels: {first_line(error, 200)}"
        )
    return error


def _from_file(path: Path) -> keras.Model:
    """The model in a .keras file, in float32 whatever it was stored and computed in."""
    import keras

    try:
        with quiet_and_seeded(0):
            model = mended(keras.models.load_model(path, compile=False))
            if not is_exact(model):
                model = in_precision(model, "float32")
    except Exception as error:  # a damaged file, a custom layer, a Lambda: each raises something else
        raise UserError(
            f"backbone.weights={path}: not a .keras file that can be loaded: {first_line(error, 200)}"
        ) from error
    return model


@contextmanager
def quiet_and_seeded(seed: int) -> Iterator[None]:
    """Draws the same weights each time, and leaves the global random state as it was.

    Keras takes the seed of an initialiser without one from Python's `random` (keras/src/random/seed_generator.py).
    Its warnings about weights that do not fit, hundreds, are said once by the error that follows.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(state)
