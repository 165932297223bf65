"""What predict says without TensorFlow: of files that are missing, and once the model's other form is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from predicted_faces import draw
from tiny_champion import CLASSES, SIZE

from fer_experiments.serving import fast
from fer_experiments.serving.loading import find_model

# <mlruns> <cache> <picture>
PROGRAM = """
import sys
from fer_experiments.serving.predict import predict
from fer_experiments.config.compose import compose
mlruns, cache, picture = sys.argv[1:]
config = compose(["data=demo", f"paths.mlruns={mlruns}", f"paths.cache={cache}"])
assert predict(config, ["/nowhere.png"]) == 2
assert not {"tensorflow", "mlflow"} & set(sys.modules)
sys.modules |= dict.fromkeys(("tensorflow", "keras", "scipy"))  # none can be imported
sys.exit(predict(config, [picture], "json"))
"""


@pytest.fixture(scope="module")
def made(registered):
    return fast.load_answering(registered, "champion")


def test_missing_files_are_told_and_the_kept_form_answers_without_tensorflow(registered, made, tmp_path):
    assert made.engine == "openvino"
    draw(tmp_path / "face.png", 0)
    arguments = [registered.paths.mlruns, registered.paths.cache, str(tmp_path / "face.png")]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "fer predict: /nowhere.png: no such file or folder\n")
    (row,) = json.loads(done.stdout)
    from fer_experiments.data.images import read_picture

    pixels = read_picture((tmp_path / "face.png").read_bytes(), "face.png", SIZE)
    assert list(row["probabilities"]) == CLASSES
    assert list(row["probabilities"].values()) == pytest.approx(made.probabilities(pixels[None])[0].tolist(), abs=1e-6)


@pytest.mark.parametrize("damage", ["none", "cut", "gone", "no weights", "nothing"])
def test_what_is_kept_answers_as_it_did_and_what_is_damaged_is_made_anew(registered, made, monkeypatch, damage):
    place = fast.kept_at(registered, find_model(registered, "champion")[0])
    assert [path.name for path in place.parent.iterdir()] == [place.name], "and nothing is left beside it"
    if damage == "cut":
        (place / "model.bin").write_bytes(b"")
    if damage in ("gone", "nothing"):
        (place / "classes.json").unlink()
    if damage == "nothing":
        (place / "digests.json").unlink()
    if damage == "no weights":
        (place / "model.bin").unlink()
    calls: list[Path] = []
    monkeypatch.setattr(
        fast, "answering", lambda classifier, at, make=fast.answering: calls.append(at) or make(classifier, at)
    )
    images = np.random.default_rng(1).integers(0, 256, (5, *SIZE), dtype=np.uint8)
    for expected in ([], [place])[damage != "none"], ([], [place])[damage != "none"]:  # made anew once, then kept
        now = fast.load_answering(registered, "champion")
        assert (now.engine, now.classes, now.size, calls) == ("openvino", CLASSES, SIZE, expected)
        np.testing.assert_array_equal(now.probabilities(images), made.probabilities(images))


def test_a_cache_that_cannot_be_written_keeps_nothing(classifier, tmp_path):
    (tmp_path / "file").write_text("")
    assert fast.answering(classifier, tmp_path / "file" / "kept").engine == "openvino"
    assert (tmp_path / "file").read_text() == ""
