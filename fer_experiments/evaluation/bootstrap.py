"""How sure metrics are: percentile bootstrap over the images (Efron & Tibshirani 1993), every metric in one pass.

Resamples, labels and probabilities are as in `metrics`. Equal seeds and numbers of images give equal resamples, so that
results on the same images come in pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fer_experiments.evaluation.metrics import LOWER_IS_BETTER, METRICS, Drawn, Result, scores

CHUNK = 100  # resamples at once: 3 MB of counts for 3,600 images


@dataclass(frozen=True)
class McNemar:
    """Images that only the first result has right, those that only the second has, and the two-sided exact p."""

    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True)
class Interval:
    """A metric and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """A metric of one result minus that of another, and its 95 % interval.

    p_value: one-sided, small when the first is better (which for a loss is the lower one).
    """

    p_value: float


def evaluate(
    labels: np.ndarray, probabilities: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Interval]:
    """Every metric of a result with its interval, all on the same resamples.

    Where all images are right, or none, the accuracy's is `binomial_interval`'s. Resampling adds to the calibration
    error what chance does in a bin, so that its interval leans upwards and may lie above the value.
    """
    result = Result(labels, probabilities)
    values = scores(labels, probabilities)
    parts = [_values(Drawn(result, counts)) for counts in _resamples(len(labels), resamples, seed)]
    found = {
        name: Interval(value, *_limits(np.concatenate([part[name] for part in parts])))
        for name, value in values.items()
    }
    if values["accuracy"] in (0, 1):
        found["accuracy"] = Interval(values["accuracy"], *binomial_interval(values["accuracy"], len(labels)))
    return found


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

    metric: a name out of `METRICS`. The p value is the share of resamples in which the first is not better, the
    observed result counted as one of them (Davison & Hinkley 1997, section 4.2); those without an image of some class,
    in which the metric cannot be computed, are left out.

    Raises:
        ValueError: an unknown metric, or results that do not fit.
    """
    if metric not in METRICS:
        raise ValueError(f"metric={metric}: choose one of {', '.join(METRICS)}")
    of = METRICS[metric]
    ours, theirs = Result(labels, first), Result(labels, second)
    value = float(of(Drawn(ours))[0] - of(Drawn(theirs))[0])
    drawn = np.concatenate(
        [of(Drawn(ours, counts)) - of(Drawn(theirs, counts)) for counts in _resamples(len(labels), resamples, seed)]
    )
    found = drawn[~np.isnan(drawn)]
    not_better = found >= 0 if metric in LOWER_IS_BETTER else found <= 0
    return Difference(value, *_limits(drawn), (1 + int(not_better.sum())) / (1 + len(found)))


def mcnemar(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> McNemar:
    """McNemar's exact test of whether two results [n, k] on the same images are equally often right.

    If they are, the images that only one of them has right fall to either with probability 1/2 (McNemar 1947).
    """
    from scipy.stats import binomtest

    ours, theirs = (probabilities.argmax(axis=1) == labels for probabilities in (first, second))
    b, c = int(np.sum(ours & ~theirs)), int(np.sum(theirs & ~ours))
    return McNemar(b, c, float(binomtest(b, b + c).pvalue) if b + c else 1.0)


def accuracy_interval(
    labels: np.ndarray, probabilities: np.ndarray, *, resamples: int = 1000, seed: int = 0, repeats: int = 1
) -> tuple[float, float]:
    """That of the accuracy alone, for every fit: the hits in a resample are binomial, and no image is drawn.

    repeats: how many fits have scored each image; more fits make no more images.
    """
    share = scores(labels, probabilities, ["accuracy"])["accuracy"]
    return binomial_interval(share, len(labels) // repeats, resamples=resamples, seed=seed)


def binomial_interval(share: float, images: int, *, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """That of an accuracy on so many images; where all are right, or none, Wilson's."""
    if share in (0, 1):  # of which every resample says the same, however few the images
        low, high = wilson(np.array(share, "float64"), np.array(images))
        return max(0.0, min(float(low), share)), min(1.0, max(float(high), share))  # but for rounding
    return _limits(np.random.default_rng(seed).binomial(images, share, resamples) / images)


def wilson(share: np.ndarray, count: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % score interval of binomial shares (1927)."""
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return middle - half, middle + half


def _resamples(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is in each resample, CHUNK resamples at a time."""
    random = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        drawn = random.integers(images, size=(rows, images)) + images * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype("float64")


def _values(drawn: Drawn) -> dict[str, np.ndarray]:
    return {name: metric(drawn) for name, metric in METRICS.items()}


def _limits(drawn: np.ndarray) -> tuple[float, float]:
    if np.isnan(drawn).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)
