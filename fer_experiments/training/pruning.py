"""The median rule: a fit whose best epoch is worse than most others had it by then is ended.

Golovin et al. 2017, "Google Vizier", on median stopping; here, the best so far of the others and not their mean so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_experiments.evaluation.metrics import cost


def medians(curves: Sequence[Sequence[float]], direction: str, startup: int = 5) -> list[float]:
    """The median over trials of their best value so far, by epoch.

    Args:
        curves: of each trial that ended by itself, the objective after each epoch.
        direction: max or min.
        startup: the list ends at the first epoch that fewer trials reached.
    """
    bests = [best_so_far(curve, direction) for curve in curves]
    found: list[float] = []
    while len(reached := [best[len(found)] for best in bests if len(best) > len(found)]) >= max(startup, 1):
        found.append(float(np.median(reached)))
    return found


def hopeless(curve: Sequence[float], medians: Sequence[float], direction: str, warmup: int = 3) -> bool:
    """Whether a trial's best so far is worse than the median at its last epoch.

    Args:
        curve: the objective after each epoch so far.
        medians: of the other trials; beyond their end nothing is hopeless.
        direction: max or min.
        warmup: the number of first epochs in which nothing is.
    """
    epochs = len(curve)
    if epochs <= warmup or epochs > len(medians):
        return False
    best, median = best_so_far(curve, direction)[-1], medians[epochs - 1]
    return bool(cost(best, direction) > cost(median, direction))


def best_so_far(curve: Sequence[float], direction: str) -> np.ndarray:
    """The best of each value and those before it, float64 [n]; nan, which says nothing of the others, is overlooked."""
    return cost(np.fmin.accumulate(cost(np.asarray(curve, "float64"), direction)), direction)
