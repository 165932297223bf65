"""Models on presets of KerasHub, loaded where it has not been imported, and where it is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

pytest.importorskip("keras_hub", reason="KerasHub is not installed (the extra `hub`)")

from tiny_presets import forget_keras_hub, preset, save_siglip, save_vit

from fer_experiments.backbones.hub_layers import mended
from fer_experiments.backbones.networks import backbone_fingerprint, load_backbone
from fer_experiments.config import FeaturesConfig, HeadConfig
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.features.cache import extract_features
from fer_experiments.serving.loading import loading
from fer_experiments.tracking import models
from fer_experiments.tracking.models import Version
from fer_experiments.training.fit import feature_moments, predict
from fer_experiments.training.heads import build_head
from fer_experiments.training.whole import CHECKED, assemble, compare

GRAY = np.random.default_rng(0).integers(0, 256, (CHECKED, 20, 20), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A model as it is registered, of a preset and a head on its tokens, and what head and stored features say."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("served")
    cfg = preset(save_vit(folder / "vit"), layers=["transformer_block_2"])
    how = FeaturesConfig(precision="float32", batch_size=32)
    features = extract_features(GRAY, "images", cfg, how, folder, echo=lambda line: None)
    rows = np.arange(CHECKED)
    config = HeadConfig(name="pooled", dense_widths=[8], l2=0.0, normalize=True)
    head = build_head(config, features.shapes, 3, moments=feature_moments(features, rows))
    head.layers[-1].set_weights([15 * weight for weight in head.layers[-1].get_weights()])  # sure of something
    network = assemble(cfg, GRAY.shape[1:], [head], ["original"], 3)
    models.save_classifier(network, ["angry", "happy", "sad"], folder / "model")
    return folder / "model", predict(head, features, rows)


def test_a_served_model_says_what_head_and_stored_features_say(
    served: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, want = served
    forget_keras_hub(monkeypatch)
    assert np.ptp(want, axis=0).max() > 0.5
    compare("the model", models.load_classifier(folder).probabilities(GRAY), want)
    assert "keras-hub==" in (folder / "requirements.txt").read_text()


def test_a_loaded_model_can_be_saved_again_where_no_preset_was_loaded(
    served: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_keras_hub(monkeypatch)
    network = mended(models.load_classifier(served[0]).network)
    network.save(tmp_path / "again.keras")
    forget_keras_hub(monkeypatch)
    again = keras.models.load_model(tmp_path / "again.keras")
    np.testing.assert_allclose(again(GRAY[:3]), network(GRAY[:3]), atol=1e-6)


@pytest.mark.parametrize("pooling", ["none", "map"])
def test_a_saved_siglip_has_as_many_tokens_as_it_makes(
    tmp_path: Path, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = preset(save_siglip(tmp_path / "siglip"), layers=["post_layer_norm"], pooling=pooling)
    model = load_backbone(cfg, (20, 20, 3)).model
    model.save(tmp_path / "model.keras")
    forget_keras_hub(monkeypatch)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.output_shape == model.output_shape and "keras_hub" in sys.modules
    np.testing.assert_allclose(loaded(RGB), model(RGB), atol=1e-5)


def test_a_served_model_names_the_extra_where_it_is_missing(
    served: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_keras_hub(monkeypatch)
    monkeypatch.setitem(sys.modules, "keras_hub", None)  # as an import finds what is not installed
    config = compose(["data=demo"])
    with (
        pytest.raises(UserError, match=r"^models:/fer-demo/1: its backbone is a preset of KerasHub, which is not inst"),
        loading(config, Version("fer-demo", 1, "", "", 0), served[0]),
    ):
        models.load_classifier(served[0])
    with pytest.raises(UserError, match=r"backbone\.kind=keras_hub: KerasHub is not installed; .*`make setup`"):
        backbone_fingerprint(preset(served[0]))
