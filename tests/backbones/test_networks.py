"""Backbones: their fingerprints, what they refuse, and the features that they give."""

from __future__ import annotations

import os
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from application_configs import MOBILE, SHIPPED
from keras import layers

from fer_experiments.backbones import weights
from fer_experiments.backbones.copies import in_precision
from fer_experiments.backbones.networks import backbone_fingerprint, load_backbone
from fer_experiments.backbones.preprocessing import preprocess
from fer_experiments.config import BackboneConfig, config_dir
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError

GRAY = np.random.default_rng(0).integers(0, 256, (3, 20, 20), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)


def save_trunk(path: Path, *, size: int | None = 16, dtype: str = "float32") -> Path:
    """A .keras file with two layers to cut at, `first` [8, 8, 4] and `second` [4, 4, 6]."""
    pixels = keras.Input((size, size, 3), dtype=dtype)
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="first", dtype=dtype)(pixels)
    x = layers.Conv2D(6, 3, strides=2, padding="same", name="second", dtype=dtype)(x)
    keras.Model(pixels, x).save(path)
    return path


@pytest.fixture(scope="module")
def trunk_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_trunk(tmp_path_factory.mktemp("trunk") / "trunk.keras")


@pytest.fixture
def from_file(trunk_file: Path) -> BackboneConfig:
    return BackboneConfig(
        name="small", kind="keras_file", weights=str(trunk_file), input_size=16, scaling={"mean": 127.5, "scale": 128}
    )


def features_of(cfg: BackboneConfig, images: np.ndarray) -> list[np.ndarray]:
    model = load_backbone(cfg, images.shape[1:]).model
    return [np.asarray(x) for x in keras.tree.flatten(model(images, training=False))]


@pytest.mark.parametrize("name", sorted(path.stem for path in (config_dir() / "backbone").glob("*.yaml")))
def test_every_shipped_backbone_composes_under_its_own_name(name: str) -> None:
    assert compose([f"backbone={name}"]).backbone.name == name


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "ResNet50"},
        {"seed": 1},
        {"layers": ["out_relu"]},
        {"input_size": 48},
        {"channels": 1},
        {"scaling": "raw255"},
        {"scaling": {"mean": 0, "scale": 255}},
        {"pooling": "avg"},
        {"interpolation": "bicubic"},
    ],
    ids=str,
)
def test_whatever_decides_the_features_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert backbone_fingerprint(replace(MOBILE, **change)) != backbone_fingerprint(MOBILE)


def test_what_does_not_touch_the_features_leaves_the_fingerprint() -> None:
    assert backbone_fingerprint(replace(MOBILE, name="other", seen=["x/y"])) == backbone_fingerprint(MOBILE)
    one, other = ({"mean": mean, "scale": 128} for mean in (127, [127.0]))
    assert backbone_fingerprint(replace(MOBILE, scaling=one)) == backbone_fingerprint(replace(MOBILE, scaling=other))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="random weights are those of a backend")
def test_a_fingerprint_is_that_of_earlier_versions() -> None:
    assert backbone_fingerprint(MOBILE) == "122b4bc0409803f94c6d0b0b92ac8688feca65392f7c4660d4b6cc1defecac01"


