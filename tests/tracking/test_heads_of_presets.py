"""What a run keeps of a fine-tuned preset of KerasHub, whose layers are in the head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras_hub", reason="KerasHub is not installed (the extra `hub`)")

from tiny_presets import forget_keras_hub, preset, save_vit

from fer_experiments import tracking
from fer_experiments.backbones.copies import in_precision
from fer_experiments.backbones.networks import load_backbone
from fer_experiments.tracking import Store

PIXELS = np.random.default_rng(0).standard_normal((3, 32, 32, 3)).astype("float32")


def test_a_head_with_layers_of_keras_hub_names_it_and_can_be_copied_where_no_preset_was_loaded(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_backbone(preset(save_vit(tmp_path / "vit")), (20, 20)).trunk
    with tracking.start_run(store, "train", "tuned", system_metrics=False) as run:
        run.log_head(model, "float32")
    assert "keras-hub==" in tracking.artifact_text(store, run.id, "model/requirements.txt")
    forget_keras_hub(monkeypatch)
    copy = in_precision(tracking.load_head(store, run.id), "float32")
    np.testing.assert_allclose(copy(PIXELS), model(PIXELS), atol=1e-5)
