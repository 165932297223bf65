"""A running sweep that is asked to stop, through its run."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_sweeps import quick, run, runs_of, with_space

from fer_experiments import tracking
from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.executors.inline import Inline
from fer_experiments.experiment import record
from fer_experiments.search import stop as room
from fer_experiments.search import sweep as sweep_room
from fer_experiments.search.recorded import list_sweeps
from fer_experiments.search.state import State, load_state
from fer_experiments.search.stop import stop
from fer_experiments.search.sweep import run_sweep
from fer_experiments.search.sweeps import sweeps
from fer_experiments.search.trial import Job


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "POLL_S", 0.05)


def test_a_sweep_that_is_asked_to_stop_finishes_what_runs_and_goes_on_later(
    paths: list[str], monkeypatch: pytest.MonkeyPatch
):
    config, said = quick(paths, "sweep.max_trials=3"), list[str]()

    def asking(line: str) -> None:
        said.append(line)
        if line.startswith("trial 0:"):
            (sweep,) = runs_of(config, kind="sweep")
            stop(config, sweep.tags["fer.sweep_id"])
            while "asked to stop; its trials in flight are finished" not in said[-1]:
                time.sleep(0.01)

    monkeypatch.setattr("sys.argv", ["fer", "sweep", "sweep=quick", paths[0]])
    state = run_sweep(config, asking)
    assert (len(state.trials), state.status, state.reason) == (1, "running", "fer sweeps stop")
    assert f"{state.id}  stopped" in list_sweeps(config)
    (sweep,) = runs_of(config, kind="sweep")
    assert (sweep.status, sweep.tags["fer.ended_by"]) == ("FINISHED", "fer sweeps stop")
    assert "sweep=quick paths" in said[-1].splitlines()[-1], "the command that goes on, with its own budget"
    with pytest.raises(UserError, match=f"^{state.id}: no sweep of this id runs; none does$"):
        stop(config, state.id)
    more, _ = run(config)
    assert (more.id, len(more.trials), more.status) == (state.id, 3, "finished")
    assert more.trials[0] == state.trials[0]


def test_a_stop_that_finds_all_trials_asked_leaves_those_that_wait_in_flight(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As the twin of a trial that runs does."""
    said: list[str] = []

    class Three(Inline):
        slots = 3

        def submit(self, call: Any, /, *args: Any) -> Any:
            done = super().submit(call, *args)
            if isinstance(args[-1], Job):  # else it makes features
                stop(config, args[-1].sweep_id)
                while not any("asked to stop" in line for line in said):
                    time.sleep(0.01)
            return done

    config = with_space(tmp_path, paths, "head.l2: {type: choice, values: [0, 0.0]}", "sweep.max_trials=2")
    with monkeypatch.context() as patch:
        patch.setattr(sweep_room, "open_executor", lambda compute, echo: nullcontext(Three()))
        state = run_sweep(config, said.append)
    assert (state.status, state.reason) == ("running", "fer sweeps stop")
    assert [trial.number for trial in state.in_flight] == [1]
    more, _ = run(config)
    assert (more.id, more.status, [t.status for t in more.trials]) == (state.id, "finished", ["finished", "repeated"])


def _stop_when_a_trial_runs(config: Config) -> None:
    while not (found := [t for t in runs_of(config, kind="trial") if t.status == "RUNNING" and t.metrics]):
        time.sleep(0.05)
    sweeps(config, stopped=found[0].tags["fer.sweep_id"], now="true")


def test_a_sweep_that_is_asked_to_stop_now_is_killed_as_by_sigterm_and_says_why(
    tmp_path: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch
):
    """Until then its epochs are on its run, for whoever watches."""
    endless = ["training.epochs=1000000", "training.patience=1000000"]
    monkeypatch.setattr(record, "LIVE_S", 0.0)
    config = quick([f"paths.mlruns={tmp_path}/mlruns", paths[1]], *endless)
    run(quick([f"paths.mlruns={tmp_path}/mlruns", paths[1]], "sweep.max_trials=1"))  # a store to ask
    asking = threading.Thread(target=_stop_when_a_trial_runs, args=(config,))
    asking.start()
    with pytest.raises(SystemExit, match="143"):
        run(config)
    asking.join()
    killed = [r for r in runs_of(config) if r.status == "KILLED"]
    assert sorted(r.tags["fer.kind"] for r in killed) == ["sweep", "trial"]
    folder = tmp_path / "mlruns" / "sweeps" / killed[0].tags["fer.sweep_id"]
    state = load_state(folder)
    assert state is not None and (state.status, state.reason) == ("running", "fer sweeps stop now=true")
    assert [t.number for t in state.in_flight] == [0]
    assert {r.tags.get("fer.ended_by") for r in killed} == {None, "fer sweeps stop now=true"}
    (trial,) = (r for r in killed if r.tags["fer.kind"] == "trial")
    assert {"val/accuracy", "val/loss", "train/loss"} <= trial.metrics.keys()


def test_a_sweep_in_a_thread_of_a_program_is_stopped_at_once_too(paths: list[str]):
    config, ended = quick(paths), list[type[BaseException] | None]()
    store = tracking.connect(config)
    state, said = State("quick-89abcdef", "quick", {}), list[str]()
    sweep: Any = SimpleNamespace(state=state, request=None, echo=said.append)

    def sweeping() -> None:
        tags = {"fer.sweep_id": state.id}
        try:
            with (
                tracking.start_run(store, "sweep", state.id, tags=tags, system_metrics=False) as parent,
                room.heard(sweep, parent),
            ):
                stop(config, state.id, now=True)
                guard = time.monotonic() + 60
                while time.monotonic() < guard:
                    pass
            ended.append(None)
        except SystemExit as error:
            ended.append(type(error))

    thread = threading.Thread(target=sweeping)
    thread.start()
    thread.join()
    assert ended == [SystemExit] and (sweep.request, state.reason) == ("fer sweeps stop now=true",) * 2
    (own,) = runs_of(config, sweep_id=state.id)
    assert (own.status, own.tags["fer.ended_by"]) == ("KILLED", "fer sweeps stop now=true")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"stopped": "stop"}, "stop: say the id of a sweep that runs; none does"),
        ({"stopped": "quick-01234567"}, "quick-01234567: no sweep of this id runs; none does"),
        ({"stopped": "quick-01234567", "now": "soon"}, "now=soon: must be true or false"),
        ({"now": "true"}, "now: belongs to `fer sweeps stop <id>`"),
    ],
)
def test_what_cannot_be_stopped_is_said_in_a_line(paths: list[str], asked: dict[str, str], said: str):
    with pytest.raises(UserError) as error:
        sweeps(quick(paths), **asked)
    assert str(error.value) == said
