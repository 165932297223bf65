"""Presets of KerasHub as backbones: what they make of pixels, where they can be cut, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

pytest.importorskip("keras_hub", reason="KerasHub is not installed (the extra `hub`)")

import keras_hub
from tiny_presets import forget_keras_hub, preset, save_clip, save_dinov2, save_resnet, save_siglip, save_vit

from fer_experiments.backbones import hub
from fer_experiments.backbones.networks import backbone_fingerprint, load_backbone
from fer_experiments.backbones.upper import load_upper
from fer_experiments.backbones.weights import weights_told
from fer_experiments.config import BackboneConfig, FeaturesConfig
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.features.cache import extract_features

RGB = np.random.default_rng(1).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
GRAY = np.random.default_rng(0).integers(0, 256, (20, 20, 20), dtype=np.uint8)
SMOOTH = {"interpolation": "bicubic", "antialias": True}


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("presets")
    return {
        "vit": save_vit(folder / "vit"),
        "dinov2": save_dinov2(folder / "dinov2", **SMOOTH),
        "clip": save_clip(folder / "clip"),
        "siglip": save_siglip(folder / "siglip", **SMOOTH),
        "resnet": save_resnet(folder / "resnet"),
    }


@pytest.fixture
def vit(presets: dict[str, Path]) -> BackboneConfig:
    return preset(presets["vit"])


def features_of(cfg: BackboneConfig, images: np.ndarray = RGB) -> list[np.ndarray]:
    model = load_backbone(cfg, images.shape[1:]).model
    return [np.asarray(x) for x in keras.tree.flatten(model(images, training=False))]


def of_keras_hub(folder: Path) -> tuple[keras.Model, np.ndarray]:
    """Its network of pictures, and what its own converter makes of RGB."""
    whole = keras_hub.models.Backbone.from_preset(str(folder))
    converter = keras_hub.layers.ImageConverter.from_preset(str(folder), _allow_python_workflow=True)
    return getattr(whole, "vision_encoder", whole), np.asarray(converter(RGB.astype("float32")))


@pytest.mark.parametrize("name", ["vit", "dinov2", "clip", "siglip", "resnet"])
def test_features_are_what_keras_hub_makes_of_the_same_pictures(presets: dict[str, Path], name: str) -> None:
    network, given = of_keras_hub(presets[name])
    want = np.asarray(network(given))
    (got,) = features_of(preset(presets[name]))
    assert got.shape == want.shape and np.ptp(want) > 0.5
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_blocks_inside_an_encoder_can_be_cut_at(presets: dict[str, Path]) -> None:
    network, given = of_keras_hub(presets["dinov2"])
    want = keras.Model(network.inputs, network.pyramid_outputs)(given)
    first, second = features_of(preset(presets["dinov2"], layers=["layers_0", "layers_1"]))
    np.testing.assert_allclose(first, want["stage1"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(second, want["stage2"], rtol=1e-3, atol=1e-3)
    assert np.abs(first - second).max() > 0.5
    network, given = of_keras_hub(presets["vit"])
    want = network.get_layer("vit_encoder").encoder_layers[0](network.get_layer("vit_patching_and_embedding")(given))
    (block,) = features_of(preset(presets["vit"], layers=["transformer_block_1"]))
    np.testing.assert_allclose(block, want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "layer"), [("clip", "encoder_block_0"), ("siglip", "post_layer_norm")])
def test_layers_are_named_without_the_name_of_their_network(presets: dict[str, Path], name: str, layer: str) -> None:
    network, given = of_keras_hub(presets[name])
    want = keras.Model(network.inputs, network.get_layer(f"{network.name}_{layer}").output)(given)
    np.testing.assert_allclose(features_of(preset(presets[name], layers=[layer]))[0], want, rtol=1e-3, atol=1e-3)


def test_tokens_are_pooled_or_kept(presets: dict[str, Path]) -> None:
    cfg = preset(presets["dinov2"])
    (tokens,) = features_of(cfg)
    assert tokens.shape == (3, 1 + 2 + 16, 16)  # the class token, the registers, the patches
    patches = tokens[:, 3:]
    want = {
        "cls": tokens[:, 0],
        "avg": patches.mean(1),
        "max": patches.max(1),
        "map": patches.reshape(3, 4, 4, 16),
    }
    for pooling, pooled in want.items():
        np.testing.assert_allclose(features_of(replace(cfg, pooling=pooling))[0], pooled, atol=1e-5)
    (patches_alone,) = features_of(preset(presets["siglip"], layers=["post_layer_norm"], pooling="map"))
    assert patches_alone.shape == (3, 4, 4, 16)


def test_a_map_is_pooled_as_that_of_any_backbone(presets: dict[str, Path]) -> None:
    (own,) = features_of(preset(presets["resnet"]))
    (average,) = features_of(preset(presets["resnet"], pooling="avg"))
    np.testing.assert_allclose(average, own.mean((1, 2)), rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match=r"pooling=cls: tiny gives no tokens there"):
        load_backbone(preset(presets["resnet"], pooling="cls"), (20, 20))


def test_another_input_size_and_scaling_where_the_preset_takes_them(presets: dict[str, Path]) -> None:
    assert features_of(preset(presets["dinov2"], input_size=48, pooling="map"))[0].shape == (3, 6, 6, 16)
    assert features_of(preset(presets["resnet"], input_size=48))[0].shape == (3, 6, 6, 64)
    own = features_of(preset(presets["vit"]))[0]
    assert np.abs(features_of(preset(presets["vit"], scaling="raw255"))[0] - own).max() > 0.1
    same = {"mean": [120.0, 125.0, 120.0], "scale": [60.0, 50.0, 40.0]}
    np.testing.assert_allclose(features_of(preset(presets["vit"], scaling=same))[0], own, rtol=1e-3, atol=1e-3)


def test_layers_above_a_cut_are_those_of_the_whole_and_mixed_precision_is_near(vit: BackboneConfig) -> None:
    cut = replace(vit, layers=["transformer_block_1"])
    (below,), (whole,) = features_of(cut), features_of(vit)
    np.testing.assert_allclose(load_upper(cut)(below), whole, rtol=1e-4, atol=1e-4)
    rough = np.asarray(load_backbone(vit, RGB.shape[1:], "mixed_bfloat16").model(RGB), "float32")
    assert 0 < np.abs(rough - whole).mean() < 0.1


def test_random_weights_follow_the_seed(vit: BackboneConfig) -> None:
    bare = replace(vit, weights=None)
    np.testing.assert_array_equal(*(features_of(bare)[0] for _ in range(2)))
    assert np.abs(features_of(replace(bare, seed=1))[0] - features_of(bare)[0]).max() > 0.1


def test_files_that_decide_the_features_change_the_fingerprint(vit: BackboneConfig, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(str(vit.preset), tmp_path / "copy"))
    same, bare = preset(copy), preset(copy, weights=None)
    assert backbone_fingerprint(same) == backbone_fingerprint(vit)
    before = backbone_fingerprint(same), backbone_fingerprint(bare)
    (copy / "metadata.json").write_text("{}")  # when it was saved, and by whom
    assert before == (backbone_fingerprint(same), backbone_fingerprint(bare))
    content = bytearray((copy / "model.weights.h5").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "model.weights.h5").write_bytes(content)
    assert backbone_fingerprint(same) != before[0] and backbone_fingerprint(bare) == before[1]
    said = json.loads((copy / "image_converter.json").read_text())
    said["config"]["interpolation"] = "nearest"
    (copy / "image_converter.json").write_text(json.dumps(said))
    assert backbone_fingerprint(bare) != before[1]
    changes: list[dict[str, Any]] = [{"pooling": "cls"}, {"input_size": 48}, {"scaling": "raw255"}, {"seed": 1}]
    found = {backbone_fingerprint(replace(bare, **change)) for change in [{}, *changes]}
    assert len(found) == len(changes) + 1


@pytest.mark.parametrize("engine", ["jax"] if keras.backend.backend() == "jax" else ["openvino", "tensorflow"])
@pytest.mark.parametrize("name", ["vit", "clip"])
def test_every_engine_gives_what_keras_gives(presets: dict[str, Path], tmp_path: Path, name: str, engine: str) -> None:
    cfg = preset(presets[name], layers=["encoder_block_0" if name == "clip" else "transformer_block_1"], pooling="map")
    how = FeaturesConfig(engine=engine, precision="float32", dtype="float32")
    stored = extract_features(GRAY, "images", cfg, how, tmp_path, echo=lambda line: None)
    np.testing.assert_allclose(stored.take(np.arange(20))[0], features_of(cfg, GRAY)[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("vit", {"layers": ["transformer_blok_1"]}, "no layer transformer_blok_1; did you mean transformer_block_"),
        ("vit", {"input_size": 48}, r"backbone.input_size=48 and .*: tiny takes 32x32x3"),
        ("dinov2", {"input_size": 50}, r"backbone.input_size=50: tiny has patches of 8 pixels; say a multiple"),
        ("vit", {"preset": "no/such"}, "backbone.preset=no/such: no such folder in"),
        (
            "vit",
            {"preset": "vit_base_patch16_224"},
            r"no preset of KerasHub [\d.]+; did you mean .*vit_base_patch16_224_",
        ),
        ("vit", {"preset": "gs://a/b"}, "only kaggle:// and hf:// are downloaded; put its files into a folder and say"),
        ("siglip", {"pooling": "cls", "layers": ["post_layer_norm"]}, "tiny has no class token; say avg, max, map or"),
        ("siglip", {"pooling": "map"}, "pooling=map: tiny gives no tokens there"),
        ("clip", {"channels": 1}, "tiny takes 32x32x3"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_with_the_remedy(
    presets: dict[str, Path], name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_backbone(preset(presets[name], **changes), (48, 48))
    assert "\n" not in str(caught.value)


def test_a_preset_that_is_not_whole_is_refused(vit: BackboneConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no preset; there is no config\.json in it"):
        backbone_fingerprint(preset(tmp_path))
    copy = Path(shutil.copytree(str(vit.preset), tmp_path / "copy"))
    (copy / "image_converter.json").unlink()
    with pytest.raises(UserError, match=r"has no preprocessing of its own .*; say backbone\.scaling="):
        load_backbone(preset(copy), (20, 20))
    load_backbone(preset(copy, scaling="raw255"), (20, 20))
    (copy / "model.weights.h5").write_bytes(b"damaged")
    with pytest.raises(
        UserError, match=r"backbone\.preset=.*copy: cannot be loaded: .*; if it is whole, take a"
    ) as caught:
        load_backbone(preset(copy, scaling="raw255"), (20, 20))
    assert "\n" not in str(caught.value)


def test_a_preset_that_cannot_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import kagglehub

    def lost(handle: str) -> str:
        raise ConnectionError(f"no route to {handle}\nand so on")

    monkeypatch.setattr(kagglehub, "model_download", lost)
    message = (
        r"^backbone.preset=dinov2_base: cannot get kaggle://keras/dinov2/.* \(no route to keras/.*\); put its files"
    )
    with pytest.raises(UserError, match=message) as caught:
        backbone_fingerprint(preset(Path("dinov2_base")))
    assert "\n" not in str(caught.value)


def test_a_preset_by_its_name_is_the_folder_that_was_downloaded(
    vit: BackboneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kagglehub

    asked: list[str] = []
    monkeypatch.setattr(kagglehub, "model_download", lambda handle: asked.append(handle) or vit.preset)
    named = preset(Path("vit_base_patch16_224_imagenet"))
    assert hub.preset_folder(named) == Path(str(vit.preset))
    assert backbone_fingerprint(named) == backbone_fingerprint(vit)
    assert len(asked) == 1, "which version it is, is asked once a process"


def test_layers_that_say_something_else_one_by_one_are_refused(
    presets: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from keras_hub.src.models.clip.clip_layers import CLIPEncoderLayer

    said = CLIPEncoderLayer.get_config
    monkeypatch.setattr(
        CLIPEncoderLayer, "get_config", lambda layer: {**said(layer), "intermediate_activation": "relu"}
    )
    with pytest.raises(
        UserError, match=r"its layers, one by one, give other features than .*; take a preset"
    ) as caught:
        load_backbone(preset(presets["clip"]), RGB.shape[1:])
    assert "\n" not in str(caught.value)


def test_layers_that_do_not_keep_what_they_were_made_with_are_refused() -> None:
    from fer_experiments.backbones.hub_layers import laid_open

    stage = {"layerwise_depths": [1], "layerwise_num_heads": [1], "layerwise_sr_ratios": [2], "hidden_dims": [8]}
    stem = {"layerwise_patch_sizes": [7], "layerwise_strides": [4], "num_layers": 1, "max_drop_path_rate": 0.1}
    network = keras_hub.models.MiTBackbone(**stage, **stem, image_shape=(32, 32, 3))
    with pytest.raises(ValueError, match=r"HierarchicalTransformerEncoder does not keep its sr_ratio, drop_prob"):
        laid_open(network)


def test_weights_are_told_without_the_place_of_their_folder(vit: BackboneConfig) -> None:
    folder = Path(str(vit.preset))
    assert folder.is_absolute() and weights_told(vit) == f"weights {folder.name}, under their own terms"
    assert weights_told(replace(vit, preset="hf://a/b")) == "weights hf://a/b, under their own terms"
    assert weights_told(replace(vit, weights=None)) == "random weights"


def test_keras_hub_that_cannot_be_imported_is_one_line(vit: BackboneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_keras_hub(monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as an import finds what is not installed
    with pytest.raises(
        UserError, match=r"KerasHub cannot be imported \(.*\); it takes TensorFlow.*: pip install"
    ) as caught:
        load_backbone(vit, RGB.shape[1:])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=vit_base", "backbone.preset=null"], "backbone.preset=null: say a name, a folder or an address"),
        (["backbone=vit_base", "backbone.weights=imagenet"], "backbone.weights=imagenet: say preset, for its own, or"),
        (["backbone=vit_base", "backbone.interpolation=bicubic"], "interpolation=bicubic: a preset has its own; leave"),
        (["backbone=pocket", "backbone.preset=a"], "backbone.preset=a: is a key of backbone.kind=keras_hub"),
        (["backbone=pocket", "backbone.input_size=null"], "backbone.input_size=null: only a preset of KerasHub has"),
        (["backbone=pocket", "backbone.pooling=map"], "backbone.pooling=map: is for tokens, of backbone.kind=keras_hu"),
        (["backbone=vit_base", "head=conv", "backbone.pooling=cls"], "a spatial map: set backbone.pooling=map, or"),
    ],
)
def test_what_contradicts_itself_is_said_before_anything_is_loaded(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose(overrides)