def test_one_changed_byte_of_the_weights_changes_the_fingerprint(from_file: BackboneConfig, tmp_path: Path) -> None:
    content = bytearray(Path(str(from_file.weights)).read_bytes())
    same, other = tmp_path / "same.keras", tmp_path / "other.keras"
    same.write_bytes(content)
    content[len(content) // 2] ^= 1
    other.write_bytes(content)
    assert backbone_fingerprint(replace(from_file, weights=str(same))) == backbone_fingerprint(from_file)
    assert backbone_fingerprint(replace(from_file, weights=str(other))) != backbone_fingerprint(from_file)


def test_weights_are_read_once_a_process_until_their_file_changes(
    from_file: BackboneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, content = tmp_path / "own.keras", bytearray(Path(str(from_file.weights)).read_bytes())
    own.write_bytes(content)
    cfg, read, digest = replace(from_file, weights=str(own)), [], weights.hashlib.file_digest
    monkeypatch.setattr(weights.hashlib, "file_digest", lambda *args: read.append(args) or digest(*args))
    first = [backbone_fingerprint(replace(cfg, input_size=size)) for size in (16, 32, 16)]
    assert first[0] == first[2] != first[1] and len(read) == 1
    times = own.stat().st_atime_ns, own.stat().st_mtime_ns
    content[len(content) // 2] ^= 1
    own.with_name("new").write_bytes(content)
    own.with_name("new").replace(own)
    os.utime(own, ns=times)  # of the same size and time, as a copy that keeps times may be
    assert backbone_fingerprint(cfg) != first[0] and len(read) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "MobilNetV2"}, "not in keras.applications; did you mean MobileNetV2"),
        ({"input_size": 31}, "backbone.input_size=31: MobileNetV2 takes 32 or more"),
        ({"architecture": "InceptionV3", "input_size": 74}, "InceptionV3 takes 75 or more"),
        ({"layers": ["out_rel"]}, "no layer out_rel; did you mean out_relu"),
        ({"scaling": "imagenet"}, "choose keras, raw255 or"),
        ({"scaling": {"mean": 1, "scale": 0}}, "must not be 0"),
        ({"scaling": {"mean": "x", "scale": 1}}, "are numbers"),
        ({"scaling": {"mean": [1, 2], "scale": 1}}, "each of the 3 channels"),
        ({"channels": 2, "scaling": "raw255"}, "must be 1"),
        ({"weights": "no/such.h5"}, "backbone.weights=no/such.h5: no such file"),
        ({"kind": "keras_file", "scaling": "keras", "weights": "x.keras"}, "no such file"),
        ({"kind": "keras_file", "weights": None}, "say backbone.weights=<file>.keras"),
        ({"kind": "pocket", "weights": None}, "say backbone.weights=embedded"),
    ],
    ids=str,
)
def test_a_mistake_in_the_config_is_one_line_with_the_remedy(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_backbone(replace(MOBILE, **change), (48, 48))
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture_are_refused(tmp_path: Path, from_file: BackboneConfig) -> None:
    file = tmp_path / "other.weights.h5"
    keras.models.load_model(str(from_file.weights)).save_weights(file)
    with pytest.raises(UserError, match=r"other\.weights\.h5: not weights of MobileNetV2") as caught:
        load_backbone(replace(MOBILE, weights=str(file)), (48, 48))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_model_and_an_input_that_does_not_fit_are_refused(
    tmp_path: Path, from_file: BackboneConfig
) -> None:
    damaged = tmp_path / "damaged.keras"
    damaged.write_bytes(Path(str(from_file.weights)).read_bytes()[:500])
    with pytest.raises(UserError, match=r"not a \.keras file that can be loaded"):
        load_backbone(replace(from_file, weights=str(damaged)), (48, 48))
    with pytest.raises(UserError, match="small takes 16x16x3"):
        load_backbone(replace(from_file, channels=1), (48, 48))
    with pytest.raises(UserError, match="only an application, vggface or a preset has its own"):
        load_backbone(replace(from_file, scaling="keras"), (48, 48))


def test_a_file_takes_any_size_that_its_weights_do_not_depend_on(tmp_path: Path, from_file: BackboneConfig) -> None:
    larger = replace(from_file, input_size=24, layers=["first", "second"])
    kernels = keras.models.load_model(str(from_file.weights)).get_weights()
    made_so = keras.models.load_model(save_trunk(tmp_path / "made_so.keras", size=24))
    made_so.set_weights(kernels)
    made_so.save(tmp_path / "made_so.keras")
    expected = features_of(replace(larger, weights=str(tmp_path / "made_so.keras")), GRAY)
    for got, wanted in zip(features_of(larger, GRAY), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)

    trunk = keras.models.load_model(str(from_file.weights))
    flat = layers.Dense(2, name="flat")(layers.Flatten()(trunk.output))
    keras.Model(trunk.input, flat).save(tmp_path / "flat.keras")
    at_the_end = replace(larger, weights=str(tmp_path / "flat.keras"), layers=["flat"])
    with pytest.raises(
        UserError, match=r"input_size=24 and .*: small takes 16x16x3 .*, and cannot be rebuilt for that: ."
    ) as no:
        load_backbone(at_the_end, (48, 48))
    assert "\n" not in str(no.value)
    assert features_of(replace(at_the_end, layers=["second"]), GRAY)[0].shape == (3, 6, 6, 6)


@pytest.mark.parametrize("name", [*SHIPPED, "VGG16", "DenseNet121"])
def test_scaling_in_the_graph_is_the_applications_own(name: str) -> None:
    cfg = replace(MOBILE, architecture=name, input_size=20)
    pixels = keras.Input((20, 20, 3), dtype="uint8")
    ours = np.asarray(keras.Model(pixels, preprocess(pixels, cfg))(RGB))
    module = sys.modules[getattr(keras.applications, name).__module__]
    np.testing.assert_allclose(ours, module.preprocess_input(RGB.astype("float32")), rtol=1e-5, atol=1e-4)


def test_bicubic_resizing_is_keras_own_on_real_faces_and_survives_saving(faces: np.ndarray, tmp_path: Path) -> None:
    cfg = replace(MOBILE, input_size=139, channels=1, interpolation="bicubic", scaling="raw255")
    pixels = keras.Input(faces.shape[1:], dtype="uint8")
    model = keras.Model(pixels, preprocess(pixels, cfg))
    theirs = keras.layers.Resizing(139, 139, interpolation="bicubic")(faces[..., None].astype("float32"))
    np.testing.assert_allclose(model(faces), theirs, atol=1e-3)
    assert np.abs(model(faces) - preprocess(faces, replace(cfg, interpolation="bilinear"))).max() > 10
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(faces), model(faces))


