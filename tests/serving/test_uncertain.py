"""A model that does not answer below a threshold: predict, serve and MLflow call a face uncertain."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from PIL import Image
from predicted_faces import said
from tiny_champion import CLASSES, SIZE

from fer_experiments.config import Config
from fer_experiments.serving import fast, loading
from fer_experiments.serving.answers import predictions
from fer_experiments.serving.export import export
from fer_experiments.tracking import models

THRESHOLD = 0.7
FACES = np.stack([np.full(SIZE, level, "uint8") for level in (0, 40, 128, 255)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that is sure of dark faces alone."""
    folder = tmp_path_factory.mktemp("uncertain") / "model"
    pixels = keras.Input(SIZE, dtype="uint8")
    dense = keras.layers.Dense(3, activation="softmax", name="dense")
    network = keras.Model(pixels, dense(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))))
    size = SIZE[0] * SIZE[1]
    dense.set_weights([np.tile(np.array([[-3.0, 0, 0]]) / size, (size, 1)), np.array([3.0, 0, 0])])
    models.save_classifier(network, CLASSES, folder, THRESHOLD)
    return folder


def test_its_label_is_uncertain_and_its_probabilities_are_as_they_are(folder: Path):
    classifier = models.load_classifier(folder)
    probabilities = classifier.probabilities(FACES)
    expected = ["angry", "angry", "uncertain", "uncertain"]
    assert [bool(p >= THRESHOLD) for p in probabilities.max(axis=1)] == [True, True, False, False]
    assert classifier.labels(probabilities) == models.labels(probabilities, CLASSES, THRESHOLD) == expected
    served = predictions(probabilities, classifier)
    assert [row["label"] for row in served] == expected
    assert served[3]["probability_sad"] == pytest.approx(1 / 3, abs=1e-6)
    assert list(mlflow.pyfunc.load_model(str(folder)).predict(FACES)["label"]) == expected


def test_every_form_of_predict_says_it(
    folder: Path, registered: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = fast.answering(models.load_classifier(folder), tmp_path / "kept")
    kept = fast._kept(tmp_path / "kept")
    assert kept is not None and (kept.engine, kept.threshold) == ("openvino", made.threshold) == ("openvino", THRESHOLD)
    monkeypatch.setattr(fast, "load_answering", lambda config, which: kept)
    names = [str(tmp_path / f"{number}.png") for number in range(len(FACES))]
    for name, face in zip(names, FACES, strict=True):
        Image.fromarray(face).save(name)
    rows = json.loads(said(registered, names)[1])
    assert [row["label"] for row in rows] == ["angry", "angry", "uncertain", "uncertain"]
    assert max(rows[2]["probabilities"].values()) < THRESHOLD
    commas = csv.DictReader(io.StringIO(said(registered, names, "csv")[1]))
    assert [row["label"] for row in commas] == [row["label"] for row in rows]
    table = said(registered, names, "table")[1].splitlines()
    assert [line.split()[1] for line in table[1:]] == [row["label"] for row in rows]
    assert len({len(line) for line in table}) == 1


def test_an_export_says_that_it_always_answers(
    folder: Path, registered: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    version = models.Version("fer-demo", 7, "", "", 0)
    monkeypatch.setattr(loading, "find_model", lambda *args: (version, folder))
    lines: list[str] = []
    export(registered, "openvino", str(tmp_path / "out"), lines.append)
    assert lines[1] == "it gives probabilities alone: below 0.7000 the registered model says uncertain"


def test_a_model_without_a_threshold_always_answers(registered: Config):
    _, classifier = loading.load_model(registered, "champion")
    assert classifier.threshold == 0 and classifier.labels(np.full((1, 3), 1 / 3)) == [CLASSES[0]]
