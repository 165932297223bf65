"""Which fits are hopeless beside the other trials: limits that their best so far must hold, epoch by epoch.

median: worse than most others by then; Golovin et al. 2017, "Google Vizier", but for the best so far of the others and
not their mean so far. asha: not among the best that came as far; Li et al. 2020, "A System for Massively Parallel
Hyperparameter Tuning", in the form that ends trials and resumes none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fer_experiments.evaluation.metrics import cost

WARMUP = {"median": 3, "asha": 0}  # first epochs in which no fit is ended
REASONS = {"median": "worse than the median of the other trials", "asha": "not among the best that came as far"}


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


def rungs(curves: Sequence[Sequence[float]], direction: str, least: int, factor: int) -> list[float]:
    """The limits of asynchronous successive halving, by epoch: nan but for the rungs.

    These are the epochs least, least * factor, and so on. Of the n trials that came to a rung, with the one that is
    there now, the best n // factor go on, and the best one always.

    Args:
        curves: of each trial that ended, by itself or not, the objective after each epoch.
        direction: max or min.
        least: epochs before the first rung.
        factor: from 2.
    """
    bests = [best_so_far(curve, direction) for curve in curves]
    found: list[float] = []
    epoch = least
    while reached := [best[epoch - 1] for best in bests if len(best) >= epoch]:
        place = max(1, (len(reached) + 1) // factor)
        limit = cost(np.sort(cost(np.array(reached), direction))[place - 1], direction)
        found += [math.nan] * (epoch - 1 - len(found)) + [float(limit)]
        epoch *= factor
    return found


def hopeless(curve: Sequence[float], limits: Sequence[float], direction: str, warmup: int = WARMUP["median"]) -> bool:
    """Whether a trial's best so far is worse than the limit of its last epoch.

    Args:
        curve: the objective after each epoch so far.
        limits: `medians` or `rungs` of the other trials; beyond their end, and where one is nan, nothing is hopeless.
        direction: max or min.
        warmup: the number of first epochs in which nothing is.
    """
    epochs = len(curve)
    if epochs <= warmup or epochs > len(limits):
        return False
    best, limit = best_so_far(curve, direction)[-1], limits[epochs - 1]
    return bool(cost(best, direction) > cost(limit, direction))


def best_so_far(curve: Sequence[float], direction: str) -> np.ndarray:
    """The best of each value and those before it, float64 [n]; nan, which says nothing of the others, is overlooked."""
    return cost(np.fmin.accumulate(cost(np.asarray(curve, "float64"), direction)), direction)
