"""Which rows of a comparison differ by more than noise: paired tests on the same images, and spreads over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fer_experiments.evaluation.bootstrap import Difference, McNemar, mcnemar, paired_bootstrap
from fer_experiments.evaluation.seeds import holm, welch
from fer_experiments.report.entries import Entry

ALPHA = 0.05


@dataclass(frozen=True)
class Paired:
    """Two rows on the same images: the difference of their accuracies, and the images that one alone has right."""

    difference: Difference
    mcnemar: McNemar


@dataclass(frozen=True)
class Pair:
    """Two rows that some test can be made of. first, second: their places. p values: Holm's over all pairs.

    seeds: the difference of their means over seeds. None: that test cannot be made.
    """

    first: int
    second: int
    paired: Paired | None
    paired_p: float | None
    seeds: float | None
    seeds_p: float | None

    @property
    def verdict(self) -> str:
        """Which one is better, if every test that can be made says so."""
        found = [(self.paired.difference.value, self.paired_p)] if self.paired else []
        found += [(self.seeds, self.seeds_p)] if self.seeds is not None else []
        if any(p is None or p >= ALPHA for _, p in found) or len({value > 0 for value, _ in found}) > 1:
            return "no difference beyond noise"
        return f"{self.first if found[0][0] > 0 else self.second} is better"


def pairs(rows: Sequence[Entry]) -> tuple[list[Pair], list[int]]:
    """The pairs of rows, counted from 1, that a test can be made of; and the recorded rows without predictions."""
    said = [row.predictions() for row in rows]
    found = []
    for i, j in combinations(range(len(rows)), 2):
        first, second = rows[i], rows[j]
        paired = _paired(said[i], said[j]) if first.images & second.images else None
        means = p = None
        same = first.validated and first.validated == second.validated
        if first.seeds and second.seeds and same and first.seeds != second.seeds:  # else they are of one config
            means, p = first.seeds.mean - second.seeds.mean, welch(first.seeds, second.seeds)
        if paired or p is not None:
            found.append(Pair(i + 1, j + 1, paired, paired.mcnemar.p_value if paired else None, means, p))
    return _raised(found), [place for place, row in enumerate(rows, start=1) if row.run and said[place - 1] is None]


def _paired(first: tuple[np.ndarray, np.ndarray] | None, second: tuple[np.ndarray, np.ndarray] | None) -> Paired | None:
    if first is None or second is None or not np.array_equal(first[0], second[0]):
        return None
    labels, ours, theirs = first[0], first[1], second[1]
    return Paired(paired_bootstrap(labels, ours, theirs), mcnemar(labels, ours, theirs))


def _raised(found: Sequence[Pair]) -> list[Pair]:
    """The pairs with p values that count how many tests there are of each kind."""
    kinds = [[getattr(pair, name) for pair in found] for name in ("paired_p", "seeds_p")]
    raised = []
    for values in kinds:
        left = iter(holm([p for p in values if p is not None]))
        raised.append([None if p is None else next(left) for p in values])
    return [
        Pair(pair.first, pair.second, pair.paired, p, pair.seeds, q) for pair, p, q in zip(found, *raised, strict=True)
    ]
