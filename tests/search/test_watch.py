"""A sweep that is looked at while it runs."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from small_runs import start
from small_sweeps import quick
from stores import config_in

from fer_experiments import tracking
from fer_experiments.config import Config, SweepConfig, mlruns_dir, recorded, to_yaml
from fer_experiments.experiment.record import Live
from fer_experiments.search import watch as room
from fer_experiments.search.budget import hours_left, per_hour
from fer_experiments.search.state import State, digest_of, only_one
from fer_experiments.search.sweeps import sweeps
from fer_experiments.search.trials import Trial

SPACE = {"head.l2": {"type": "float", "min": 1e-6, "max": 1.0}}


def asked(number: int) -> Trial:
    values = {"head.l2": 0.25}
    return Trial(number=number, trial_id=f"{number}", values=values, raw=values)


def end(state: State, number: int, score: float) -> None:
    trial = state.trials[number]
    trial.status, trial.score, trial.told, trial.run_id = "finished", score, score, f"{number:032}"
    trial.epochs, trial.best_epoch, trial.seconds = 5, 3, 2.0
    trial.metrics = {"final/val_accuracy_low": score - 0.1, "final/val_accuracy_high": score + 0.1}
    state.order.append(number)


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Config, State, Path]:
    """A sweep of which one trial has ended and one is asked, in a store without runs."""
    config = config_in(tmp_path / "mlruns")
    own = {f"sweep.{key}": value for key, value in vars(SweepConfig(name="one", space=SPACE)).items()}
    identity = {**own, "data.task": "test"}
    state = State(f"one-{digest_of(identity)}", "one", identity, trials=[asked(0), asked(1)], order=[0, 1])
    end(state, 0, 0.5)
    state.seconds = 360.0
    folder = mlruns_dir(config) / "sweeps" / state.id
    state.save(folder)
    return config, state, folder


def test_it_shows_the_trials_as_they_end_and_ends_with_the_sweep(
    begun: tuple[Config, State, Path], monkeypatch: pytest.MonkeyPatch
):
    config, state, folder = begun
    store = tracking.connect(config)
    looks: list[str] = []
    looked = threading.Event()
    real = room._look

    def look(*given: Any) -> room.View:
        view = real(*given)
        looks.append(room.text(view))
        looked.set()
        return view

    monkeypatch.setattr(room, "_look", look)
    monkeypatch.setattr(room, "LOOK_S", 0.01)
    said: list[str] = []
    with start(store, kind="sweep", tags={"fer.sweep_id": state.id}) as parent, only_one(folder, state.id):
        parent.log_text(to_yaml(recorded(quick([], "sweep.max_trials=11"))), "config.yaml")
        state.run_id = parent.id
        state.save(folder)
        with start(store, kind="trial", tags={"fer.sweep_id": state.id, "fer.trial_number": "1"}) as run:
            run.log_metrics({"val/accuracy": 0.625, "val/loss": 0.7})
            watching = threading.Thread(target=lambda: said.append(room.watch(config, echo=said.append)))
            watching.start()
            assert looked.wait(60)
        end(state, 1, 0.75)
        state.status, state.reason = "finished", "sweep.max_trials=2"
        state.save(folder)
    watching.join()
    assert (
        looks[0].splitlines()[0]
        == f"sweep {state.id}: running, 1 of 11 trials, 0.10 h, 10.0 trials/h, about 60 min left"
    )
    assert "best trial 0: final/val_accuracy 0.5000, 5 epochs in 2 s (head.l2=0.2500)" in looks[0]
    flying = looks[0].splitlines()[-1].split()
    assert (flying[:2], flying[-3:]) == (["trial", "1"], ["0.6250", "0.7000", "head.l2=0.2500"])
    assert said[0].startswith("trial 1: final/val_accuracy 0.7500") and len(said) == 2
    assert said[1].startswith(f"sweep {state.id}: ended by sweep.max_trials=2, 2 of 11 trials")
    assert "in flight" not in said[1] and "left" not in said[1]


def test_one_that_does_not_run_is_shown_once(begun: tuple[Config, State, Path]):
    config, state, _ = begun
    tracking.connect(config)
    assert sweeps(config, watched="watch") == sweeps(config, watched=state.id)
    assert sweeps(config, watched="one").startswith(
        f"sweep {state.id}: stopped, 1 of 10 trials, 0.10 h, 10.0 trials/h\n"
    )


def test_a_terminal_shows_it_in_place_and_nothing_of_a_name_moves_its_cursor(monkeypatch: pytest.MonkeyPatch):
    from fer_experiments.terminal import in_place

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with in_place() as show:
        assert show is not None
        show("a [bold]name\x1b[9A")
        show("the next\none")
    shown = terminal.getvalue()
    assert "a [bold]name\\x1b[9A" in shown and "\x1b[9A" not in shown
    assert "the next" in shown.partition("\x1b[2K")[2], "in the place of the first"


def test_time_left_is_told_by_the_part_of_the_budget_that_ends_first(begun: tuple[Config, State, Path]):
    _, state, _ = begun
    assert per_hour(state) == pytest.approx(10)
    assert hours_left(state, SweepConfig(max_trials=6)) == pytest.approx(0.5)
    assert hours_left(state, SweepConfig(max_trials=6, max_hours=0.2)) == pytest.approx(0.1)
    assert hours_left(state, SweepConfig(max_trials=None)) is None


def test_epochs_are_on_the_run_before_the_fit_ends_each_once(
    begun: tuple[Config, State, Path], monkeypatch: pytest.MonkeyPatch
):
    from fer_experiments.experiment import record

    now = iter([0.0, 1.0, 6.0, 6.0, 7.0])
    monkeypatch.setattr(record.time, "monotonic", lambda: next(now))
    sent: list[list[int]] = []
    run: Any = type("Run", (), {"log_epochs": lambda _, rows: sent.append(list(rows.index))})()
    live = Live(run)
    for epoch in (3, 4, 5):
        live(epoch, {"val/loss": 0.5})
    assert sent == [[3, 4]] and live.epochs == [3, 4]
