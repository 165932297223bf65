"""The median rule and successive halving, and that they decide as Optuna's where both are defined alike."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest

from fer_experiments.evaluation.metrics import scores
from fer_experiments.training.pruning import best_so_far, hopeless, medians, rungs
from fer_experiments.training.stopping import Pruning

LABELS = np.array([0, 0, 1, 1])
# After each epoch: the loss gets worse, the accuracy better.
EPOCHS = [
    np.array([[0.6, 0.4], [0.4, 0.6], [0.4, 0.6], [0.6, 0.4]]),
    np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.99, 0.01]]),
]


class Fit:
    """What a callback sees of a model."""

    stop_training = False


def pruned(metric: str, direction: str, limits: list[float], epochs: int = 9, stopping: bool = False) -> Pruning:
    """After fits of two epochs; stopping: early stopping ends them with the last one."""
    pruning = Pruning("asha", metric, LABELS, direction, limits)
    pruning.set_params({"epochs": epochs})
    pruning.set_model(Fit())
    for epoch, probabilities in enumerate(EPOCHS):
        pruning.model.stop_training = stopping and epoch == 1
        pruning.on_epoch_end(epoch, {"val_probabilities": probabilities, "val_loss": 99.0, "val_accuracy": 0.0})
    return pruning


def test_what_is_compared_is_the_objective_and_nothing_else():
    for metric, direction in (("accuracy", "max"), ("f1", "max"), ("roc_auc", "max"), ("log_loss", "min")):
        wanted = [scores(LABELS, said, [metric])[metric] for said in EPOCHS]
        assert pruned(metric, direction, []).curve == wanted
        sign = 1 if direction == "max" else -1
        assert pruned(metric, direction, [math.nan, max(wanted) + sign]).epoch == 1
    assert pruned("accuracy", "max", [math.nan, 0.75]).epoch is None
    assert pruned("accuracy", "max", [math.nan, 0.76]).epoch == 1


@pytest.mark.parametrize(("epochs", "stopping"), [(2, False), (9, True)])
def test_a_fit_that_ends_anyway_is_not_pruned(epochs: int, stopping: bool):
    assert pruned("accuracy", "max", [math.nan, 0.99], epochs, stopping).epoch is None


optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_a_median_is_of_the_best_so_far():
    curves = [[0.1, 0.5, 0.2], [0.3, 0.1, 0.1], [0.2, 0.4, 0.6]]
    assert medians(curves, "max", startup=3) == [0.2, 0.4, 0.5]
    assert medians(curves, "min", startup=3) == [0.2, 0.1, 0.1]


def test_medians_end_where_too_few_trials_came():
    curves = [[0.1, 0.2, 0.3], [0.2, 0.3], [0.3], [], [0.4, 0.1, 0.6]]
    assert medians(curves, "max", startup=3) == pytest.approx([0.25, 0.3])
    assert medians(curves, "max", startup=2) == pytest.approx([0.25, 0.3, 0.45])
    assert medians(curves, "max") == [] == medians([], "max", startup=0)


def test_a_value_that_is_no_number_hides_no_other():
    assert medians([[math.nan, 0.3, math.nan]], "max", startup=1)[1:] == [0.3, 0.3]


@pytest.mark.parametrize(("direction", "sign"), [("max", 1), ("min", -1)])
def test_hopeless_is_worse_than_the_median_after_the_warmup(direction: str, sign: int):
    found = [sign * 0.5] * 5
    bad, good, equal = ([sign * value] * 4 for value in (0.4, 0.6, 0.5))
    assert hopeless(bad, found, direction)
    assert not hopeless(good, found, direction)
    assert not hopeless(equal, found, direction)
    assert not hopeless([sign * 0.6, *bad[:3]], found, direction)  # it was good once
    assert not hopeless(bad[:3], found, direction)
    assert hopeless(bad[:3], found, direction, warmup=2)
    assert not hopeless(bad * 2, found, direction)  # beyond the medians
    assert not hopeless([], found, direction, warmup=0)


@pytest.mark.parametrize("direction", ["max", "min"])
def test_decisions_are_those_of_optuna(direction: str):
    """The definitions coincide on curves that only get better: the value at an epoch is then the best so far."""
    random = np.random.default_rng(0)
    better = np.maximum.accumulate if direction == "max" else np.minimum.accumulate
    decisions = []
    for _ in range(20):
        lengths = random.integers(2, 12, size=random.integers(1, 12))
        curves = [better(random.normal(size=n)).tolist() for n in lengths]
        theirs = optuna.create_study(
            direction=f"{direction}imize",
            pruner=optuna.pruners.PercentilePruner(50.0, n_startup_trials=4, n_warmup_steps=2, n_min_trials=4),
        )
        for curve in curves:
            theirs.add_trial(optuna.trial.create_trial(value=0.0, intermediate_values=dict(enumerate(curve))))
        ours = medians(curves, direction, startup=4)
        trial, curve = theirs.ask(), []
        for epoch, value in enumerate(random.normal(size=12).tolist()):
            curve.append(value)
            trial.report(value, epoch)
            decisions.append(trial.should_prune())
            assert hopeless(curve, ours, direction, warmup=2) == decisions[-1]
    assert True in decisions and False in decisions


@pytest.mark.parametrize("direction", ["max", "min"])
def test_decisions_on_curves_of_one_length_are_those_of_the_median_pruner(direction: str):
    random = np.random.default_rng(1)
    better = np.maximum.accumulate if direction == "max" else np.minimum.accumulate
    theirs = optuna.create_study(
        direction=f"{direction}imize", pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3)
    )
    curves: list[list[float]] = []
    pruned = 0
    for _ in range(40):
        trial, curve, stopped = theirs.ask(), [], False
        for epoch, value in enumerate(random.normal(size=10).tolist()):
            curve = better([*curve, value]).tolist()
            trial.report(curve[-1], epoch)
            stopped = hopeless(curve, medians(curves, direction), direction)
            assert stopped == trial.should_prune()
            if stopped:
                break
        pruned += stopped
        if not stopped:
            curves.append(curve)
        state = optuna.trial.TrialState.PRUNED if stopped else optuna.trial.TrialState.COMPLETE
        theirs.tell(trial, None if stopped else curve[-1], state=state)
    assert 0 < pruned < 40


def test_the_limit_of_a_rung_is_what_the_best_share_has():
    curves = [[0.1, 0.5, 0.2], [0.3, 0.1, 0.1], [0.2, 0.4, 0.6], [0.6, 0.1], [0.5]]
    assert rungs(curves, "max", 1, 2) == [0.3, 0.5]  # 3 of 6 go on, 2 of 5
    assert rungs(curves, "min", 1, 2) == [0.3, 0.1]
    later = rungs(curves, "max", 3, 2)
    assert [math.isnan(limit) for limit in later] == [True, True, False] and later[2] == 0.5
    assert rungs(curves, "max", 4, 2) == [] == rungs([], "max", 1, 2)


def test_what_is_no_rung_ends_nothing():
    limits = rungs([[0.5] * 9] * 4, "max", 3, 3)
    for epochs in range(1, 12):
        assert hopeless([0.4] * epochs, limits, "max", warmup=0) == (epochs in (3, 9))
        assert not hopeless([0.5] * epochs, limits, "max", warmup=0)
    diverged = rungs([[math.nan] * 9, [0.5] * 9], "max", 3, 3)
    assert diverged[2] == 0.5, "a value that is no number is the worst"


@pytest.mark.parametrize("direction", ["max", "min"])
@pytest.mark.parametrize(("least", "factor"), [(1, 2), (2, 3), (3, 3)])
def test_halving_is_that_of_optunas_pruner(direction: str, least: int, factor: int):
    """On curves that only get better, one trial after another: what is best so far is then the value at the rung."""
    random = np.random.default_rng(2)
    better = np.maximum.accumulate if direction == "max" else np.minimum.accumulate
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=least, reduction_factor=factor)
    theirs = optuna.create_study(direction=f"{direction}imize", pruner=pruner)
    curves: list[list[float]] = []
    pruned = 0
    for _ in range(60):
        trial, curve = theirs.ask(), []
        for value in random.normal(size=random.integers(1, 30)).tolist():
            curve = better([*curve, value]).tolist()
            trial.report(curve[-1], len(curve))
            stopped = hopeless(curve, rungs(curves, direction, least, factor), direction, warmup=0)
            assert stopped == trial.should_prune()
            if stopped:
                break
        pruned += stopped
        curves.append(curve)
        state = optuna.trial.TrialState.PRUNED if stopped else optuna.trial.TrialState.COMPLETE
        theirs.tell(trial, None if stopped else curve[-1], state=state)
    assert 5 < pruned < 60


def test_the_best_so_far_overlooks_what_is_no_number():
    scores = [math.nan, 0.5, math.nan, 0.9, 0.7]
    np.testing.assert_array_equal(best_so_far(scores, "max"), [math.nan, 0.5, 0.5, 0.9, 0.9])
    np.testing.assert_array_equal(best_so_far(scores, "min"), [math.nan, 0.5, 0.5, 0.5, 0.5])
    assert best_so_far([], "max").tolist() == []
