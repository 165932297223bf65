"""Which trials of a sweep cannot be told from the best, by the spread of their fits, and which of them is taken.

Two trials cannot be told apart where the difference of their means is at most its own standard error (Breiman et al.
1984, "Classification and Regression Trees", on the one-standard-error rule).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

from fer_experiments.config import ALL_FOLDS
from fer_experiments.search.state import State
from fer_experiments.search.trials import Trial

UNKNOWN = math.inf
# What sweep.prefer takes the least of, in words; of two equals the one with the better score.
PREFERENCES: dict[str, tuple[str, Callable[[Trial], float]]] = {
    "best": ("the best score", lambda trial: 0),
    "simple": ("the fewest head parameters", lambda trial: UNKNOWN if trial.parameters is None else trial.parameters),
    "fast": ("the least fit time", lambda trial: UNKNOWN if trial.fit_s is None else trial.fit_s),
}


def tied(state: State) -> list[Trial]:
    """The best trial and those that cannot be told from it, the best first; alone where it has one fit."""
    ranked = state.ranked()
    return ranked[:1] + [trial for trial in ranked[1:] if not differ(state, ranked[0], trial)]


def taken(state: State) -> Trial | None:
    """The trial that best.yaml and a promotion take: of the `tied` ones the one that is preferred."""
    _, least = PREFERENCES[state.prefer]
    return min(tied(state), key=least, default=None)


def differ(state: State, one: Trial, other: Trial) -> bool:
    """Whether the difference of two trials is more than its standard error, where that is known.

    Trials on folds are compared fold by fold: what makes a fold hard is the same for both.
    """
    assert one.score is not None and other.score is not None
    if one.std is None or other.std is None:
        return one.score != other.score
    pairs = list(zip(one.scores, other.scores, strict=False))
    if state.identity.get("data.fold") == ALL_FOLDS and len(pairs) == len(one.scores) == len(other.scores):
        error = statistics.stdev(a - b for a, b in pairs) / math.sqrt(len(pairs))
    else:
        error = math.hypot(*(trial.std / math.sqrt(len(trial.scores)) for trial in (one, other) if trial.std))
    return abs(one.score - other.score) > error


def unmoved(state: State, trials: int) -> Trial | None:
    """The best trial, if it cannot be told from the best before the last so many trials.

    Trials that failed do not count, nor those that were not run, as another had had their values.
    """
    ended = (state.trials[number] for number in state.told)
    scored = [trial for trial in ended if trial.score is not None and trial.status != "repeated"]
    before = {trial.number for trial in scored[:-trials]}
    ranked = state.ranked()
    earlier = next((trial for trial in ranked if trial.number in before), None)
    return ranked[0] if earlier is not None and not differ(state, ranked[0], earlier) else None
