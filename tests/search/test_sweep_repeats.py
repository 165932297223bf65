"""Sweeps whose trials are fitted several times."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_sweeps import quick, run, runs_of
from stores import store_in

from fer_experiments import tracking
from fer_experiments.config import Config, mlruns_dir
from fer_experiments.config.compose import compose
from fer_experiments.data import load_dataset
from fer_experiments.errors import UserError
from fer_experiments.registry.candidates import choose
from fer_experiments.search.checks import check_space
from fer_experiments.search.spread import taken
from fer_experiments.search.state import State, load_state
from fer_experiments.search.sweep import run_sweep
from fer_experiments.tracking import connect
from fer_experiments.training.stopping import Ending, Pruning


@pytest.fixture(scope="module")
def finished(paths: list[str]) -> tuple[Config, State, list[str]]:
    config = quick(paths, "sweep.repeats=3", "sweep.seed=31", "training.deterministic=true")
    return (config, *run(config))


def test_the_objective_is_the_mean_and_the_spread_is_kept(finished: tuple[Config, State, list[str]]):
    config, state, said = finished
    runs = {r.tags["fer.trial_number"]: r for r in runs_of(config, sweep_id=state.id, kind="trial")}
    for trial in state.trials:
        assert len(trial.scores) == 3 and trial.epochs == 6
        assert trial.score == pytest.approx(statistics.fmean(trial.scores))
        metrics = runs[str(trial.number)].metrics
        assert metrics["final/val_accuracy"] == pytest.approx(trial.score)
        assert metrics["final/val_accuracy_std"] == pytest.approx(statistics.stdev(trial.scores))
        assert any(line.startswith(f"trial {trial.number}:") and "over 3 fits" in line for line in said)
    assert load_state(mlruns_dir(config) / "sweeps" / state.id) == state


def test_the_first_fit_of_a_trial_is_that_of_a_sweep_without_repeats(
    finished: tuple[Config, State, list[str]], paths: list[str]
):
    _, state, _ = finished
    once, _ = run(quick(paths, "sweep.seed=31", "training.deterministic=true", "sweep.max_trials=1"))
    assert once.id != state.id and "sweep.repeats" not in once.identity
    assert once.trials[0].score == state.trials[0].scores[0] and once.trials[0].scores == []


def test_a_sweep_with_repeats_that_was_stopped_goes_on_to_the_same(
    finished: tuple[Config, State, list[str]], tmp_path: Path
):
    config, state, _ = finished
    elsewhere = replace(config, paths=replace(config.paths, mlruns=str(tmp_path / "mlruns")))

    def stopping(line: str) -> None:
        if line.startswith("trial 0:"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(elsewhere, stopping)
    resumed, _ = run(elsewhere)
    assert [(t.values, t.scores) for t in resumed.trials] == [(t.values, t.scores) for t in state.trials]


def test_another_preference_takes_another_of_a_finished_sweep_and_runs_nothing(
    finished: tuple[Config, State, list[str]], paths: list[str]
):
    config, state, _ = finished
    again, said = run(replace(config, sweep=replace(config.sweep, prefer="fast")))
    assert again.id == state.id and again.trials == state.trials and again.prefer == "fast"
    best = (mlruns_dir(config) / "sweeps" / state.id / "best.yaml").read_text()
    chosen = taken(again)
    assert chosen is not None and best.startswith(f"# Trial {chosen.number} of sweep") and "prefer=fast" in best
    store = store_in(mlruns_dir(config))
    assert tracking.artifact_text(store, str(state.run_id), "best.yaml") == best
    promoting = compose(["data=demo", "promote=default", "gate=none", *paths])
    choice = choose(promoting, connect(config), state.id, None)
    assert [candidate.run_id for candidate in choice.candidates] == [chosen.run_id]
    assert any("sweep.prefer=fast" in line for line in said[-1].splitlines())
    run(config)
    assert len(choose(promoting, connect(config), state.id, None).candidates) == 2


def test_every_fold_is_fitted_in_a_trial_and_every_image_scored_once(paths: list[str]):
    folds = ["data.split=kfold", "data.folds=3", "data.fold=all"]
    config = quick(paths, *folds, "sweep.max_trials=1", "sweep.seed=32", "training.deterministic=true")
    state, _ = run(config)
    (trial,) = state.trials
    assert len(trial.scores) == 3 and trial.score == pytest.approx(statistics.fmean(trial.scores))
    (child,) = runs_of(config, sweep_id=state.id, kind="trial")
    matrix = tracking.artifact_text(store_in(mlruns_dir(config)), child.run_id, "metrics/confusion_matrix.json")
    dataset = load_dataset(config.data)
    assert np.sum(json.loads(str(matrix))["matrix"]) == len(dataset.val) == sum(len(p.val) for p in dataset.parts())
    again, _ = run(replace(config, data=replace(config.data, fold=0)))
    assert again.id != state.id and again.trials[0].score == trial.scores[0]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sweep.repeats=0", "sweep.repeats=0: must be at least 1"),
        ("sweep.oracle=hyperband", "sweep.repeats=2: hyperband goes on with the heads of earlier trials"),
        ("sweep.repeats=1 sweep.oracle=hyperband data.split=kfold data.fold=all", "data.fold=all: hyperband goes on"),
        ("sweep.repeats=1 sweep.prefer=simple", "sweep.prefer=simple: it chooses by the spread over several fits"),
        ("sweep.prefer=cheap", "sweep.prefer=cheap: choose one of best, simple, fast"),
    ],
)
def test_repeats_that_cannot_be_are_refused_in_a_line(override: str, said: str):
    with pytest.raises(UserError, match=said):
        check_space(compose(["sweep=quick", "sweep.repeats=2", *override.split()]))


def test_a_trial_whose_first_fit_is_hopeless_is_fitted_no_more():
    ending = Ending(Pruning("median", "accuracy", np.zeros(2, int), "max", [0.5, 0.5, 0.5, 0.5]), None, fits=3)
    first = ending.callbacks(0)
    assert first == [ending.pruning] and ending.callbacks(1) == []
    ending.pruning.epoch = 3  # type: ignore[union-attr]
    assert ending.callbacks(1) is None


def test_fits_share_the_time_of_their_trial():
    ending = Ending(None, 90.0, fits=3)
    shares = []
    for number in range(3):
        ending.callbacks(number)
        shares.append(ending.deadlines[-1].seconds)
    assert shares == pytest.approx([30, 45, 90], abs=1)  # what those before have not taken is there for the others
