"""A sweep as it is usually written, beside `fer sweep`, on the same images: what the stored features save.

    FER2013=<zip> python benchmarks/naive_sweep.py [--images 600] [--trials 2] [--epochs 2] [--head paper]
        [--json <file>]

The usual way: KerasTuner's RandomSearch over models that hold the frozen InceptionResNetV2 with random weights, on
pixels in memory, with MLflow's autologging. Both search the space of sweeps/paper.yaml, with the paper's head, or with
`pooled` the same dense layers on averaged maps. Then what a sweep of 30 trials of 20 epochs on 17,000 images would take
either way, with its arithmetic: the usual way pays the backbone in each epoch, the other once. KerasTuner wants
`tensorboard` for callbacks: `pip install tensorboard`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import fer_experiments.tracking  # noqa: F401  before MLflow is imported
from fer_experiments.config import Config
from fer_experiments.config.compose import compose
from fer_experiments.data import Dataset, load_dataset
from fer_experiments.environment import hardware

TRIALS, EPOCHS, IMAGES = 30, 20, 17_000


def naive(dataset: Dataset, config: Config, trials: int, epochs: int, folder: Path) -> tuple[float, float]:
    """Seconds of the whole search, and of an epoch after a trial's first."""
    import keras
    import keras_tuner
    import mlflow.keras

    ends: list[float] = []
    each: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            ends.append(time.perf_counter())

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch:
                each.append(time.perf_counter() - ends[-1])

    def build(hp: keras_tuner.HyperParameters) -> keras.Model:
        size = config.backbone.input_size
        backbone = keras.applications.InceptionResNetV2(include_top=False, weights=None, input_shape=(size, size, 3))
        backbone.trainable = False
        pixels = keras.Input((*dataset.images.shape[1:], 1))
        x = keras.layers.Resizing(size, size)(keras.layers.Concatenate()([pixels] * 3))
        x = backbone(keras.layers.Rescaling(1 / 127.5, -1)(x), training=False)
        for filters in config.head.filters if config.head.name == "paper" else ():
            x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
            x = keras.layers.MaxPooling2D(2, padding="same")(x)
        x = keras.layers.Flatten()(x) if config.head.name == "paper" else keras.layers.GlobalAveragePooling2D()(x)
        l2 = keras.regularizers.L2(hp.Float("l2", 1e-6, 1e-1, sampling="log"))
        for i, width in enumerate(map(int, hp.Choice("widths", ["128 64", "256 128", "512 256 128"]).split())):
            x = keras.layers.Dense(width, activation="relu", kernel_regularizer=l2)(x)
            x = keras.layers.Dropout(config.head.dropout)(x) if i == 0 else x
        model = keras.Model(pixels, keras.layers.Dense(1, activation="sigmoid", kernel_regularizer=l2)(x))
        rate = hp.Float("learning_rate", 1e-5, 1e-2, sampling="log")
        model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
        return model

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'naive.db'}")
    mlflow.set_experiment("naive")
    mlflow.keras.autolog(log_models=False, log_datasets=False, silent=True)
    begun = time.perf_counter()
    tuner = keras_tuner.RandomSearch(
        build, objective="val_accuracy", max_trials=trials, seed=0, directory=str(folder), project_name="naive"
    )
    x, y = dataset.images[..., None], dataset.labels.astype("float32")
    tuner.search(
        x[dataset.train], y[dataset.train], validation_data=(x[dataset.val], y[dataset.val]), epochs=epochs,
        batch_size=config.training.batch_size, callbacks=[Clock()], verbose=0,
    )  # fmt: skip
    mlflow.keras.autolog(disable=True)
    return time.perf_counter() - begun, statistics.median(each)


