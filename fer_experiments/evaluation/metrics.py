"""How good probabilities are: pure functions of (labels, probabilities).

Everywhere labels are int [n] in 0..k-1 and probabilities float [n, k], rows summing to 1, k the number of classes (two
for a binary task, whose positive class is index 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Metric = Callable[[np.ndarray, np.ndarray], float]

BINS = 15  # of the expected calibration error, as in Guo et al.


@dataclass(frozen=True)
class McNemar:
    """Images that only the first result has right, those that only the second has, and the two-sided exact p."""

    only_first: int
    only_second: int
    p_value: float


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """accuracy, precision, recall, f1, roc_auc and loss (cross-entropy in nats).

    Two classes: of the positive class, index 1. More: macro averages over all classes (one without a prediction counts
    as precision 0), and roc_auc one class against the rest, averaged over the classes that occur. nan: no roc_auc,
    because all labels are the same.
    """
    matrix = confusion(labels, probabilities)
    classes = len(matrix)
    hits = matrix.diagonal()
    precision = _ratio(hits, matrix.sum(axis=0))
    recall = _ratio(hits, matrix.sum(axis=1))
    f1 = _ratio(2 * hits, matrix.sum(axis=0) + matrix.sum(axis=1))
    chosen = slice(1, 2) if classes == 2 else slice(None)
    areas = np.array([roc_auc(labels == c, probabilities[:, c]) for c in range(classes)])[chosen]
    return {
        "accuracy": float(hits.sum() / len(labels)),
        "precision": float(precision[chosen].mean()),
        "recall": float(recall[chosen].mean()),
        "f1": float(f1[chosen].mean()),
        "roc_auc": float(np.mean(areas[np.isfinite(areas)])) if np.isfinite(areas).any() else float("nan"),
        "loss": cross_entropy(labels, probabilities),
    }


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The share of images whose most probable class is theirs."""
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """int [k, k]: images by true class (rows) and most probable class (columns).

    Raises:
        ValueError: shapes that do not fit, no image, or a label without a column.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            f"labels {labels.shape} and probabilities {probabilities.shape}: expected [n] and [n, k], n > 0"
        )
    classes = probabilities.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()}, but probabilities of {classes} classes")
    pairs = labels * classes + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def cross_entropy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative logarithm of the true class's probability, in nats; a probability of 0 counts as 1e-7."""
    return float(surprisals(labels, probabilities).mean())


def surprisals(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Of each image, what `cross_entropy` is the mean of: float64 [n]."""
    true = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].astype("float64")
    return -np.log(np.clip(true, 1e-7, 1))


def roc_points(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates from (0, 0) to (1, 1), a point a distinct score; nan without both classes."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of each run of equal scores
    true = np.cumsum(positive[order], dtype="int64")[last]
    false = last + 1 - true
    with np.errstate(invalid="ignore"):
        rates = np.append(0, false) / false[-1], np.append(0, true) / true[-1]
    return rates


def roc_auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, ties counted half; nan without both classes."""
    false, true = roc_points(positive, scores)
    return float(np.trapezoid(true, false))


def pr_points(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision, a point a distinct score, the highest first; recall is nan without a positive image."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    true = np.cumsum(positive[order], dtype="int64")[last]
    with np.errstate(invalid="ignore"):
        return true / true[-1], true / (last + 1)


def average_precision(positive: np.ndarray, scores: np.ndarray) -> float:
    """The sum of precision times the step in recall, without interpolation; nan without a positive image."""
    recall, precision = pr_points(positive, scores)
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean square of p(class 1) - label, 0 to 1; of more than two classes, summed over them, 0 to 2 (Brier 1950).

    As scikit-learn's brier_score_loss.
    """
    return float(brier_terms(labels, probabilities).mean())


def brier_terms(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Of each image, what `brier_score` is the mean of: float64 [n]."""
    classes = probabilities.shape[1]
    squares = (probabilities - np.eye(classes)[labels]) ** 2
    return squares[:, 1] if classes == 2 else squares.sum(axis=1)


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """The mean over images of |share that is right - mean top probability| in the bin of an image's top probability.

    Guo et al., arXiv:1706.04599, equation 3; the bins are those of `calibration_bins`.
    """
    count, accuracy, confidence = calibration_bins(labels, probabilities, bins)
    return float(np.nansum(count * np.abs(accuracy - confidence)) / len(labels))


def calibration_bins(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each of `bins` bins of equal width of the top probability: images, share that is right, mean top probability.

    The last two are nan in a bin without images.
    """
    confidence = probabilities.max(axis=1).astype("float64")
    at = confidence_bin(confidence, bins)
    right = probabilities.argmax(axis=1) == labels
    count, hits, sums = (np.bincount(at, weights, minlength=bins) for weights in (None, right, confidence))
    with np.errstate(invalid="ignore"):
        return count, hits / count, sums / count


def confidence_bin(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Which of `bins` bins of equal width, each with its upper edge and without its lower one."""
    return np.clip(np.ceil(confidence * bins).astype("int64") - 1, 0, bins - 1)


def mcnemar(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> McNemar:
    """McNemar's exact test of whether two results [n, k] on the same images are equally often right.

    If they are, the images that only one of them has right fall to either with probability 1/2 (McNemar 1947).
    """
    from scipy.stats import binomtest

    ours, theirs = (probabilities.argmax(axis=1) == labels for probabilities in (first, second))
    b, c = int(np.sum(ours & ~theirs)), int(np.sum(theirs & ~ours))
    return McNemar(b, c, float(binomtest(b, b + c).pvalue) if b + c else 1.0)


def emotion_errors(
    emotions: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """What the images of each source emotion are taken for.

    emotions: str [n], in groups of which `classes` are the names. A row an emotion, by class and then by name: emotion,
    class, images, error_rate (share in another class than its own), and `as <class>` (share in it) for each class.
    """
    import pandas as pd

    predicted = probabilities.argmax(axis=1)
    rows = []
    for label, emotion in sorted({(int(y), str(e)) for y, e in zip(labels, emotions, strict=True)}):
        chosen = predicted[(emotions == emotion) & (labels == label)]
        shares = {f"as {name}": float(np.mean(chosen == c)) for c, name in enumerate(classes)}
        error = float(np.mean(chosen != label))
        rows.append({"emotion": emotion, "class": classes[label], "images": len(chosen), "error_rate": error, **shares})
    return pd.DataFrame(rows)


def bootstrap_interval(
    labels: np.ndarray,
    probabilities: np.ndarray,
    metric: Metric = accuracy,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a metric over resampled images (Efron & Tibshirani 1993, chapter 13)."""
    random = np.random.default_rng(seed)
    n = len(labels)
    if metric is accuracy:
        # The hits in a resample of n images are binomial: no image needs to be drawn.
        values = random.binomial(n, accuracy(labels, probabilities), resamples) / n
    else:
        draws = (random.integers(n, size=n) for _ in range(resamples))
        values = np.array([metric(labels[rows], probabilities[rows]) for rows in draws])
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
