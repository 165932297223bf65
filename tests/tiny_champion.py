"""A registry with a champion that is quick to make: what predict, serve and export are tried on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fer_experiments import tracking
from fer_experiments.config import Config, mlruns_dir
from fer_experiments.config.compose import compose
from fer_experiments.tracking import models

CLASSES = ["angry", "happy", "sad"]
SIZE = (12, 10)  # height and width differ, so that they cannot be mixed up


def register(folder: Path) -> Config:
    """A config whose registry has a champion: a small random network that tells pictures apart."""
    import keras

    config = compose(["data=demo", f"paths.mlruns={folder}/mlruns", f"paths.cache={folder}/cache"])
    keras.utils.set_random_seed(0)
    pixels = keras.Input(SIZE, dtype="uint8", name="pixels")
    x = keras.layers.Reshape((*SIZE, 1))(keras.layers.Rescaling(1 / 64, offset=-2)(pixels))
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, strides=2, activation="relu")(x))
    network = keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(x))
    models.save_classifier(network, CLASSES, folder / "model")
    uri, mlruns = tracking.connect(config.tracking, mlruns_dir(config)), mlruns_dir(config)
    options: dict[str, Any] = {"kind": "promotion", "name": "model", "config": {}, "system_metrics": False}
    with tracking.start_run(uri=uri, mlruns=mlruns, experiment="fer/demo", **options) as run:
        run.client.log_artifacts(run.id, str(folder / "model"), "model")
        models.set_alias(uri, models.add_version(uri, "fer-demo", run.id, {}, ""), "champion")
    return config
