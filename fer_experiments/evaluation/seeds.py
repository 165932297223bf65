"""How much of a score is noise: its spread over seeds, and differences against that."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A score over seeds: mean, standard deviation (n - 1), and the 95 % interval of the mean (Student's t)."""

    count: int
    mean: float
    std: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.std:.4f} ({self.count} seeds)"


def spread(scores: Sequence[float]) -> Spread:
    """Of the scores of two seeds or more; ValueError of fewer."""
    from scipy.stats import t

    if len(scores) < 2:
        raise ValueError(f"{len(scores)} scores: a spread takes two")
    mean, std = statistics.fmean(scores), statistics.stdev(scores)
    half = float(t.ppf(0.975, len(scores) - 1)) * std / len(scores) ** 0.5
    return Spread(len(scores), mean, std, mean - half, mean + half)


def welch(first: Spread, second: Spread) -> float:
    """Two-sided p of their means being equal (Welch 1947); 1 of equal means, 0 of other means without any spread."""
    from scipy.stats import ttest_ind_from_stats

    if first.std == second.std == 0:
        return float(first.mean == second.mean)
    told = [(each.mean, each.std, each.count) for each in (first, second)]
    return float(ttest_ind_from_stats(*told[0], *told[1], equal_var=False).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of several tests, each raised so that one below 0.05 is one by chance in 5 % of such sets (Holm
    1979)."""
    raised, least = [0.0] * len(p_values), 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[number]))
        raised[number] = least
    return raised
