"""A backbone of two convolutions."""

from __future__ import annotations

import keras
import pytest
from keras import layers
from test_cache import backbone_of

from fer_experiments.config import BackboneConfig


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> BackboneConfig:
    keras.utils.set_random_seed(0)
    pixels = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="first")(pixels)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(6, 3, strides=2, padding="same", name="second")(x)
    path = tmp_path_factory.mktemp("trunk") / "trunk.keras"
    keras.Model(pixels, x).save(path)
    return backbone_of(path)
