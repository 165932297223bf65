"""The registered model as `fer serve` asks it: by OpenVINO where that says what Keras says, else by Keras."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fer_experiments.errors import first_line
from fer_experiments.serving.export import TOLERANCE, check_images

if TYPE_CHECKING:
    import keras

    from fer_experiments.tracking.classifier import FaceClassifier


class Answering(NamedTuple):
    """What answers. engine: its name. probabilities: float32 [n, classes] of uint8 [n, h, w], by one thread at once."""

    engine: str
    probabilities: Callable[[np.ndarray], np.ndarray]


def answering(classifier: FaceClassifier) -> Answering:
    """The fastest way to what a classifier says, tried on images before it answers any; see docs/serving.md.

    On a GPU that is Keras itself. Where OpenVINO fails or differs, the log says so, and Keras answers.
    """
    import keras

    own = Answering("keras", classifier.probabilities)
    images = check_images(classifier.size)
    expected = own.probabilities(images)  # also so that no client waits for TensorFlow's graph
    if keras.config.backend() != "tensorflow" or keras.distribution.list_devices("gpu"):
        return own
    try:
        call = _by_openvino(classifier.network)
        got = np.concatenate([call(images[:1]), call(images[1:])])
        difference = float(np.abs(got.astype("float64") - expected).max())
        problem = "" if difference <= TOLERANCE else f"its probabilities differ by up to {difference:.2g}"
    except Exception as error:  # of whatever kind its converter raises
        problem = first_line(error, 200, named=True)
    if problem:
        logging.getLogger("uvicorn.error").error("OpenVINO is not used (%s): Keras answers", problem)
        return own
    return Answering("openvino", call)


def _by_openvino(network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    from fer_experiments.features.engines.openvino import compiled

    request = compiled(network, None, "float32", "LATENCY").create_infer_request()

    def call(images: np.ndarray) -> np.ndarray:
        answer: np.ndarray = request.infer([np.ascontiguousarray(images)])[0].copy()
        return answer

    return call
