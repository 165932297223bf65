"""What answers for the registered model says what it says, or is not asked."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from tiny_champion import SIZE

from fer_experiments.features.engines import openvino
from fer_experiments.serving import fast
from fer_experiments.serving.export import TOLERANCE
from fer_experiments.serving.fast import answering

IMAGES = np.random.default_rng(3).integers(0, 256, (70, *SIZE), dtype=np.uint8)


def test_openvino_says_what_keras_says_of_any_number_of_images(classifier):
    by = answering(classifier)
    assert by.engine == "openvino"
    for count in (1, 3, 64, 70):
        got = by.probabilities(IMAGES[:count])
        np.testing.assert_allclose(got, classifier.probabilities(IMAGES[:count]), atol=TOLERANCE)
        assert got.dtype == np.float32
    first, again = by.probabilities(IMAGES[:2]), by.probabilities(IMAGES[2:4])
    assert not np.array_equal(first, again), "and keeps what it said"
    np.testing.assert_array_equal(first, by.probabilities(IMAGES[:2]))


@pytest.mark.parametrize("fault", ["differs", "fails", "nan"])
def test_what_differs_or_fails_is_said_and_keras_answers(classifier, monkeypatch, caplog, fault):
    class Request:
        def infer(self, given):  # type: ignore[no-untyped-def]
            if fault == "fails":
                raise RuntimeError("no such operation\nand more")
            said = classifier.probabilities(given[0])
            return [np.full_like(said, np.nan) if fault == "nan" else said + 2 * TOLERANCE]

    network = type("Network", (), {"create_infer_request": lambda self: Request()})
    monkeypatch.setattr(openvino, "compiled", lambda *args: network())
    by = answering(classifier)
    assert by.engine == "keras"
    np.testing.assert_array_equal(by.probabilities(IMAGES), classifier.probabilities(IMAGES))
    (line,) = [record.getMessage() for record in caplog.records]
    reason = "no such operation" if fault == "fails" else "its probabilities differ by up to"
    assert reason in line and line.endswith("Keras answers") and "\n" not in line


def test_what_cannot_be_written_is_kept_nowhere(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(fast, "GRAPH", "/dev/full/model.xml")  # of which OpenVINO makes an error of its own
    assert answering(classifier, tmp_path / "models" / "kept").engine == "openvino"
    assert not any((tmp_path / "models").iterdir())


def test_a_gpu_is_keras_own(classifier, monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: ["gpu:0"])
    assert answering(classifier).engine == "keras"
