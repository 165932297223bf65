"""A registry with a champion that is quick to make: what predict, serve and export are tried on."""

from __future__ import annotations

from pathlib import Path

from fer_experiments import tracking
from fer_experiments.backbones.preprocessing import preprocess
from fer_experiments.config import BackboneConfig, Config
from fer_experiments.config.compose import compose
from fer_experiments.tracking import models
from fer_experiments.tracking.digests import digests

CLASSES = ["angry", "happy", "sad"]
SIZE = (12, 10)  # height and width differ, so that they cannot be mixed up
SMOOTH = BackboneConfig(input_size=14, channels=1, interpolation="bicubic", scaling={"mean": 128, "scale": 64})


def register(folder: Path) -> Config:
    """A config whose registry has a champion: a small random network that enlarges pictures and tells them apart."""
    import keras

    config = compose(["data=demo", f"paths.mlruns={folder}/mlruns", f"paths.cache={folder}/cache"])
    keras.utils.set_random_seed(0)
    pixels = keras.Input(SIZE, dtype="uint8", name="pixels")
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(preprocess(pixels, SMOOTH))
    x = keras.layers.Flatten()(x)
    network = keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(x))
    models.save_classifier(network, CLASSES, folder / "model")
    store = tracking.connect(config)
    with tracking.start_run(store, "promotion", "model", system_metrics=False) as run:
        run.log_folder(folder / "model", "model")
        version = models.add_version(store, "fer-demo", run.id, digests(folder / "model"), {}, "")
        models.set_alias(store, version, "champion")
    return config
