"""How sure metrics are: percentile bootstrap over the images (Efron & Tibshirani 1993), every metric in one pass.

A resample is how often each image is in it: counts, float64 [r, n] for r of them. Labels and probabilities are as in
`metrics`. Equal seeds and numbers of images give equal resamples, so that results on the same images come in pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fer_experiments.evaluation import metrics

Counts = np.ndarray
Statistics = Callable[[Counts], dict[str, np.ndarray]]  # counts [r, n] to values [r] by name

LOWER_IS_BETTER = ("log_loss", "brier_score", "expected_calibration_error")
CHUNK = 100  # resamples at once: 3 MB of counts for 3,600 images


@dataclass(frozen=True)
class Interval:
    """A metric and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A metric of one result minus that of another, and its 95 % interval.

    p_value: one-sided, small when the first is better (which for a loss is the lower one).
    """

    value: float
    low: float
    high: float
    p_value: float


def evaluate(
    labels: np.ndarray, probabilities: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Interval]:
    """Every metric of a result with its interval, all on the same resamples.

    accuracy, precision, recall, f1 and roc_auc as in `metrics.classification_metrics`, log_loss being its loss;
    brier_score and expected_calibration_error as there; average_precision of class 1 of two, else the mean of each
    class against the rest over the classes that occur. Resampling adds to the calibration error what chance does in a
    bin, so that its interval leans upwards and may lie above the value.
    """
    metrics.confusion(labels, probabilities)  # refuses what does not fit
    statistics = [make(labels, probabilities) for make in GROUPS.values()]
    values = _joined(statistics, np.ones((1, len(labels))))
    drawn = [_joined(statistics, counts) for counts in _resamples(len(labels), resamples, seed)]
    return {
        name: Interval(float(value[0]), *_limits(np.concatenate([part[name] for part in drawn])))
        for name, value in values.items()
    }


def paired_bootstrap(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    metric: str = "accuracy",
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """A metric of one result minus that of another on the same images, both resampled alike.

    metric: a name out of `evaluate`. The p value is the share of resamples in which the first is not better, the
    observed result counted as one of them (Davison & Hinkley 1997, section 4.2).

    Raises:
        ValueError: an unknown metric, or results that do not fit.
    """
    make = next((make for names, make in GROUPS.items() if metric in names), None)
    if make is None:
        raise ValueError(f"metric={metric}: choose one of {', '.join(name for names in GROUPS for name in names)}")
    for probabilities in (first, second):
        metrics.confusion(labels, probabilities)
    ours, theirs = make(labels, first), make(labels, second)

    def difference(counts: Counts) -> np.ndarray:
        return ours(counts)[metric] - theirs(counts)[metric]

    value = float(difference(np.ones((1, len(labels))))[0])
    drawn = np.concatenate([difference(counts) for counts in _resamples(len(labels), resamples, seed)])
    not_better = ~(drawn < 0 if metric in LOWER_IS_BETTER else drawn > 0)
    return Difference(value, *_limits(drawn), (1 + int(not_better.sum())) / (1 + resamples))


def _resamples(images: int, resamples: int, seed: int) -> Iterator[Counts]:
    """How often each image is in each resample, CHUNK resamples at a time."""
    random = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        drawn = random.integers(images, size=(rows, images)) + images * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype("float64")


def _joined(statistics: Iterable[Statistics], counts: Counts) -> dict[str, np.ndarray]:
    return {name: values for each in statistics for name, values in each(counts).items()}


def _limits(drawn: np.ndarray) -> tuple[float, float]:
    if np.isnan(drawn).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _decisions(labels: np.ndarray, probabilities: np.ndarray) -> Statistics:
    """What depends on the most probable class alone."""
    classes = probabilities.shape[1]
    cells = np.eye(classes**2)[labels * classes + probabilities.argmax(axis=1)]
    chosen = slice(1, 2) if classes == 2 else slice(None)

    def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        shares = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
        return shares[:, chosen].mean(axis=1)

    def statistics(counts: Counts) -> dict[str, np.ndarray]:
        matrices = (counts @ cells).reshape(-1, classes, classes)
        hits = np.ascontiguousarray(matrices.diagonal(axis1=1, axis2=2))
        true, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
        return {
            "accuracy": hits.sum(axis=1) / counts.sum(axis=1),
            "precision": ratio(hits, predicted),
            "recall": ratio(hits, true),
            "f1": ratio(2 * hits, true + predicted),
        }

    return statistics


def _rankings(labels: np.ndarray, probabilities: np.ndarray) -> Statistics:
    """Areas under curves: of class 1 of two, else the mean over the classes that occur in a resample."""
    classes = probabilities.shape[1]
    sorted_by = []
    for c in [1] if classes == 2 else range(classes):
        order = np.argsort(-probabilities[:, c], kind="stable")
        ends = np.append(np.flatnonzero(np.diff(probabilities[order, c])), len(order) - 1)  # of runs of equal scores
        sorted_by.append((order, ends, (labels[order] == c).astype("float64")))

    def areas(counts: Counts, order: np.ndarray, ends: np.ndarray, positive: np.ndarray) -> list[np.ndarray]:
        drawn = counts[:, order]
        every = np.cumsum(drawn, axis=1)[:, ends]
        true = np.cumsum(drawn * positive, axis=1)[:, ends]
        gained, total = np.diff(true, prepend=0), true[:, -1]
        others = np.diff(every, prepend=0) - gained
        with np.errstate(invalid="ignore"):  # nan where one of the two is not in a resample
            roc = ((true - gained / 2) * others).sum(axis=1) / (total * (every[:, -1] - total))
            return [roc, (gained * true / np.maximum(every, 1)).sum(axis=1) / total]

    def statistics(counts: Counts) -> dict[str, np.ndarray]:
        roc, precision = (
            _nan_mean(np.array(each)) for each in zip(*(areas(counts, *s) for s in sorted_by), strict=True)
        )
        return {"roc_auc": roc, "average_precision": precision}

    return statistics


def _nan_mean(values: np.ndarray) -> np.ndarray:
    """The mean [r] over the first axis of [k, r], nan where all are."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(axis=0) / there.sum(axis=0)


def _losses(labels: np.ndarray, probabilities: np.ndarray) -> Statistics:
    """What is made of the probabilities themselves."""
    terms = np.stack([metrics.surprisals(labels, probabilities), metrics.brier_terms(labels, probabilities)], axis=1)
    confidence = probabilities.max(axis=1).astype("float64")
    gaps = np.zeros((len(labels), metrics.BINS))
    right = probabilities.argmax(axis=1) == labels
    gaps[np.arange(len(labels)), metrics.confidence_bin(confidence)] = right - confidence

    def statistics(counts: Counts) -> dict[str, np.ndarray]:
        images = counts.sum(axis=1)
        log_loss, brier = (counts @ terms).T / images
        error = np.abs(counts @ gaps).sum(axis=1) / images
        return {"log_loss": log_loss, "brier_score": brier, "expected_calibration_error": error}

    return statistics


GROUPS: dict[tuple[str, ...], Callable[[np.ndarray, np.ndarray], Statistics]] = {
    ("accuracy", "precision", "recall", "f1"): _decisions,
    ("roc_auc", "average_precision"): _rankings,
    ("log_loss", "brier_score", "expected_calibration_error"): _losses,
}
