"""The registered model as MLflow runs it: a copy of this file is in every one, so that none needs this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import mlflow.models
import mlflow.pyfunc
import numpy as np
import pandas as pd

BATCH = 64  # images at once


class FaceClassifier(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]  # MLflow exports it lazily
    """Gray pixels to the most probable class of each face, and the probability of every class.

    This program loads the files of every version with its own code, another through MLflow with that of the version's
    day. classes: their names. threshold: a top probability below it names no class, and the label is `uncertain`; 0
    without one. size: (height, width) that pixels must have. network: the Keras model. probabilities, labels, table:
    see there.
    """

    def load_context(self, context: Any) -> None:
        """Called by MLflow."""
        self.load(Path(context.artifacts["network"]), Path(context.artifacts["classes"]))

    def load(self, network: Path, classes: Path) -> None:
        """Loads the network, a .keras file that brings no code, and what `save_classifier` has said of its answers."""
        said = json.loads(classes.read_text(encoding="utf-8"))
        said = said if isinstance(said, dict) else {"classes": said}  # older ones, and those that always answer
        self.classes: list[str] = said["classes"]
        self.threshold, self.uncertain = said.get("threshold", 0.0), said.get("uncertain", "")
        self.network = keras.models.load_model(network, compile=False, safe_mode=True)
        self.size: tuple[int, int] = self.network.input_shape[1:3]
        self._call = self.network.predict_on_batch
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # One trace for every number of images; what Keras' predict does besides takes longer than a small network.
            pixels = tf.TensorSpec(self.network.input_shape, "uint8")
            traced = tf.function(lambda x: self.network(x, training=False), [pixels], autograph=False)
            self._call = lambda x: traced(x).numpy()

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """float32 [n, classes] of uint8 [n, h, w]."""
        starts = range(0, len(pixels), BATCH)
        parts = [np.asarray(self._call(np.ascontiguousarray(pixels[s : s + BATCH]))) for s in starts]
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)), "float32")

    def labels(self, probabilities: np.ndarray) -> list[str]:
        """The most probable class of each row, `uncertain` where its probability is below the threshold."""
        sure = probabilities.max(axis=1) >= self.threshold
        return [
            self.classes[i] if s else self.uncertain for i, s in zip(probabilities.argmax(axis=1), sure, strict=True)
        ]

    def table(self, probabilities: np.ndarray) -> pd.DataFrame:
        """A row an image: label, and probability_<class> of each class."""
        columns = {f"probability_{name}": probabilities[:, i] for i, name in enumerate(self.classes)}
        return pd.DataFrame({"label": self.labels(probabilities), **columns})

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow reads type hints
        """`table` of uint8 pixels [n, h, w]."""
        return self.table(self.probabilities(np.asarray(model_input)))


mlflow.models.set_model(FaceClassifier())
