"""What goes on the run of a training: what it was made of, what it gave; and the one door to the sealed test split."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fer_experiments import tracking
from fer_experiments.config import Config, cache_dir, to_yaml
from fer_experiments.data import Dataset, TestSplit, images_digest, open_test_split
from fer_experiments.errors import UserError
from fer_experiments.evaluation import curves, figures, metrics
from fer_experiments.evaluation.bootstrap import accuracy_interval
from fer_experiments.evaluation.faces import counts_table, near_twins, sample_faces
from fer_experiments.evaluation.style import png
from fer_experiments.terminal import Echo
from fer_experiments.tracking import IMAGES
from fer_experiments.training.result import TrainingResult, averaged, trainable_parameters

LIVE_S = 5.0  # between two entries of epochs while a fit goes on: an entry takes some 10 ms

PREDICTIONS = "metrics/val_predictions.npz"  # probabilities float32 [n, classes] and labels int64 [n], validation rows
FITTED = "fer.fitted"  # tag of a promotion whose heads are fitted on more than the training split


def describe_run(run: tracking.Run, dataset: Dataset, container: dict[str, Any], *, sheets: bool = True) -> None:
    """What a run was made of goes on it: the config (as plain containers), data and cleaning, the environment.

    sheets: the pictures of faces too, most of what is written here; those of a trial are on its sweep's run.
    """
    run.log_text(to_yaml(container), "config.yaml")
    run.log_json(dataset.cleaning, "data/cleaning.json")
    run.log_csv(counts_table(dataset), "data/counts.csv")
    if sheets:
        run.log_bytes(_sheet(dataset, sample_faces), "data/faces.png")
    if sheets and dataset.twins:
        run.log_bytes(_sheet(dataset, near_twins), "data/near_twins.png")
    run.log_dataset(dataset)
    run.log_environment()


# By dataset: the jobs of a multirun show the same faces, and drawing takes a while.
_sheets: dict[tuple[str, str], bytes] = {}


def _sheet(dataset: Dataset, draw: Callable[[Dataset], Figure]) -> bytes:
    """Sample faces, or pairs of near twins, as a PNG."""
    key = (dataset.fingerprint, draw.__name__)
    if key not in _sheets:
        _sheets[key] = png(draw(dataset))
    return _sheets[key]


def record(
    run: tracking.Run,
    dataset: Dataset,
    results: Sequence[TrainingResult],
    kept: TrainingResult,
    *,
    repeats: int = 1,
    logged: Sequence[int] = (),
    trained: int | None = None,
) -> dict[str, float]:
    """What the fits of a config gave goes on its run, but for epochs in `logged`; returns the final metrics by name.

    Without validation images there are none. kept: the one whose head is kept. repeats: of the fits as many have scored
    the same images. trained: parameters, where they are others than those that the kept model has unfrozen.
    """
    scored = [(result.val_labels, result.val_probabilities) for result in results]
    final = log_scores(run, "val", scored, dataset.classes, repeats) if len(dataset.val) else {}
    history = averaged([result.history for result in results])
    run.log_epochs(history.drop(index=list(logged)))
    run.log_metrics({"time/fit_s": sum(r.seconds for r in results), "best_epoch": float(kept.best_epoch)})
    trained = trainable_parameters(kept.model) if trained is None else trained
    run.log_metrics({"model/trainable_parameters": trained})
    if len(dataset.val) and not dataset.folds:  # else each fit has scored images of its own
        _log_predictions(run, dataset, kept.val_probabilities)  # a mean of several would be no model's
    run.log_figure(curves.learning_curves(history, kept.best_epoch), "plots/learning_curves.png")
    run.log_csv(history.rename_axis("epoch").reset_index(), "metrics/history.csv")
    return final


@dataclass
class Live:
    """Called with each epoch of a fit: puts them on the run while that goes on, every LIVE_S seconds.

    With an echo, of a training on pixels, which takes minutes, each is logged and told at once.

    of: their number. before: epochs of the run that came before them. epochs: those that have been logged, for
    `record`.
    """

    run: tracking.Run
    of: int = 0
    echo: Echo | None = None
    before: int = 0
    epochs: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rows: dict[int, dict[str, float]] = {}
        self._last = time.monotonic()

    def __call__(self, epoch: int, row: dict[str, float]) -> None:
        """Logs the row of an epoch, or keeps it for the next time."""
        self._rows[self.before + epoch] = row
        if self.echo or time.monotonic() - self._last >= LIVE_S:
            self.run.log_epochs(pd.DataFrame(list(self._rows.values()), index=list(self._rows)))
            self.epochs.extend(self._rows)
            self._rows, self._last = {}, time.monotonic()
        if self.echo:
            self.echo(f"epoch {epoch + 1} of {self.of}: " + "  ".join(f"{k} {v:.4g}" for k, v in row.items()))

    def tell_earlier(self, trained: int) -> None:
        """Says on the run how many of its epochs an earlier one has trained; trained: all that there are."""
        if earlier := trained - len(self.epochs):
            note = f"{earlier} of {trained} epochs were trained before this run and found in the cache: "
            self.run.describe(f"{note}`time/fit_s` counts them, `time/total_s` does not.")


def _log_predictions(run: tracking.Run, dataset: Dataset, probabilities: np.ndarray) -> None:
    """What is said of each validation image goes on the run, and which images they are: for paired tests."""
    labels = dataset.labels[dataset.val]
    run.set_tags({IMAGES["val"]: images_digest(dataset.images[dataset.val], labels, dataset.classes)})
    predictions = io.BytesIO()
    np.savez_compressed(predictions, probabilities=probabilities, labels=labels)
    run.log_bytes(predictions.getvalue(), PREDICTIONS)


def log_scores(
    run: tracking.Run,
    split: str,
    scored: Sequence[tuple[np.ndarray, np.ndarray]],
    classes: tuple[str, ...],
    repeats: int = 1,
) -> dict[str, float]:
    """Metrics and figures of a split ("val" or "test") go on the run; returns the metrics, accuracy with interval.

    Of several results they are the means, with their standard deviations as <metric>_std, and figures of all together.

    Args:
        scored: labels and probabilities of each result.
        classes: names.
        repeats: as many results are of the same images.
    """
    labels, probabilities = (np.concatenate(arrays) for arrays in zip(*scored, strict=True))
    each = pd.DataFrame([metrics.classification_metrics(*one) for one in scored])
    scores = each.mean(skipna=False).to_dict()
    low, high = accuracy_interval(labels, probabilities, repeats=repeats)
    scores |= {"accuracy_low": low, "accuracy_high": high}
    if len(scored) > 1:
        scores |= each.std(skipna=False).add_suffix("_std").to_dict()
    final = {f"final/{split}_{name}": value for name, value in scores.items()}
    run.log_metrics(final)
    log_confusion(run, split, labels, probabilities, classes, repeats)
    return final


def log_confusion(
    run: tracking.Run, split: str, labels: np.ndarray, said: np.ndarray, classes: tuple[str, ...], repeats: int = 1
) -> None:
    """The confusion matrix and the ROC curve of a split go on the run; see `log_scores`. said: the probabilities."""
    suffix, matrix = "" if split == "val" else f"_{split}", metrics.confusion(labels, said)
    run.log_figure(figures.confusion_matrix(matrix, classes, repeats), f"plots/confusion_matrix{suffix}.png")
    run.log_figure(curves.roc_curve(labels, said, classes, repeats), f"plots/roc_curve{suffix}.png")
    run.log_json({"classes": list(classes), "matrix": matrix.tolist()}, f"metrics/confusion_matrix{suffix}.json")


def open_sealed_test(run: tracking.Run, config: Config, dataset: Dataset) -> TestSplit:
    """The sealed test split; the run is on record as having opened it before any of it is told. The only door.

    dataset: the training and validation splits of the same data, whose fingerprint covers the test split.

    Raises:
        UserError: the data are others by now.
    """
    run.set_tags({tracking.OPENED: dataset.fingerprint, IMAGES["test"]: dataset.test_digest})
    test = open_test_split(config.data, smoke=config.training.smoke, cache=cache_dir(config))
    if test.fingerprint != dataset.fingerprint:
        raise UserError(
            f"data={config.data.name}: changed while this command ran ({dataset.fingerprint[:8]}, now "
            f"{test.fingerprint[:8]}); bring back what it was, and give the same command again"
        )
    return test
