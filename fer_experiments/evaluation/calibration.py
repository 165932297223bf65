"""Probabilities that mean what they say: temperature scaling (Guo et al., arXiv:1706.04599), and when to say nothing.

Labels and probabilities as in `metrics`: int [n], and float [n, k] with rows that sum to 1.
"""

from __future__ import annotations

import numpy as np

LEAST = 1e-7  # a probability below it counts as it: next to 1, float32 tells no smaller ones apart
COLDEST, HOTTEST = 0.2, 5.0  # temperatures; a validation split without a mistake would ask for one of 0
HALVINGS = 50


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature from COLDEST to HOTTEST with which `tempered` probabilities have the least log loss."""
    logs = np.log(np.clip(probabilities.astype("float64"), LEAST, 1))
    true = np.take_along_axis(logs, labels[:, None], axis=1)[:, 0]
    low, high = 1 / HOTTEST, 1 / COLDEST  # the loss is convex in the inverse: its slope changes sign once
    for _ in range(HALVINGS):
        inverse = (low + high) / 2
        slope = np.mean((_softmax(inverse * logs) * logs).sum(axis=1) - true)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
    return 2 / (low + high)


def told(temperature: float) -> str:
    """A fitted temperature, with what to know of one that ends at a bound."""
    if COLDEST * 1.001 < temperature < HOTTEST / 1.001:
        return f"{temperature:.3f}"
    return f"{temperature:.3f} (the {'least' if temperature < 1 else 'most'} that is allowed: the fit would go on)"


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities whose logarithms are divided by the temperature, float32 [n, k]; above 1 they are less sure."""
    return _scaled(probabilities, 1 / temperature, LEAST)


def untempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """What these were before `tempered`, float32 [n, k]."""
    return _scaled(probabilities, temperature, float(np.finfo("float32").tiny))


def answer_threshold(labels: np.ndarray, probabilities: np.ndarray, error: float) -> float | None:
    """The least top probability to answer at for an error of at most that among what is answered.

    0 where it may answer everything, None where it may answer nothing.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum((probabilities.argmax(axis=1) != labels)[order])
    ends = np.append(np.flatnonzero(np.diff(confidence[order])), len(order) - 1)  # equally sure: both answered or none
    held = ends[wrong[ends] <= error * (ends + 1)]
    if not len(held):
        return None
    return 0.0 if held[-1] == len(order) - 1 else float(confidence[order][held[-1]])


def answered(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> tuple[float, float]:
    """The share of images that is answered at a threshold, and the error among those; nan where none is."""
    sure = probabilities.max(axis=1) >= threshold
    wrong = (probabilities.argmax(axis=1) != labels)[sure]
    return float(sure.mean()), float(wrong.mean()) if len(wrong) else float("nan")


def _scaled(probabilities: np.ndarray, factor: float, least: float) -> np.ndarray:
    if factor == 1:
        return probabilities
    return _softmax(factor * np.log(np.clip(probabilities.astype("float64"), least, 1))).astype("float32")


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares
