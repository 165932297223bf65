"""What goes on the run of a training: what it was made of, what it gave; and the one door to the sealed test split."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fer_experiments import tracking
from fer_experiments.config import Config, cache_dir, to_yaml
from fer_experiments.data import Dataset, TestSplit, open_test_split
from fer_experiments.errors import UserError
from fer_experiments.evaluation import curves, figures, metrics
from fer_experiments.evaluation.bootstrap import accuracy_interval
from fer_experiments.evaluation.faces import counts_table, near_twins, sample_faces
from fer_experiments.training.result import TrainingResult

PREDICTIONS = "metrics/val_predictions.npz"  # probabilities float32 [n, classes] and labels int64 [n], validation rows
IMAGES = {split: f"fer.{split}_images" for split in ("val", "test")}  # tags: `images_digest` of a split


def describe_run(run: tracking.Run, dataset: Dataset, container: dict[str, Any]) -> None:
    """What a run was made of goes on it: the config (as plain containers), data and cleaning, the environment."""
    run.log_text(to_yaml(container), "config.yaml")
    run.log_json(dataset.cleaning, "data/cleaning.json")
    run.log_csv(counts_table(dataset), "data/counts.csv")
    run.log_bytes(_sheet(dataset, sample_faces), "data/faces.png")
    if dataset.twins:
        run.log_bytes(_sheet(dataset, near_twins), "data/near_twins.png")
    run.log_dataset(dataset)
    run.log_environment()


# By dataset: every trial of a sweep shows the same faces, and drawing takes a while.
_sheets: dict[tuple[str, str], bytes] = {}


def _sheet(dataset: Dataset, draw: Callable[[Dataset], Figure]) -> bytes:
    """Sample faces, or pairs of near twins, as a PNG."""
    key = (dataset.fingerprint, draw.__name__)
    if key not in _sheets:
        png = io.BytesIO()
        draw(dataset).savefig(png)
        _sheets[key] = png.getvalue()
    return _sheets[key]


def record(
    run: tracking.Run, dataset: Dataset, result: TrainingResult, *, logged: Sequence[int] = ()
) -> dict[str, float]:
    """What a training gave goes on its run, but for epochs in `logged`; returns the final metrics by name."""
    labels = dataset.labels[dataset.val]
    final = log_scores(run, "val", labels, result.val_probabilities, dataset.classes)
    run.set_tags({IMAGES["val"]: images_digest(dataset.images[dataset.val], labels, dataset.classes)})
    predictions = io.BytesIO()
    np.savez_compressed(predictions, probabilities=result.val_probabilities, labels=labels)
    run.log_bytes(predictions.getvalue(), PREDICTIONS)
    run.log_epochs(result.history.drop(index=list(logged)))
    run.log_metrics({"time/fit_s": result.seconds, "best_epoch": float(result.best_epoch)})
    run.log_metrics({"model/trainable_parameters": parameters(result.model.trainable_weights)})
    run.log_figure(curves.learning_curves(result.history, result.best_epoch), "plots/learning_curves.png")
    run.log_csv(result.history.rename_axis("epoch").reset_index(), "metrics/history.csv")
    return final


def images_digest(images: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> str:
    """What two results have in common whose images, row by row, and labels are the same: sha256 (hex)."""
    digest = hashlib.sha256(repr((images.shape, tuple(classes))).encode())
    for array in (images, labels.astype("int64")):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def parameters(weights: Sequence[Any]) -> int:
    """How many numbers these weights of a Keras model hold."""
    return sum(math.prod(weight.shape) for weight in weights)


def log_scores(
    run: tracking.Run, split: str, labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]
) -> dict[str, float]:
    """Metrics and figures of a split ("val" or "test") go on the run; returns the metrics, accuracy with interval."""
    suffix = "" if split == "val" else f"_{split}"
    scores = metrics.classification_metrics(labels, probabilities)
    low, high = accuracy_interval(labels, probabilities)
    scores |= {"accuracy_low": low, "accuracy_high": high}
    final = {f"final/{split}_{name}": value for name, value in scores.items()}
    matrix = metrics.confusion(labels, probabilities)
    run.log_metrics(final)
    run.log_figure(figures.confusion_matrix(matrix, classes), f"plots/confusion_matrix{suffix}.png")
    run.log_figure(curves.roc_curve(labels, probabilities, classes), f"plots/roc_curve{suffix}.png")
    run.log_json({"classes": list(classes), "matrix": matrix.tolist()}, f"metrics/confusion_matrix{suffix}.json")
    return final


def open_sealed_test(run: tracking.Run, config: Config, dataset: Dataset) -> TestSplit:
    """The sealed test split; the run is on record as having opened it before any of it is read. The only door.

    dataset: the training and validation splits of the same data, whose fingerprint covers the test split.

    Raises:
        UserError: the data are others by now.
    """
    run.set_tags({tracking.OPENED: dataset.fingerprint})
    test = open_test_split(config.data, smoke=config.training.smoke, cache=cache_dir(config))
    if test.fingerprint != dataset.fingerprint:
        raise UserError(
            f"data={config.data.name}: changed while this command ran ({dataset.fingerprint[:8]}, now "
            f"{test.fingerprint[:8]}); bring back what it was, and give the same command again"
        )
    return test
