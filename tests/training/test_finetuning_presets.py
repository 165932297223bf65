"""Presets of KerasHub that are fine-tuned: what learns of them, and that what was scored is what is loaded again."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

pytest.importorskip("keras_hub", reason="KerasHub is not installed (the extra `hub`)")

from tiny_presets import preset, save_dinov2

from fer_experiments.backbones.networks import load_backbone
from fer_experiments.config import FinetuneConfig, TrainingConfig
from fer_experiments.training.finetuning import unfreeze

RGB = np.random.default_rng(1).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)


def test_a_dinov2_that_has_learned_is_loaded_as_it_was_scored(tmp_path: Path) -> None:
    backbone = load_backbone(preset(save_dinov2(tmp_path / "dinov2")), RGB.shape[1:])
    before = np.asarray(backbone.model(RGB))
    unfreeze(backbone.trunk, TrainingConfig(unfreeze="all", finetune=FinetuneConfig()))
    rng = np.random.default_rng(0)
    for variable in backbone.trunk.trainable_variables:  # as a step does
        variable.assign_add(0.1 * rng.standard_normal(variable.shape))
    scored = np.asarray(backbone.model(RGB))
    backbone.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert np.abs(scored - before).max() > 0.1
    np.testing.assert_allclose(loaded(RGB), scored, atol=1e-5)


@pytest.mark.parametrize("asked", [False, True])
def test_normalisations_inside_blocks_stay_as_they_are_unless_asked(asked: bool) -> None:
    from keras_hub.src.models.efficientnet.mbconv import MBConvBlock

    pixels = keras.Input((8, 8, 4))
    trunk = keras.Model(pixels, MBConvBlock(4, 4, name="block")(pixels))
    unfreeze(trunk, TrainingConfig(unfreeze="1", finetune=FinetuneConfig(batch_norm=asked)))
    inside = [x for x in trunk._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]
    assert len(inside) >= 2 and all(layer.trainable == asked for layer in inside)
    before = [np.asarray(layer.moving_mean) for layer in inside]
    trunk(np.random.default_rng(0).normal(3, 1, (4, 8, 8, 4)), training=True)
    moved = [not np.array_equal(layer.moving_mean, old) for layer, old in zip(inside, before, strict=True)]
    assert any(moved) == asked and trunk.trainable_variables
