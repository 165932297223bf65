"""What ends a sweep besides its oracle."""

from __future__ import annotations

from fer_experiments.config import SweepConfig
from fer_experiments.evaluation.metrics import cost
from fer_experiments.search.spread import unmoved
from fer_experiments.search.state import State


def over(state: State, sweep: SweepConfig) -> str | None:
    """The part of the budget that is spent, in words, or None: max_trials, max_hours, patience or target."""
    if sweep.max_trials is not None and len(state.trials) >= sweep.max_trials:
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
