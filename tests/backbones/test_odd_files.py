"""Files of backbones that are damaged, or cannot be cut where they are to be."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from fer_experiments.backbones.networks import load_backbone
from fer_experiments.backbones.weights import weights_file
from fer_experiments.config import BackboneConfig
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError

POCKET = compose(["data=demo", "backbone=pocket"]).backbone


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "an array"])
def test_damaged_weights_of_a_pocket_network_are_a_line(tmp_path: Path, damage: str):
    whole = weights_file(POCKET)
    assert whole is not None
    content, path = bytearray(whole.read_bytes()), tmp_path / "mine.npz"
    half = len(content) // 2
    if damage == "an array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        content[half : half + 50] = bytes(50)
        path.write_bytes({"cut": content[:half], "changed": content, "empty": b""}[damage])
    with pytest.raises(UserError, match=re.escape(f"backbone.weights={path}: not the weights of a pocket backbone: ")):
        load_backbone(replace(POCKET, weights=str(path)), (48, 48))


def file_of(path: Path, model: keras.Model, *layers: str) -> BackboneConfig:
    model.save(path)
    return BackboneConfig(
        name="mine", kind="keras_file", weights=str(path), input_size=12, channels=3, layers=list(layers),
        pooling="avg", scaling={"mean": 0, "scale": 1},
    )  # fmt: skip


def test_a_cut_behind_a_network_within_one_is_refused_in_a_line(tmp_path: Path):
    pixels, its = keras.Input((12, 12, 3)), keras.Input((12, 12, 3))
    inner = keras.Model(its, keras.layers.Conv2D(4, 3)(its), name="inner")
    outer = keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(inner(pixels))))
    with pytest.raises(UserError, match=r"^backbone\.layers=\['inner'\]: mine cannot be cut there \(.*another layer"):
        load_backbone(file_of(tmp_path / "mine.keras", outer, "inner"), (12, 12))


def test_a_network_with_two_outputs_of_one_name_is_refused_with_what_to_say(tmp_path: Path):
    pixels, twice = keras.Input((12, 12, 3)), keras.layers.Dense(3, name="twice")
    model = keras.Model(pixels, [twice(pixels), twice(keras.layers.ReLU()(pixels))])
    said = r"^backbone\.layers=\[\]: several outputs of mine are called the same \(twice, twice\); name the layers"
    with pytest.raises(UserError, match=said):
        load_backbone(file_of(tmp_path / "mine.keras", model), (12, 12))
