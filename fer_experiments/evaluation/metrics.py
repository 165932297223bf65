"""How good probabilities are: every metric is one function, of one result or of thousands of resamples of its images.

Everywhere labels are int [n] in 0..k-1 and probabilities float [n, k], rows summing to 1, k the number of classes (two
for a binary task, whose positive class is index 1). A resample is how often each image is in it: counts, float64 [r, n]
for r of them. Ours and not scikit-learn's, which knows no resamples and takes ten times as long for one result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    pass

Score = TypeVar("Score", float, np.ndarray)
BINS = 15  # of the expected calibration error, as in Guo et al.


@dataclass(frozen=True)
class Curve:
    """A class against the rest: how many images have at least each distinct score, the highest first.

    true, false: of the class and of the others, float64 [r, m].
    """

    true: np.ndarray
    false: np.ndarray

    @cached_property
    def gained(self) -> np.ndarray:
        """Images of the class with each distinct score, [r, m]."""
        return np.diff(self.true, prepend=0)

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """False and true positive rates from (0, 0) to (1, 1), [r, m + 1]; nan without both kinds of images."""
        with np.errstate(invalid="ignore"):
            false, true = (np.pad(tally, ((0, 0), (1, 0))) / tally[:, -1:] for tally in (self.false, self.true))
        return false, true

    def precision(self) -> np.ndarray:
        """The share that is of the class, [r, m]."""
        return self.true / np.maximum(self.true + self.false, 1)

    def recall(self) -> np.ndarray:
        """The share of the class, [r, m]; nan without an image of it."""
        with np.errstate(invalid="ignore"):
            return self.true / self.true[:, -1:]

    def roc_area(self) -> np.ndarray:
        """Under the ROC curve, ties counted half: [r]. From whole numbers: equal areas are exactly so."""
        area = _dots(self.true - self.gained / 2, np.diff(self.false, prepend=0))
        with np.errstate(invalid="ignore"):
            return area / (self.true[:, -1] * self.false[:, -1])

    def average_precision(self) -> np.ndarray:
        """The sum of precision times the step in recall, without interpolation: [r]."""
        with np.errstate(invalid="ignore"):
            return _dots(self.precision(), self.gained) / self.true[:, -1]


class Result:
    """Labels and probabilities, with what does not change from one resample of the images to the next.

    Raises:
        ValueError: shapes that do not fit, no image, or a label without a column.
    """

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray) -> None:
        if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
            raise ValueError(
                f"labels {labels.shape} and probabilities {probabilities.shape}: expected [n] and [n, k], n > 0"
            )
        self.classes = probabilities.shape[1]
        if labels.min() < 0 or labels.max() >= self.classes:
            raise ValueError(
                f"labels from {labels.min()} to {labels.max()}, but probabilities of {self.classes} classes"
            )
        self.labels, self.probabilities = labels, probabilities
        self.averaged = [1] if self.classes == 2 else list(range(self.classes))  # the classes that a metric is of

    @cached_property
    def predicted(self) -> np.ndarray:
        """The most probable class of each image, int [n]."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def orders(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Of each averaged class the images by falling score, [n], and the last place of each run of equal scores."""
        found = {}
        for c in self.averaged:
            order = np.argsort(-self.probabilities[:, c], kind="stable")
            ends = np.flatnonzero(np.diff(self.probabilities[order, c]))
            found[c] = order, np.append(ends, len(order) - 1)
        return found

    @cached_property
    def surprisals(self) -> np.ndarray:
        """The negative logarithm of the true class's probability, in nats [n]; a probability of 0 counts as 1e-7."""
        true = np.take_along_axis(self.probabilities, self.labels[:, None], axis=1)[:, 0].astype("float64")
        return -np.log(np.clip(true, 1e-7, 1))

    @cached_property
    def squares(self) -> np.ndarray:
        """The square of p(class 1) - label [n]; of more than two classes, summed over them."""
        one_hot = np.arange(self.classes) == self.labels[:, None]
        squares = (self.probabilities.astype("float64") - one_hot) ** 2
        return squares[:, 1] if self.classes == 2 else squares.sum(axis=1)

    @cached_property
    def gaps(self) -> np.ndarray:
        """Whether an image is right minus its top probability, in the bin of that: float64 [n, BINS]."""
        confidence = self.probabilities.max(axis=1).astype("float64")
        gaps = np.zeros((len(self.labels), BINS))
        right = self.predicted == self.labels
        gaps[np.arange(len(self.labels)), confidence_bin(confidence)] = right - confidence
        return gaps


