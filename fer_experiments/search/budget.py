"""What ends a sweep besides its oracle."""

from __future__ import annotations

from fer_experiments.config import SweepConfig
from fer_experiments.search.state import State


def over(state: State, sweep: SweepConfig) -> str | None:
    """The part of the budget that is spent, in words, or None: max_trials, max_hours or target."""
    if sweep.max_trials is not None and len(state.trials) >= sweep.max_trials:
        return f"sweep.max_trials={sweep.max_trials}"
    if sweep.max_hours is not None and state.seconds >= sweep.max_hours * 3600:
        return f"sweep.max_hours={sweep.max_hours:g}"
    best = state.best()
    if sweep.target is not None and best is not None:
        reached = best["score"] >= sweep.target if sweep.direction == "max" else best["score"] <= sweep.target
        if reached:
            return f"sweep.target={sweep.target:g}, which trial {best['number']} reached with {best['score']:.4f}"
    return None
