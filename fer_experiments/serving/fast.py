"""The registered model as it is asked: by OpenVINO where that says what Keras says, else by Keras.

What OpenVINO has made of it is kept in the cache, so that the next `fer predict` starts without TensorFlow.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fer_experiments.config import Config, cache_dir
from fer_experiments.errors import first_line
from fer_experiments.files import temporary_folder
from fer_experiments.serving.export import CLASSES, TOLERANCE, check_images
from fer_experiments.serving.loading import find_model, loading
from fer_experiments.tracking import digests, models

if TYPE_CHECKING:
    from fer_experiments.tracking.classifier import FaceClassifier
    from fer_experiments.tracking.models import Version

GRAPH = "model.xml"
MADE = "digests.json"  # of the other files that are kept


class Answering(NamedTuple):
    """What answers.

    engine: its name. classes: their names. size: (height, width) of pixels. probabilities: float32 [n, classes] of
    uint8 [n, h, w], by one thread at once. threshold: see `models.labels`.
    """

    engine: str
    classes: list[str]
    size: tuple[int, int]
    probabilities: Callable[[np.ndarray], np.ndarray]
    threshold: float = 0.0


def load_answering(config: Config, which: str) -> Answering:
    """The registered model, from what is kept of it where there is something.

    Raises:
        UserError: what `load_model` raises.
    """
    version, folder = find_model(config, which)
    place = kept_at(config, version)
    if found := _kept(place):
        return found
    with loading(config, version, folder):
        classifier = models.load_classifier(folder)
    return answering(classifier, place)


def kept_at(config: Config, version: Version) -> Path:
    """Where what OpenVINO makes of these very files is kept, which another OpenVINO makes anew."""
    from importlib.metadata import version as installed

    made_of = f"{version.tags[digests.TAG]} {installed('openvino')}"
    return cache_dir(config) / "models" / f"openvino-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"


def answering(classifier: FaceClassifier, place: Path | None = None) -> Answering:
    """The fastest way to what a classifier says, tried on images before it answers any; see docs/serving.md.

    On a GPU that is Keras itself. Where OpenVINO fails or differs, the log says so, and Keras answers. place: where
    what OpenVINO has made is kept.
    """
    import keras

    own = Answering("keras", classifier.classes, classifier.size, classifier.probabilities, classifier.threshold)
    images = check_images(classifier.size)
    expected = own.probabilities(images)  # also so that no client waits for TensorFlow's graph
    if keras.config.backend() != "tensorflow" or keras.distribution.list_devices("gpu"):
        return own
    try:
        from fer_experiments.features.engines.openvino import converted

        model = converted(classifier.network, None)
        call = _asked(model)
        got = np.concatenate([call(images[:1]), call(images[1:])])
        difference = float(np.abs(got.astype("float64") - expected).max())
        problem = "" if difference <= TOLERANCE else f"its probabilities differ by up to {difference:.2g}"
    except Exception as error:  # of whatever kind its converter raises
        problem = first_line(error, 200, named=True)
    if problem:
        logging.getLogger("uvicorn.error").error("OpenVINO is not used (%s): Keras answers", problem)
        return own
    if place is not None:
        _keep(model, classifier, place)
    return own._replace(engine="openvino", probabilities=call)


def _asked(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Probabilities of images by an openvino.Model, or the .xml file of one."""
    from fer_experiments.features.engines.openvino import compiled

    request = compiled(model, "float32", "LATENCY").create_infer_request()

    def call(images: np.ndarray) -> np.ndarray:
        answer: np.ndarray = request.infer([np.ascontiguousarray(images)])[0].copy()
        return answer

    return call


def _keep(model: Any, classifier: FaceClassifier, place: Path) -> None:
    """Writes what is read by `_kept`, there whole or not; a cache that cannot be written keeps nothing."""
    import openvino

    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: OpenVINO's, of a file that it cannot write
        place.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(f".{place.name}.", place.parent) as temporary:
            folder = temporary / "made"
            folder.mkdir()
            openvino.save_model(model, folder / GRAPH, compress_to_fp16=False)
            said = models.written_answers(classifier.classes, classifier.threshold)
            (folder / CLASSES).write_text(said, encoding="utf-8")
            (folder / MADE).write_text(json.dumps(digests.digests(folder)), encoding="utf-8")
            shutil.rmtree(place, ignore_errors=True)  # of a damaged one
            folder.rename(place)  # fails where another process was faster


def _kept(place: Path) -> Answering | None:
    """What is kept there, if it is what was written."""
    try:
        if digests.changed((place / MADE).read_text(encoding="utf-8"), place) is None:
            classes, threshold = models.read_answers((place / CLASSES).read_text(encoding="utf-8"))
            from fer_experiments.features.engines.openvino import core

            model = core().read_model(place / GRAPH)
            _, height, width, *_ = model.inputs[0].partial_shape
            size = height.get_length(), width.get_length()
            return Answering("openvino", classes, size, _asked(model), threshold)
    except Exception:  # whatever its parts raise of what is damaged: it is made anew
        pass
    return None
