"""What ends a sweep, or a trial of it, before its time."""

from __future__ import annotations

from pathlib import Path

from small_sweeps import quick, run, runs_of, with_space


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


def test_a_hopeless_trial_is_pruned_and_is_never_the_best(paths: list[str]):
    """Six trials with a chance, then one that cannot learn: its rate is next to nothing."""
    rates = "[1.0e-2, 5.0e-3, 4.0e-3, 3.0e-3, 2.0e-3, 1.0e-3, 1.0e-9]"
    folder = Path(paths[0].partition("=")[2]).parent
    config = with_space(
        folder, paths, f"training.learning_rate: {{type: choice, values: {rates}}}",
        "sweep.pruner=median", "training.epochs=8", "training.patience=8", "training.seed=1",
    )  # fmt: skip
    state, said = run(config)
    last = state.trials[-1]
    assert last.status == "pruned" and last.epochs < 8, [(t.status, t.score) for t in state.trials]
    assert any(line.startswith("trial 6:") and "pruned" in line for line in said)
    best = state.best()
    assert best is not None and best.number != 6