class Drawn:
    """A result's images as often as `counts` says, by default once: what its metrics share is computed once."""

    def __init__(self, result: Result, counts: np.ndarray | None = None) -> None:
        self.result, self.counts = result, np.ones((1, len(result.labels))) if counts is None else counts

    @cached_property
    def matrices(self) -> np.ndarray:
        """Images by true class and most probable class, float64 [r, k, k]."""
        k = self.result.classes
        return self._counted(self.result.labels * k + self.result.predicted, k * k).reshape(-1, k, k)

    @cached_property
    def hits(self) -> np.ndarray:
        """Images of each class that are right, [r, k]."""
        right = self.result.labels == self.result.predicted
        return self._counted(self.result.labels, self.result.classes, right)

    @cached_property
    def taken(self) -> np.ndarray:
        """Images taken for each class, [r, k]."""
        return self._counted(self.result.predicted, self.result.classes)

    @cached_property
    def there(self) -> np.ndarray:
        """Images of each class, [r, k]."""
        return self._counted(self.result.labels, self.result.classes)

    def _counted(self, places: np.ndarray, number: int, among: np.ndarray | None = None) -> np.ndarray:
        """How many images (out of those of `among`) have which of so many places: float64 [r, number].

        A sum a resample: a matrix product would want each place of each image as a column of its own, k^2 of them.
        """
        weights = self.counts if among is None else self.counts * among
        return np.stack([np.bincount(places, row, minlength=number) for row in weights])

    @cached_property
    def curves(self) -> dict[int, Curve]:
        """By averaged class."""
        made = {}
        for c, (order, ends) in self.result.orders.items():
            drawn = self.counts[:, order]
            positive = (self.result.labels[order] == c).astype("float64")  # twice as fast as with a bool
            true = np.cumsum(drawn * positive, axis=1)[:, ends]
            made[c] = Curve(true, np.cumsum(drawn, axis=1)[:, ends] - true)
        return made

    def mean(self, terms: np.ndarray) -> np.ndarray:
        """The mean over images of [n], [r]."""
        return self.counts @ terms / len(terms)

    def averaged(self, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        """The mean over averaged classes of a ratio [r, k], 0 where there is nothing to divide by: [r]."""
        ratio = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
        return ratio[:, self.result.averaged].mean(axis=1)


def accuracy(drawn: Drawn) -> np.ndarray:
    """The share of images whose most probable class is theirs."""
    return drawn.hits.sum(axis=1) / len(drawn.result.labels)


def precision(drawn: Drawn) -> np.ndarray:
    """The share that is right of the images taken for a class; 0 without any."""
    return drawn.averaged(drawn.hits, drawn.taken)


def recall(drawn: Drawn) -> np.ndarray:
    """The share that is right of the images of a class; 0 without any."""
    return drawn.averaged(drawn.hits, drawn.there)


def f1(drawn: Drawn) -> np.ndarray:
    """The harmonic mean of a class's precision and recall."""
    return drawn.averaged(2 * drawn.hits, drawn.taken + drawn.there)


def roc_auc(drawn: Drawn) -> np.ndarray:
    """Area under the ROC curve; nan where all labels are the same."""
    return _nan_mean(curve.roc_area() for curve in drawn.curves.values())


def average_precision(drawn: Drawn) -> np.ndarray:
    """Average precision; nan without an image of class 1 of two."""
    return _nan_mean(curve.average_precision() for curve in drawn.curves.values())


def log_loss(drawn: Drawn) -> np.ndarray:
    """Cross-entropy in nats; on a run it is called loss (`recorded_as`)."""
    return drawn.mean(drawn.result.surprisals)


def brier_score(drawn: Drawn) -> np.ndarray:
    """The mean square of p(class 1) - label, 0 to 1; of more than two classes, summed over them, 0 to 2: Brier 1950."""
    return drawn.mean(drawn.result.squares)


def expected_calibration_error(drawn: Drawn) -> np.ndarray:
    """The mean over images of |share that is right - mean top probability| in the bin of an image's top probability.

    Guo et al., arXiv:1706.04599, equation 3; the bins are those of `calibration_bins`.
    """
    return np.abs(drawn.counts @ drawn.result.gaps).sum(axis=1) / len(drawn.result.labels)


# Precision, recall, f1 and what is made of curves: of class 1 of two, else the mean over all classes, each against the
# rest; of curves the mean over the classes that occur.
METRICS: dict[str, Callable[[Drawn], np.ndarray]] = {
    metric.__name__: metric
    for metric in (
        accuracy, precision, recall, f1, roc_auc, average_precision, log_loss, brier_score, expected_calibration_error
    )
}  # fmt: skip
LOWER_IS_BETTER = ("log_loss", "brier_score", "expected_calibration_error")
OF_A_FIT = ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss")  # every run has these, and a sweep's choice


def direction(name: str) -> str:
    """Which way a metric is better: max or min."""
    return "min" if name in LOWER_IS_BETTER else "max"


def cost(score: Score, direction: str) -> Score:
    """A score turned so that less is better."""
    return -score if direction == "max" else score


def recorded_as(name: str) -> str:
    """A metric's name on a run, after `final/val_` or `final/test_`."""
    return "loss" if name == "log_loss" else name


def scores(labels: np.ndarray, probabilities: np.ndarray, names: Iterable[str] = METRICS) -> dict[str, float]:
    """Metrics by name; ValueError as of `Result`."""
    drawn = Drawn(Result(labels, probabilities))
    return {name: float(METRICS[name](drawn)[0]) for name in names}


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The metrics of a fit, named as its run has them: accuracy, precision, recall, f1, roc_auc and loss."""
    return {recorded_as(name): value for name, value in scores(labels, probabilities, OF_A_FIT).items()}


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """int [k, k]: images by true class (rows) and most probable class (columns); ValueError as of `Result`."""
    return Drawn(Result(labels, probabilities)).matrices[0].astype("int64")


def calibration_bins(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each of BINS bins of equal width of the top probability: images, share that is right, mean top probability.

    The last two are nan in a bin without images.
    """
    confidence = probabilities.max(axis=1).astype("float64")
    at = confidence_bin(confidence)
    right = probabilities.argmax(axis=1) == labels
    count, hits, sums = (np.bincount(at, weights, minlength=BINS) for weights in (None, right, confidence))
    with np.errstate(invalid="ignore"):
        return count, hits / count, sums / count


def confidence_bin(confidence: np.ndarray) -> np.ndarray:
    """Which of BINS bins of equal width, each with its upper edge and without its lower one."""
    return np.clip(np.ceil(confidence * BINS).astype("int64") - 1, 0, BINS - 1)


def _dots(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The products of rows, [r]."""
    return np.einsum("rm,rm->r", first, second)


def _nan_mean(areas: Iterable[np.ndarray]) -> np.ndarray:
    """The mean [r] over classes, nan where all are."""
    values = np.array(list(areas))
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(axis=0) / there.sum(axis=0)
