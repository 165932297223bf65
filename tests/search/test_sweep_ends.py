"""What ends a sweep, or a trial of it, before its time."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from small_sweeps import quick, run, runs_of, with_space

from fer_experiments.config.compose import compose
from fer_experiments.report.report import write_report
from fer_experiments.search.leaderboard import going_on
from fer_experiments.search.state import State
from fer_experiments.search.sweep import run_sweep
from fer_experiments.search.trials import Trial
from fer_experiments.training.pruning import REASONS


def test_a_target_ends_the_sweep(paths: list[str]):
    state, said = run(quick(paths, "sweep.seed=21", "sweep.max_trials=9", "sweep.target=0.1"))
    assert len(state.trials) == 1 and state.reason is not None and state.reason.startswith("sweep.target=0.1")
    assert any("ended by sweep.target=0.1" in line for line in said)
    more, _ = run(quick(paths, "sweep.seed=21", "sweep.max_trials=2", "sweep.target=0.999"))
    assert (more.id, len(more.trials)) == (state.id, 2)


def test_patience_ends_the_sweep_and_without_it_goes_on(paths: list[str]):
    state, said = run(quick(paths, "sweep.seed=26", "sweep.max_trials=12", "sweep.patience=1"))
    count = len(state.trials)
    assert count < 12 and state.reason is not None and state.reason.startswith("sweep.patience=1: in as many trials")
    assert any("ended by sweep.patience=1" in line for line in said)
    more, _ = run(quick(paths, "sweep.seed=26", f"sweep.max_trials={count + 1}"))
    assert (more.id, len(more.trials)) == (state.id, count + 1)


def test_max_hours_ends_the_sweep_after_the_trial_in_flight(paths: list[str]):
    state, _ = run(quick(paths, "sweep.seed=22", "sweep.max_trials=9", "sweep.max_hours=0.0000001"))
    assert state.reason == "sweep.max_hours=1e-07" and len(state.trials) <= 1


def test_max_trial_minutes_keeps_the_epoch_in_which_time_ran_out(paths: list[str]):
    config = quick(paths, "sweep.seed=23", "sweep.max_trials=1", "sweep.max_trial_minutes=1e-9", "training.epochs=50")
    state, said = run(config)
    trial = state.trials[0]
    assert (trial.status, trial.epochs, trial.out_of_time) == ("finished", 1, True)
    assert any("1 epoch in" in line and "out of time" in line for line in said)
    (child,) = runs_of(config, sweep_id=state.id, kind="trial")
    assert child.tags["fer.out_of_time"] == "sweep.max_trial_minutes=1e-09"


def test_a_sweep_that_is_for_trying_names_no_command_that_cannot_work(paths: list[str]):
    _, said = run(quick(paths, "training.smoke=true"))
    assert "train the best again" in said[-1] and "fer promote" not in said[-1] and "go on searching" not in said[-1]


def test_a_fresh_sweep_that_is_stopped_names_the_command_that_goes_on(
    paths: list[str], monkeypatch: pytest.MonkeyPatch
):
    config = quick(paths, "sweep.seed=27", "sweep.max_trials=2", "sweep.fresh=true")
    words = ["sweep.seed=27", "sweep.max_trials=2", "sweep.fresh=true"]
    monkeypatch.setattr("sys.argv", ["fer", "sweep", "sweep=quick", *words])

    def stopping(line: str) -> None:
        if line.startswith("trial "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        run_sweep(config, stopping)
    assert str(stopped.value).endswith("fer sweep sweep=quick sweep.seed=27 sweep.max_trials=2` goes on")
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run_sweep(quick(paths, "sweep.seed=27", "sweep.max_trials=3"), stopping)


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["sweep=quick"], ["sweep=quick", "sweep.max_trials=2"]),
        (["head=linear"], ["sweep=mine", "head=linear", "sweep.max_trials=2"]),
        (["sweep.name=mine"], ["sweep.name=mine", "sweep.max_trials=2"]),
        (["experiment=mine.yaml"], ["experiment=mine.yaml", "sweep.max_trials=2"]),
        (["sweep=quick", "sweep.fresh=true", "sweep.max_trials=1"], ["sweep=quick", "sweep.max_trials=2"]),
        (["sweep=quick", "sweep.target=0.1"], ["sweep=quick", "sweep.target=0.1", "sweep.max_trials=2"]),
    ],
)
def test_the_command_that_goes_on_is_what_was_typed_with_more(
    words: list[str], printed: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.argv", ["fer", "sweep", *words])
    config = compose(["sweep=quick", "sweep.max_trials=1"])
    state = State("mine-01234567", "mine", {"sweep.direction": "max"}, trials=[Trial(number=0)], order=[0])
    assert going_on(state, config).endswith(shlex.join(["fer", "sweep", *printed]))


@pytest.mark.parametrize(("pruner", "least"), [("median", 3), ("asha", 2)])
def test_a_hopeless_trial_is_pruned_and_is_never_the_best(paths: list[str], pruner: str, least: int):
    """Six trials with a chance, then one that cannot learn: its rate is next to nothing."""
    rates = "[1.0e-2, 5.0e-3, 4.0e-3, 3.0e-3, 2.0e-3, 1.0e-3, 1.0e-9]"
    folder = Path(paths[0].partition("=")[2]).parent
    own = ["sweep.min_epochs=2"] if pruner == "asha" else []
    config = with_space(
        folder, paths, f"training.learning_rate: {{type: choice, values: {rates}}}",
        f"sweep.pruner={pruner}", *own, "training.epochs=8", "training.patience=8", "training.seed=1",
    )  # fmt: skip
    state, said = run(config)
    last = state.trials[-1]
    assert last.status == "pruned" and last.epochs is not None and least <= last.epochs < 8, [
        (t.status, t.score) for t in state.trials
    ]
    assert any(line.startswith("trial 6:") and f", {REASONS[pruner]}: pruned" in line for line in said)
    assert f"pruned</td><td>{REASONS[pruner]}" in write_report(config, state.id).read_text()
    best = state.best()
    assert best is not None and best.number != 6


def test_a_sweep_that_is_stopped_after_each_trial_prunes_the_same(paths: list[str], tmp_path: Path):
    """Halving from the first epoch on: the second trial cannot learn, and ends there."""
    entry = "training.learning_rate: {type: choice, values: [1.0e-2, 1.0e-9, 5.0e-3]}"
    settings = ["sweep.pruner=asha", "sweep.min_epochs=1", "sweep.factor=2", "training.epochs=4", "training.seed=1"]
    config = with_space(tmp_path, paths, entry, *settings, "training.patience=4", "training.deterministic=true")
    whole, _ = run(config)
    assert [t.status for t in whole.trials][:2] == ["finished", "pruned"] and whole.trials[1].epochs == 1
    elsewhere = replace(config, paths=replace(config.paths, mlruns=str(tmp_path / "mlruns")))

    def stopping(line: str) -> None:
        if line.startswith("trial "):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_sweep(elsewhere, stopping)
    resumed, _ = run(elsewhere)
    assert whole.trials[0].objectives and [(t.status, t.objectives, t.score) for t in resumed.trials] == [
        (t.status, t.objectives, t.score) for t in whole.trials
    ]
