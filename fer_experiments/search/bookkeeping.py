"""A sweep at work: what each of its trials came to, and that its oracle, its state and its run are told."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fer_experiments import tracking
from fer_experiments.config import Config, SweepConfig, flatten, to_dict
from fer_experiments.errors import UserError
from fer_experiments.executors.executor import Lost
from fer_experiments.experiment.prepare import Preparations
from fer_experiments.search import keep, leaderboard
from fer_experiments.search.identity import trial_config
from fer_experiments.search.oracle import tell
from fer_experiments.search.state import State
from fer_experiments.search.trials import Outcome, Trial, read
from fer_experiments.terminal import Echo
from fer_experiments.tracking import StoreLost
from fer_experiments.tracking.run import param_of

MAX_CONSECUTIVE_FAILURES = 3
MAX_LOST = 3  # workers that may die of one trial


@dataclass
class Sweep:
    """A sweep at work."""

    config: Config
    sweep: SweepConfig
    store: tracking.Store
    state: State
    folder: Path
    preparations: Preparations
    echo: Echo
    recent: list[Trial] = field(default_factory=list)  # trials that ended in this process, in that order
    lost: dict[int, int] = field(default_factory=dict)  # trial -> workers that died of it
    since: float = field(default_factory=time.monotonic)
    trials: dict[int, Any] = field(default_factory=dict)  # the oracle's own, in flight
    ahead: dict[int, tracking.FoundRun] = field(default_factory=dict)  # trials that its store has, and its state not
    before: frozenset[str] = frozenset()  # the ids of the runs that its trials had before this process
    best: Trial | None = None  # the one that its run shows
    heads: keep.Heads | None = None  # what is known of its trials' heads, once that matters
    request: str | None = None  # why it is to stop, of one who asked for that

    @property
    def command(self) -> str:
        """The command that goes on with it, whatever began it; "" where no command did."""
        return leaderboard.going_on(self.state, self.config)

    @property
    def again(self) -> str:
        """What to do to go on with it; the same command would begin another where it says sweep.fresh=true."""
        if self.sweep.fresh and self.command:
            return f"give `{self.command}`"
        return f"give the same command again{', without sweep.fresh=true,' if self.sweep.fresh else ''}"

    @property
    def own(self) -> dict[str, str]:
        """Tags of the runs of its trials, and of no sweep that has its id elsewhere."""
        return {"mlflow.parentRunId": str(self.state.run_id), "fer.kind": "trial"}

    def clock(self) -> None:
        """Counts the time that has passed."""
        now = time.monotonic()
        self.state.seconds += now - self.since
        self.since = now

    def save(self) -> None:
        """Writes the state."""
        self.clock()
        self.state.save(self.folder)


def conclude(
    sweep: Sweep, oracle: Any, number: int, done: Outcome, parent: tracking.Run, *, found: bool = False
) -> None:
    """Tells the oracle how a trial ended, and shows it; the caller saves the state.

    Of a trial that is run again the oracle has heard: what it is told stays what a replay tells it. found: it ended in
    another process, and is not counted among failures in a row, whose cause may be mended since.
    """
    state = sweep.state
    trial = state.trials[number]
    trial.end(done)
    if number in state.told:
        sweep.save()  # the loop saves where the order grew
    else:
        trial.told = trial.score
        tell(oracle, sweep.trials.pop(number), trial.score)
        state.order.append(number)  # until here a signal leaves it in flight, and its record is found again
    sweep.echo(leaderboard.trial_line(trial, sweep.sweep))
    sweep.best = leaderboard.log_progress(parent, state, trial, sweep.sweep, sweep.best)
    sweep.heads = keep.drop(sweep.heads, sweep.store, state, sweep.sweep, sweep.echo)
    if not found:
        sweep.recent.append(trial)
    last = [t for t in sweep.recent if not t.impossible][-MAX_CONSECUTIVE_FAILURES:]
    if len(last) == MAX_CONSECUTIVE_FAILURES and all(t.failed for t in last):
        sweep.save()
        numbers = ", ".join(str(t.number) for t in last)
        raise UserError(
            f"sweep {state.id}: {len(last)} trials failed in a row ({numbers}), the last with {last[-1].error}; "
            f"mend the cause and {sweep.again} to go on"
        )


def outcome(sweep: Sweep, number: int, future: Future[Outcome]) -> Outcome | None:
    """What a trial came to; None when its worker died, and it must be given to another."""
    try:
        return future.result()
    except StoreLost:
        tracking.stop_retrying()
        raise
    except Lost as error:
        record = record_of(sweep, number)
        if record is not None and not (record.status == "failed" and record.run_id in sweep.before):
            return record  # and not how it ended before it was run again
        deaths = sweep.lost[number] = sweep.lost.get(number, 0) + 1
        tags = {**sweep.own, "fer.trial_number": str(number)}
        last = deaths == MAX_LOST
        tracking.close_runs(sweep.store, tags, "FAILED" if last else "KILLED", str(error))
        if last:
            return Outcome(status="failed", error=f"{deaths} workers died of it: {error}", seconds=0.0)
        sweep.echo(f"trial {number}: {error}; it is given to another worker")
        return None
    except Exception as error:  # not of the trial, which keeps its own: a result or a job that cannot be sent, say
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Outcome(status="failed", error=text, seconds=0.0)


def repeated(sweep: Sweep, oracle: Any, number: int, parent: tracking.Run) -> bool:
    """Whether this very config came to a score before; the oracle is then answered from the record."""
    trial = sweep.state.trials[number]
    for other in sweep.state.trials[:number]:
        if other.status in ("finished", "pruned") and other.work == trial.work:
            known = {
                key: getattr(other, key) for key in ("score", "scores", "metrics", "epochs", "best_epoch", "run_id")
            }
            done = Outcome(status="repeated", of=other.number, seconds=0.0, **known)
            conclude(sweep, oracle, number, done, parent)
            return True
    return False


def twin_in_flight(sweep: Sweep, number: int, running: Iterable[int]) -> bool:
    """Whether this very config is being tried: its score will answer."""
    return any(sweep.state.trials[other].work == sweep.state.trials[number].work for other in running)


def record_of(sweep: Sweep, number: int) -> Outcome | None:
    """What the store has of a trial that ended; None, and it is run again, also where that cannot be read."""
    try:
        is_its = partial(is_of, sweep=sweep, number=number)
        record = tracking.ended_trial(sweep.store, sweep.state.id, number, is_its)
        if record is None:
            return None
        done = read(Outcome, record)
        done.check()
        return done
    except ValueError as error:
        sweep.echo(f"trial {number}: what its run kept cannot be read ({error}); it is run again")
        return None


def is_of(run: tracking.FoundRun, sweep: Sweep, number: int) -> bool:
    """Whether a run with this number is that of this very trial, by its params; one without any may be."""
    trial = sweep.state.trials[number]
    try:
        made = flatten(to_dict(trial_config(sweep.config, trial)))
    except UserError:  # no trial can be made of these values, and what its run has of them is as it was asked for
        made = {}
    values = {path: made.get(path, value) for path, value in trial.values.items()}
    return all(run.params.get(path, (text := param_of(value))) == text for path, value in values.items())
