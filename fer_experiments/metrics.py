"""How good probabilities are: pure functions of (labels, probabilities).

Everywhere labels are int [n] in 0..k-1 and probabilities float [n, k], rows summing to 1, k the number of classes (two
for a binary task, whose positive class is index 1).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray], float]


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
    true = np.take_along_axis(probabilities, labels[:, None], axis=1).astype("float64")
    return float(-np.log(np.clip(true, 1e-7, 1)).mean())


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
