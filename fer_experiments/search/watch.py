"""`fer sweeps watch`: a sweep while it runs. Only reads: its state, and the runs of its trials in flight."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from fer_experiments import tracking
from fer_experiments.config import Config, SweepConfig, from_dict, read_yaml
from fer_experiments.errors import UserError
from fer_experiments.search import leaderboard
from fer_experiments.search.budget import hours_left, per_hour
from fer_experiments.search.recorded import find_sweep
from fer_experiments.search.state import State, is_locked, load_state
from fer_experiments.terminal import Echo, in_place, say, table

LOOK_S = 2.0  # between two looks
CURVES = ("val/accuracy", "val/loss", "train/loss")


@dataclass(frozen=True)
class View:
    """A sweep at one moment. sweep: with its budget. flying: the runs of trials in flight, by number."""

    state: State
    sweep: SweepConfig
    running: bool
    flying: dict[int, tracking.FoundRun]


def watch(config: Config, name: str | None = None, echo: Echo = say) -> str:
    """Shows a sweep until it ends, on a terminal in place, elsewhere a line a trial; returns what it came to.

    name: as in `find_sweep`.

    Raises:
        UserError: no such sweep; a store that cannot be read.
    """
    store = tracking.connect_existing(config)
    state, folder = find_sweep(store.mlruns / "sweeps", name)
    store = store.of(state.identity["data.task"])
    with tracking.said_in_a_line(store), in_place() as show:
        sweep, said = recorded_settings(state, store), len(state.told)
        view = _look(folder, state, store, sweep)
        while True:
            if show:
                show(text(view))
            for number in [] if show else view.state.told[said:]:
                echo(leaderboard.trial_line(view.state.trials[number], sweep))
            said = len(view.state.told)
            if not view.running:
                return text(view)
            time.sleep(LOOK_S)
            view = _look(folder, state, store, sweep)


def _look(folder: Path, before: State, store: tracking.Store, sweep: SweepConfig) -> View:
    state = load_state(folder) or before
    running = is_locked(folder) or state.id in tracking.running_sweeps(store)
    tags = {"fer.sweep_id": state.id, "fer.kind": "trial"}
    open_runs = tracking.find_runs(store, tags, "RUNNING") if running else []
    flying = {int(run.tags["fer.trial_number"]): run for run in open_runs}
    return View(state, sweep, running, flying)


def recorded_settings(state: State, store: tracking.Store) -> SweepConfig:
    """The sweep with the budget that its run has recorded, which is no part of what it is."""
    recorded = tracking.artifact_text(store, state.run_id, "config.yaml") if state.run_id else None
    try:
        return (recorded and from_dict(read_yaml(recorded)).sweep) or state.settings
    except UserError:  # of a newer version
        return state.settings


def text(view: View) -> str:
    """The view in lines: how far it is, the best so far, and the trials in flight."""
    state, sweep = view.state, view.sweep
    speed, hours, best = per_hour(state), hours_left(state, sweep), state.best()
    doing = "running" if view.running else f"{'stopped' if state.status == 'running' else 'ended'}"
    doing += f" by {state.reason}" if state.reason and not view.running else ""
    of = f" of {sweep.max_trials}" if sweep.max_trials else ""
    ran = state.ran - len(state.in_flight)
    told = [f"sweep {state.id}: {doing}", f"{ran}{of} trials", f"{state.seconds / 3600:.2f} h"]
    told += [f"{speed:,.1f} trials/h"] if speed else []
    told += [f"about {_duration(hours)} left"] if view.running and hours is not None else []
    lines = [", ".join(told), "best so far: none" if best is None else f"best {leaderboard.trial_line(best, sweep)}"]
    if view.running:
        lines += ["", _flying(view) if view.flying else "no trial is in flight"]
    return "\n".join(lines)


def _flying(view: View) -> str:
    rows = [["in flight", "for", *CURVES, "values"]]
    for number, run in sorted(view.flying.items()):
        curves = [f"{run.metrics[key]:.4f}" if key in run.metrics else "" for key in CURVES]
        values = view.state.trials[number].values if number < len(view.state.trials) else {}
        since = _duration((time.time() - run.started / 1000) / 3600)
        rows.append([f"trial {number}", since, *curves, leaderboard.values_text(values)])
    return table(rows)


def _duration(hours: float) -> str:
    """Hours as one says them."""
    seconds = 3600 * hours
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if hours < 2 else f"{hours:.1f} h"