def ours(config: Config, longer: Config) -> tuple[float, float, float, float, float]:
    """Seconds of the whole sweep, until its features are there, of an epoch, of a trial outside its fit; images/s.

    longer: the same with as many epochs as are extrapolated to, for what an epoch takes with the first's compiling.
    """
    from fer_experiments.search.sweep import run_sweep

    lines: list[tuple[float, str]] = []
    begun = time.perf_counter()
    state = run_sweep(config, lambda line: lines.append((time.perf_counter(), line)))
    whole = time.perf_counter() - begun
    stored, line = next((at, line) for at, line in lines if line.startswith("features:") and "images/s" in line)
    rate = float(re.findall(r"([\d,]+) images/s", line)[0].replace(",", ""))
    trials = run_sweep(longer, lambda line: None).trials
    each = statistics.median(trial.fit_s / trial.epochs for trial in trials)
    outside = statistics.median(trial.seconds - trial.fit_s for trial in state.trials)
    return whole, stored - begun, each, outside, rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600, help="of the training split; a tenth as many validate")
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2, help="two at least: the first compiles")
    parser.add_argument("--head", choices=["paper", "pooled"], default="paper")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.epochs < 2:
        parser.error("--epochs: two at least, the first compiles")
    if importlib.util.find_spec("tensorboard") is None:
        parser.error("KerasTuner takes no callbacks without tensorboard: pip install tensorboard")
    with tempfile.TemporaryDirectory(prefix="naive-sweep-") as temporary:
        folder = Path(temporary)
        said = [
            "sweep=paper", "sweep.oracle=random", "sweep.pruner=none", "backbone.weights=null",
            f"data.limit={given.images}", f"sweep.max_trials={given.trials}", "tracking.system_metrics=false",
            f"paths.mlruns={folder / 'mlruns'}", f"paths.cache={folder / 'cache'}",
        ]  # fmt: skip
        if given.head == "pooled":
            said += ["head=pooled", "backbone.pooling=avg"]
        config, longer = (
            compose([*said, f"training.epochs={epochs}", f"training.patience={epochs}"])
            for epochs in (given.epochs, EPOCHS)
        )
        dataset = load_dataset(config.data, cache=folder / "cache")
        usual, usual_epoch = naive(dataset, config, given.trials, given.epochs, folder)
        whole, features, epoch, outside, rate = ours(config, longer)
    images = len(dataset.train) + len(dataset.val)
    more = IMAGES / images
    there = TRIALS * EPOCHS * usual_epoch * more
    start = features - images / rate  # reading the data, building and compiling the backbone
    here = start + IMAGES / rate + TRIALS * (EPOCHS * epoch * more + outside)
    machine = {key: value for key, value in hardware().items() if key != "host"}
    print(
        f"{machine['cores']} cores, {machine['cpu']}; {images} images, {given.trials} trials of {given.epochs} epochs, "
        f"head={given.head}"
    )
    print(f"as measured:  the usual way {usual:.0f} s, fer sweep {whole:.0f} s: {usual / whole:.1f} x")
    print(f"a sweep of {TRIALS} trials of {EPOCHS} epochs on {IMAGES:,} images, {more:.1f} times as many:")
    print(f"  the usual way  {TRIALS} x {EPOCHS} x {usual_epoch:.1f} s x {more:.1f} = {there / 3600:.1f} h")
    print(
        f"  fer sweep      {start:.0f} s + {IMAGES:,} / {rate:.0f} per s + {TRIALS} x ({EPOCHS} x {epoch:.2f} s x "
        f"{more:.1f} + {outside:.1f} s) = {here / 3600:.2f} h"
    )
    print(f"  ratio          {there / here:.0f} x")
    if given.json:
        found = {
            "hardware": machine, "head": given.head, "images": images, "trials": given.trials, "epochs": given.epochs,
            "usual": {"seconds": usual, "epoch_s": usual_epoch},
            "fer": {"seconds": whole, "start_s": start, "images_per_s": rate, "epoch_s": epoch, "outside_s": outside},
            "extrapolated": {"usual_s": there, "fer_s": here, "ratio": there / here},
        }  # fmt: skip
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