def test_facenet_is_given_what_its_weights_were_trained_on() -> None:
    facenet = compose(["backbone=facenet"]).backbone
    for gray in (0, 255):
        given = np.asarray(preprocess(np.full((1, 48, 48), gray, "uint8"), facenet))
        assert given.shape == (1, 160, 160, 3)
        np.testing.assert_allclose(given, (gray - 127.5) / 128, rtol=1e-6)


@pytest.mark.parametrize(("images", "channels"), [(GRAY, 3), (GRAY, 1), (RGB, 3)])
def test_preprocessing_survives_being_saved(images: np.ndarray, channels: int, tmp_path: Path) -> None:
    scaling = "keras" if channels == 3 else {"mean": 127.5, "scale": 128}
    cfg = replace(MOBILE, architecture="ResNet50", channels=channels, input_size=32, scaling=scaling)
    pixels = keras.Input(images.shape[1:], dtype="uint8")
    model = keras.Model(pixels, preprocess(pixels, cfg))
    assert model(images).shape == (3, 32, 32, channels)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(images), model(images))


def test_random_weights_follow_the_seed_and_leave_the_global_one_alone() -> None:
    before = random.getstate()
    first, again = (features_of(MOBILE, GRAY)[0] for _ in range(2))
    other = features_of(replace(MOBILE, seed=1), GRAY)[0]
    assert random.getstate() == before
    np.testing.assert_array_equal(first, again)
    assert np.linalg.norm(first - other) > 0.1 * np.linalg.norm(first)  # relative: random MobileNetV2 gives 1e-12


def test_features_come_from_each_cut_layer_pooled_or_not(from_file: BackboneConfig) -> None:
    both = replace(from_file, layers=["second", "first"])
    second, first = features_of(both, GRAY)
    assert (second.shape, first.shape) == ((3, 4, 4, 6), (3, 8, 8, 4))
    assert load_backbone(both, (20, 20)).layers == ("second", "first")
    average = features_of(replace(both, pooling="avg"), GRAY)
    largest = features_of(replace(both, pooling="max"), GRAY)
    np.testing.assert_allclose(average[0], second.mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(largest[1], first.max((1, 2)), atol=1e-5)
    np.testing.assert_allclose(features_of(from_file, GRAY)[0], second)  # no cut layer: the network's output


def test_a_model_stored_in_float16_computes_in_float32(from_file: BackboneConfig, tmp_path: Path) -> None:
    half = save_trunk(tmp_path / "half.keras", dtype="float16")
    backbone = load_backbone(replace(from_file, weights=str(half)), (20, 20))
    assert {str(weight.dtype) for weight in backbone.model.weights} == {"float32"}
    stored = keras.models.load_model(half).get_weights()
    for ours, theirs in zip(backbone.model.get_weights(), stored, strict=True):
        np.testing.assert_array_equal(ours, theirs.astype("float32"))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_that_computed_in_less_than_float32_computes_in_it(
    policy: str, from_file: BackboneConfig, tmp_path: Path
) -> None:
    saved = keras.models.load_model(str(from_file.weights))
    mixed = in_precision(saved, policy)
    assert {layer.compute_dtype for layer in mixed.layers} > {policy.removeprefix("mixed_")}
    mixed.save(tmp_path / "mixed.keras")
    backbone = load_backbone(replace(from_file, weights=str(tmp_path / "mixed.keras")), (20, 20))
    assert {layer.compute_dtype for layer in backbone.trunk.layers} == {"float32"}
    for got, wanted in zip(backbone.model(GRAY), load_backbone(from_file, (20, 20)).model(GRAY), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("size", [16, 24])
def test_what_a_normalization_has_learned_is_in_every_copy(
    size: int, from_file: BackboneConfig, tmp_path: Path
) -> None:
    pixels = keras.Input((16, 16, 3))
    adapted = layers.Normalization()
    adapted.adapt(RGB.astype("float32"))
    trunk = keras.Model(pixels, layers.Conv2D(4, 3, strides=2, padding="same")(adapted(pixels)))
    trunk.save(tmp_path / "adapted.keras")
    cfg = replace(from_file, weights=str(tmp_path / "adapted.keras"), scaling="raw255", input_size=size)
    inputs = keras.Input((size, size, 3), dtype="uint8")
    wanted = trunk.layers[2](trunk.layers[1](preprocess(inputs, cfg)))
    wanted = np.asarray(keras.Model(inputs, wanted)(np.resize(RGB, (2, size, size, 3))))
    for precision, tolerance in (("float32", 1e-6), ("mixed_bfloat16", 2e-2)):
        model = load_backbone(cfg, (size, size, 3), precision).model
        got = np.asarray(model(np.resize(RGB, (2, size, size, 3))), "float32")
        np.testing.assert_allclose(got, wanted, atol=tolerance * np.abs(wanted).max())
