from __future__ import annotations

import itertools
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from fer_experiments.backbones.networks import load_backbone
from fer_experiments.config import VIEWS, BackboneConfig, FeaturesConfig, HeadConfig
from fer_experiments.data.images import read_picture
from fer_experiments.errors import UserError
from fer_experiments.evaluation.calibration import tempered
from fer_experiments.features.cache import FeatureSet, extract_features
from fer_experiments.training.fit import feature_moments, predict
from fer_experiments.training.heads import build_head
from fer_experiments.training.whole import CHECKED, ROUGH, TOLERANCE, Agreement, assemble, compare

IMAGES = np.random.default_rng(0).integers(0, 256, (256, 12, 12), dtype=np.uint8)
CONV = HeadConfig(name="conv", filters=[8, 8], dense_widths=[8], dropout=0.4, l2=1e-4, normalize=True)
BOTH = ["original", "flip"]
POCKET = BackboneConfig(
    name="pocket",
    kind="pocket",
    weights="embedded",
    input_size=48,
    channels=1,
    scaling={"mean": 127.5, "scale": 127.5},
    layers=["stage3"],
)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> BackboneConfig:
    keras.utils.set_random_seed(0)
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="first")(pixels)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", name="second")(x)
    path = tmp_path_factory.mktemp("trunk") / "trunk.keras"
    keras.Model(pixels, x).save(path)
    scaling = {"mean": 127.5, "scale": 128}
    layers = ["second", "first"]
    return BackboneConfig(
        name="small", kind="keras_file", weights=str(path), input_size=16, layers=layers, scaling=scaling
    )


def stored(cache: Path, images: np.ndarray, backbone: BackboneConfig, views: list[str], **options: Any) -> FeatureSet:
    config = FeaturesConfig(views=views, batch_size=32, precision="float32", **options)
    return extract_features(images, "images", backbone, config, cache, echo=lambda line: None)


def head_for(
    features: FeatureSet, classes: int, config: HeadConfig = CONV, precision: str = "float32", seed: int = 0
) -> keras.Model:
    """A head that is sure of something: random weights on standardised features."""
    keras.utils.set_random_seed(seed)
    moments = feature_moments(features, np.arange(features.count)) if config.normalize else None
    head = build_head(config, features.shapes, classes, moments=moments, precision=precision)
    head.layers[-1].set_weights([15 * weight for weight in head.layers[-1].get_weights()])
    return head


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory, backbone: BackboneConfig) -> FeatureSet:
    return stored(tmp_path_factory.mktemp("cache"), IMAGES, backbone, BOTH)


def check_agreement(model: keras.Model, images: np.ndarray, want: np.ndarray, *limit: float, **how: int) -> Agreement:
    return compare("the assembled model", model.predict(images, 64, verbose=0), want, *limit, **how)


def expected(head: keras.Model, features: FeatureSet) -> np.ndarray:
    return predict(head, features, np.arange(features.count))


