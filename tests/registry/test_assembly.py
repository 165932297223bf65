"""How many images a promoted model is checked on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from fer_experiments.config.compose import compose
from fer_experiments.data.demo import draw_faces
from fer_experiments.errors import UserError
from fer_experiments.experiment.prepare import Prepared
from fer_experiments.features.cache import extract_features
from fer_experiments.registry.assembly import Ensemble, check_choices, record_calibration, write_model
from fer_experiments.training.fit import predict
from fer_experiments.training.heads import build_head
from fer_experiments.training.whole import assemble, enough


@pytest.mark.parametrize(("images", "checked"), [(77, 77), (600, 512)])
def test_a_model_of_few_images_is_checked_on_all_and_one_of_many_on_some(images: int, checked: int, tmp_path: Path):
    config = compose(["data=demo", "backbone=pocket", "head=linear", "head.normalize=false", "promote=default"])
    config = replace(config, features=replace(config.features, engine="tensorflow", precision="float32"))
    faces, rows = draw_faces(images, 0).images, np.arange(images)
    features = extract_features(faces, "f", config.backbone, config.features, tmp_path / "c", echo=lambda line: None)
    keras.utils.set_random_seed(0)
    head = build_head(config.head, features.shapes, 2)
    dataset: Any = SimpleNamespace(images=faces, val=rows[:20], train=rows[20:], classes=("happy", "sad"), folds=())
    assert config.promote is not None
    check_choices(config.promote, dataset, [config])
    said = predict(head, features, dataset.val)
    ensemble = Ensemble(("r" * 32,), [head], rows[:20] % 2, said, 1.0)
    echoed: list[str] = []
    prepared = Prepared(config, dataset, features, {})
    assert len(write_model(config, prepared, ensemble, tmp_path / "model", echoed.append)) == checked
    assert f"agrees with the stored features on {checked} images" in echoed[-1]


def test_few_images_are_looked_at_with_copies_that_are_moved():
    faces = draw_faces(40, 0).images
    seen = enough(faces)
    assert seen.shape == (256, 48, 48) and len(np.unique(seen, axis=0)) == 256
    np.testing.assert_array_equal(seen[:40], faces)
    np.testing.assert_array_equal(seen[41, :, 1:], faces[1, :, :-1])
    many = draw_faces(300, 0).images
    np.testing.assert_array_equal(enough(many), many)


def test_a_model_of_few_images_that_leaves_out_a_view_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = compose(["data=demo", "backbone=pocket", "head=linear", "head.normalize=false", "promote=default"])
    views = ["original", "flip"]
    config = replace(config, features=replace(config.features, engine="tensorflow", precision="float32", views=views))
    faces, rows = draw_faces(32, 0).images, np.arange(32)
    features = extract_features(faces, "f", config.backbone, config.features, tmp_path / "c", echo=lambda line: None)
    keras.utils.set_random_seed(0)
    head = build_head(config.head, features.shapes, 2)
    dataset: Any = SimpleNamespace(images=faces, val=rows[:8], train=rows[8:], classes=("happy", "sad"), folds=())
    ensemble = Ensemble(("r" * 32,), [head], rows[:8] % 2, predict(head, features, dataset.val), 1.0)
    prepared = Prepared(config, dataset, features, {})
    write_model(config, prepared, ensemble, tmp_path / "right", lambda line: None)

    def one_view(backbone: Any, shape: Any, heads: Any, views: Any, *others: Any) -> keras.Model:
        return assemble(backbone, shape, heads, ("original",), *others)

    monkeypatch.setattr("fer_experiments.registry.assembly.assemble", one_view)
    with pytest.raises(UserError, match=r"disagree by up to .* of 256 images"):
        write_model(config, prepared, ensemble, tmp_path / "wrong", lambda line: None)


def test_a_model_that_answers_no_image_says_so_and_has_no_error():
    labels, said = np.array([0, 1]), np.full((2, 2), 0.5, "float32")
    ensemble = Ensemble(("r" * 32,), [], labels, said, 1.0, threshold=0.8)
    tested: Any = SimpleNamespace(test=SimpleNamespace(labels=labels), probabilities=said)
    logged: dict[str, float] = {}
    lines: list[str] = []
    run: Any = SimpleNamespace(log_metrics=logged.update)
    record_calibration(run, ensemble, tested, lines.append)
    assert lines == ["uncertain below a probability of 0.8000: on the test split it answers none"]
    assert logged["abstain/test_coverage"] == 0 and "abstain/test_error" not in logged
