"""Temperatures of probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from fer_experiments.evaluation.calibration import (
    COLDEST,
    HOTTEST,
    answer_threshold,
    answered,
    fit_temperature,
    tempered,
    told,
    untempered,
)
from fer_experiments.evaluation.metrics import scores


def drawn(classes: int, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the probabilities that they were drawn with."""
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(classes, 0.5), count)
    return np.array([random.choice(classes, p=row) for row in probabilities]), probabilities


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_temperature_is_the_one_that_makes_probabilities_right_again(classes: int, temperature: float):
    labels, right = drawn(classes)
    wrong = tempered(right, 1 / temperature)
    assert fit_temperature(labels, wrong) == pytest.approx(temperature, rel=0.1)


def test_no_other_temperature_has_less_log_loss():
    labels, probabilities = drawn(3, 300)
    probabilities[:20, :] = [1, 0, 0]  # sure, and wrong of some
    best = fit_temperature(labels, probabilities)
    losses = {
        t: scores(labels, tempered(probabilities, t), ["log_loss"])["log_loss"] for t in (best, *np.arange(1, 5, 0.1))
    }
    assert min(losses, key=lambda t: losses[t]) == best


@pytest.mark.parametrize(("labels", "end"), [([0, 1, 1], COLDEST), ([1, 0, 0], HOTTEST)])
def test_a_split_without_a_mistake_or_with_nothing_else_gets_the_end_of_the_range(labels: list[int], end: float):
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    assert fit_temperature(np.array(labels), probabilities) == pytest.approx(end)


@pytest.mark.parametrize("temperature", [COLDEST, 1.0, 1.7, HOTTEST])
def test_what_was_tempered_is_found_again_and_keeps_its_labels(temperature: float):
    _, probabilities = drawn(7, 200)
    probabilities = np.concatenate([probabilities, np.eye(7)]).astype("float32")
    got = tempered(probabilities, temperature)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(got.argmax(axis=1), probabilities.argmax(axis=1))
    np.testing.assert_allclose(untempered(got, temperature), probabilities, atol=1e-5)


CONFIDENCE = np.array([0.95, 0.9, 0.9, 0.8, 0.7, 0.6])
SURE = np.stack([CONFIDENCE, 1 - CONFIDENCE], axis=1)
TRUE = np.array([0, 0, 1, 0, 0, 1])  # wrong of one of those that are sure at 0.9, and of the last


@pytest.mark.parametrize(
    ("error", "threshold", "coverage"), [(0.0, 0.95, 1 / 6), (0.2, 0.7, 5 / 6), (0.34, 0.0, 1.0), (0.1, 0.95, 1 / 6)]
)
def test_the_threshold_answers_as_much_as_the_error_allows(error: float, threshold: float, coverage: float):
    found = answer_threshold(TRUE, SURE, error)
    assert found == threshold
    share, wrong = answered(TRUE, SURE, threshold)
    assert share == pytest.approx(coverage) and wrong <= error


def test_there_is_no_threshold_where_the_surest_answer_is_wrong_too_often():
    assert answer_threshold(1 - TRUE, SURE, 0.1) is None
    coverage, error = answered(TRUE, SURE, 0.99)
    assert coverage == 0 and np.isnan(error)


@pytest.mark.parametrize(
    ("temperature", "words"),
    [
        (COLDEST, "0.200 (the least that is allowed: the fit would go on)"),
        (COLDEST / 2, "0.100 (the least that is allowed: the fit would go on)"),
        (1.2345, "1.234"),
        (HOTTEST - 0.1, "4.900"),
        (HOTTEST, "5.000 (the most that is allowed: the fit would go on)"),
        (HOTTEST * 2, "10.000 (the most that is allowed: the fit would go on)"),
    ],
)
def test_a_temperature_at_a_bound_is_told_as_such(temperature: float, words: str):
    assert told(temperature) == words


@pytest.mark.parametrize(("labels", "end"), [([0, 1, 1], "least"), ([1, 0, 0], "most")])
def test_what_a_fit_ends_at_without_bound_is_told(labels: list[int], end: str):
    sure = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    assert f"(the {end} that is allowed" in told(fit_temperature(np.array(labels), sure))