@pytest.mark.parametrize(
    ("classes", "head"), [(2, CONV), (7, CONV), (2, HeadConfig(name="linear", l2=0.0)), (3, HeadConfig(name="paper"))]
)
def test_pixels_give_the_probabilities_that_stored_features_give(
    backbone: BackboneConfig, features: FeatureSet, classes: int, head: HeadConfig
) -> None:
    config = replace(head, filters=head.filters or [8], dense_widths=head.dense_widths or [8])
    trained = head_for(features, classes, config)
    model = assemble(backbone, (12, 12), [trained], BOTH, classes)
    want = expected(trained, features)
    agreement = check_agreement(model, IMAGES, want)
    assert (model.output_shape, agreement.images) == ((None, classes), len(IMAGES))
    assert 0 < agreement.mean <= agreement.largest < TOLERANCE
    assert np.ptp(want, axis=0).max() > 0.1  # probabilities that a mistake would move
    probabilities = model.predict(IMAGES, verbose=0)
    assert probabilities.dtype == np.float32
    assert np.sum(probabilities.argmax(axis=1) != want.argmax(axis=1)) <= 2  # of nearly equal probabilities
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 7])
def test_heads_are_averaged_on_one_backbone(
    tmp_path: Path, backbone: BackboneConfig, features: FeatureSet, classes: int
) -> None:
    heads = [head_for(features, classes, seed=seed) for seed in range(3)]
    single = [expected(head, features) for head in heads]
    model = assemble(backbone, (12, 12), heads, BOTH, classes)
    check_agreement(model, IMAGES, np.mean(single, axis=0))
    assert all(np.abs(one - np.mean(single, axis=0)).max() > 0.1 for one in single)
    weights = len(load_backbone(backbone, (12, 12)).model.weights)
    assert len(model.weights) == weights + 3 * len(heads[0].weights)
    model.save(tmp_path / "whole.keras")
    loaded = keras.models.load_model(tmp_path / "whole.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))


@pytest.mark.parametrize("classes", [2, 7])
def test_a_temperature_scales_what_the_features_give(
    tmp_path: Path, backbone: BackboneConfig, features: FeatureSet, classes: int
) -> None:
    head = head_for(features, classes)
    plain = assemble(backbone, (12, 12), [head], BOTH, classes).predict(IMAGES, verbose=0)
    model = assemble(backbone, (12, 12), [head], BOTH, classes, temperature=2.5)
    got = model.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(got, tempered(plain, 2.5), atol=1e-5)
    assert np.abs(got - plain).max() > 0.1
    model.save(tmp_path / "whole.keras")
    loaded = keras.models.load_model(tmp_path / "whole.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(IMAGES, verbose=0), got)


def test_only_the_rounding_of_stored_features_makes_a_difference(tmp_path: Path, backbone: BackboneConfig) -> None:
    features = stored(tmp_path, IMAGES, backbone, BOTH, dtype="float32")
    head = head_for(features, 7)
    assert (
        check_agreement(assemble(backbone, (12, 12), [head], BOTH, 7), IMAGES, expected(head, features)).largest < 1e-5
    )


def test_what_is_stored_of_windows_is_what_the_model_sees(tmp_path: Path, backbone: BackboneConfig) -> None:
    features = stored(tmp_path, IMAGES, backbone, [*VIEWS], dtype="float32")
    head = head_for(features, 7)
    want = expected(head, features)
    model = assemble(backbone, (12, 12), [head], [*VIEWS], 7)
    assert check_agreement(model, IMAGES, want).largest < 1e-5
    for missing in ("crop1", "shift4_flip"):
        one = assemble(backbone, (12, 12), [head], ["flip" if view == missing else view for view in VIEWS], 7)
        with pytest.raises(UserError, match="disagree by up to"):
            check_agreement(one, IMAGES, want)


def test_a_face_and_its_mirror_image_are_one_when_the_features_had_both(
    backbone: BackboneConfig, features: FeatureSet
) -> None:
    head, mirrored = head_for(features, 2), np.ascontiguousarray(IMAGES[:, :, ::-1])
    for views, atol in ((BOTH, 1e-6), (["original"], 0.02)):
        model = assemble(backbone, (12, 12), [head], views, 2)
        difference = np.abs(model.predict(IMAGES, verbose=0) - model.predict(mirrored, verbose=0)).max()
        assert (difference <= atol) == (views == BOTH)


def test_a_head_of_mixed_precision_computes_in_float32(backbone: BackboneConfig, features: FeatureSet) -> None:
    trained = head_for(features, 7, precision="mixed_bfloat16")
    model = assemble(backbone, (12, 12), [trained], BOTH, 7)
    assert {layer.compute_dtype for layer in flat(model) if layer.weights} == {"float32"}
    assert not model.trainable_variables
    same = head_for(features, 7)
    same.set_weights(trained.get_weights())
    check_agreement(model, IMAGES, expected(same, features))
    assert "bfloat16" in {layer.compute_dtype for layer in trained.layers}  # the given head is left as it was


def flat(model: keras.Model) -> list[keras.layers.Layer]:
    return [inner for layer in model.layers for inner in (flat(layer) if isinstance(layer, keras.Model) else [layer])]


def test_a_mismatch_stops_with_how_far_apart_they_are(backbone: BackboneConfig, features: FeatureSet) -> None:
    head = head_for(features, 2)
    want = expected(head, features)
    wrong = {
        "one view": assemble(backbone, (12, 12), [head], ["original"], 2),
        "another scaling": assemble(replace(backbone, scaling="raw255"), (12, 12), [head], BOTH, 2),
    }
    for model in wrong.values():
        with pytest.raises(UserError, match=r"disagree by up to 0\.\d+ .* of 256 images in another class") as caught:
            check_agreement(model, IMAGES, want)
        assert "\n" not in str(caught.value)
        with pytest.raises(UserError, match=r"allowed: mean 0\.02"):
            check_agreement(model, IMAGES, want, ROUGH, mean=True)
    model = assemble(backbone, (12, 12), [head], BOTH, 2)
    near = want + np.where(np.arange(len(want)) % 50 == 0, 0.09, 0.001)[:, None] * [1, -1]
    assert check_agreement(model, IMAGES, near, ROUGH, mean=True).largest > 0.08, "as bfloat16 makes them"
    with pytest.raises(UserError, match="disagree by up to nan"):
        check_agreement(model, IMAGES, np.full_like(want, np.nan))
    with pytest.raises(UserError, match=r"\(256, 2\) where features give \(256, 3\)"):
        check_agreement(model, IMAGES, np.ones((len(IMAGES), 3)) / 3)


def test_parts_that_are_no_pair_are_refused(backbone: BackboneConfig, features: FeatureSet) -> None:
    head = head_for(features, 7)
    with pytest.raises(UserError, match="7 outputs, which do not fit 2 classes"):
        assemble(backbone, (12, 12), [head], BOTH, 2)
    with pytest.raises(UserError, match="not a pair"):
        assemble(replace(backbone, layers=["first"]), (12, 12), [head], BOTH, 7)


@pytest.fixture(scope="module")
def faces(fer2013_zip: Path) -> np.ndarray:
    """Real faces of PublicTest, some of each emotion."""
    with zipfile.ZipFile(fer2013_zip) as archive:
        names = sorted(name for name in archive.namelist() if "PublicTest" in name)
        chosen = itertools.islice(names, 0, None, len(names) // CHECKED)
        return np.stack([read_picture(archive.read(name), name) for name in chosen])[:CHECKED]


@pytest.mark.parametrize("name", ["pocket", "mobilenet_v2"])
def test_real_faces_agree_and_so_does_an_export(name: str, shared: Path, faces: np.ndarray, tmp_path: Path) -> None:
    mobile = BackboneConfig(
        name="mobilenet_v2",
        kind="application",
        architecture="MobileNetV2",
        weights=str(shared / "weights" / "mobilenet_v2_imagenet_notop.weights.h5"),
        input_size=96,
        interpolation="bicubic",
    )
    backbone = {"pocket": POCKET, "mobilenet_v2": mobile}[name]
    features = stored(tmp_path / "cache", faces, backbone, BOTH)
    head = head_for(features, 7)
    want = expected(head, features)
    model = assemble(backbone, (48, 48), [head], BOTH, 7)
    assert check_agreement(model, faces, want).largest < TOLERANCE
    # An exported MobileNetV2 gave features near zero while predict was right.
    model.export(tmp_path / "exported", verbose=False)
    exported = keras.layers.TFSMLayer(tmp_path / "exported", call_endpoint="serve")
    np.testing.assert_allclose(np.asarray(exported(faces)), want, atol=TOLERANCE)


def test_the_backbone_in_the_model_is_frozen(backbone: BackboneConfig, features: FeatureSet) -> None:
    model = assemble(backbone, (12, 12), [head_for(features, 2)], BOTH, 2)
    before = [np.array(weight) for weight in model.weights]
    model(IMAGES[:32], training=True)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert len(load_backbone(backbone, (12, 12)).model.weights) + len(head_for(features, 2).weights) == len(before)
