"""Which trainings count among the seeds of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from stores import config_in

from fer_experiments import tracking
from fer_experiments.evaluation.seeds import Spread, spread
from fer_experiments.report.entries import over_seeds

INPUTS = {"fer.dataset": "d", "fer.features": "f"}
Fit = tuple[str, int, float, float]  # what it is, its seed, L2 strength and score


def found_over(mlruns: Path, *fits: Fit) -> list[Spread | None]:
    """What is found beside each of these fits in a store that has them all."""
    store, ids = tracking.connect(config_in(mlruns)), []
    for kind, seed, strength, score in fits:
        values = {"head": {"l2": strength}, "training": {"seed": seed}}
        with tracking.start_run(store, kind, "fit", values, tags=INPUTS, system_metrics=False) as run:
            run.log_metrics({"final/val_accuracy": score})
        ids.append(run.id)
    runs = [tracking.find_run(store, name) for name in ids]
    return [run and over_seeds(store, run) for run in runs]


@pytest.mark.parametrize("order", [1, -1], ids=["the trial first", "the trial last"])
def test_a_training_that_repeats_a_trial_is_as_chosen_as_that_and_left_out(tmp_path: Path, order: int):
    trial, repeated = ("trial", 0, 0.1, 0.95), ("train", 0, 0.1, 0.95)
    fits = [trial, repeated, ("train", 1, 0.1, 0.85), ("train", 2, 0.1, 0.87)][::order]
    assert found_over(tmp_path, *fits) == [spread([0.85, 0.87])] * 4


def test_trials_with_another_seed_or_config_take_no_training_out(tmp_path: Path):
    trainings = [("train", seed, 0.1, score) for seed, score in enumerate((0.91, 0.85, 0.87))]
    others = [("trial", 7, 0.1, 0.97), ("trial", 0, 0.2, 0.98)]
    found = found_over(tmp_path, *trainings, *others)
    assert found == [*[spread([0.91, 0.85, 0.87])] * 4, None]


def test_one_training_beside_its_trial_s_repetition_has_no_spread(tmp_path: Path):
    fits = [("trial", 0, 0.1, 0.95), ("train", 0, 0.1, 0.95), ("train", 1, 0.1, 0.85)]
    assert found_over(tmp_path, *fits) == [None] * 3
