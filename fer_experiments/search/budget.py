"""What ends a sweep besides its oracle."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from fer_experiments.config import SweepConfig
from fer_experiments.evaluation.metrics import cost
from fer_experiments.search.space import ORACLES
from fer_experiments.search.spread import unmoved
from fer_experiments.search.state import State

NOTHING_MORE = "which has nothing more to try"  # how a sweep ends whose oracle is exhausted
COLLISIONS = 100  # suggestions one after the other that had been tried


def over(state: State, sweep: SweepConfig) -> str | None:
    """The part of the budget that is spent, in words, or None: max_trials, max_hours, patience or target.

    Trials that were not run, as another had the very same values, cost nothing and say nothing; an oracle that suggests
    nothing else any more ends the sweep.
    """
    last = state.trials[len(state.queue) :][-COLLISIONS:]
    if not ORACLES[sweep.oracle].ends and len([t for t in last if t.status == "repeated"]) == COLLISIONS:
        return f"the {sweep.oracle} oracle, whose last {COLLISIONS} suggestions had been tried"
    if sweep.max_trials is not None and state.ran >= sweep.max_trials:
        return f"sweep.max_trials={sweep.max_trials}"
    if sweep.max_hours is not None and state.seconds >= sweep.max_hours * 3600:
        return f"sweep.max_hours={sweep.max_hours:g}"
    if sweep.patience is not None and (still := unmoved(state, sweep.patience)):
        return (
            f"sweep.patience={sweep.patience}: in as many trials the best, now trial {still.number} with "
            f"{still.score:.4f}, has not moved by more than its noise"
        )
    best, target = state.best(), sweep.target
    if best is None or best.score is None or target is None:
        return None
    if cost(best.score, sweep.direction) <= cost(target, sweep.direction):
        return f"sweep.target={target:g}, which trial {best.number} reached with {best.score:.4f}"
    return None


def counted(state: State) -> str:
    """How many trials have ended, in words."""
    ended, repeated = len(state.ended), sum(trial.status == "repeated" for trial in state.ended)
    return f"{ended} trial{'s'[: ended != 1]}" + (f", {repeated} of them not run" if repeated else "")


def more(state: State, sweep: SweepConfig) -> dict[str, Any] | None:
    """What a sweep needs to go on, by config path: of what is spent twice as much, and no target; None: it cannot."""
    if (state.reason or "").endswith(NOTHING_MORE):
        return None
    needed: dict[str, Any] = {}
    while reason := over(state, sweep):
        spent = reason.partition("=")[0]
        if not spent.startswith("sweep."):
            return None
        key = spent.removeprefix("sweep.")
        limit, used = getattr(sweep, key), {"max_trials": state.ran, "max_hours": math.ceil(state.seconds / 36) / 100}
        needed[spent] = None if key == "target" else 2 * max(limit, used.get(key, 0))
        sweep = replace(sweep, **{key: needed[spent]})
    return needed


def per_hour(state: State) -> float | None:
    """Trials that ran, by the hours in which the sweep was at work; None before the first."""
    ran = sum(trial.status != "repeated" for trial in state.ended)
    return 3600 * ran / state.seconds if ran and state.seconds else None


def hours_left(state: State, sweep: SweepConfig) -> float | None:
    """Until the budget is spent, at the speed so far; None where that cannot be told."""
    speed = per_hour(state)
    left = []
    if sweep.max_trials is not None and speed:
        left.append(max(0, sweep.max_trials - state.ran + len(state.in_flight)) / speed)
    if sweep.max_hours is not None:
        left.append(max(0.0, sweep.max_hours - state.seconds / 3600))
    return min(left, default=None)
