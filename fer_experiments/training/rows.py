"""Stored features of some rows: in the memory that a fit computes in where they fit, else taken as they are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

CHUNK = 1024  # rows that are copied at once


class Features(Protocol):
    """What training asks of stored features; `fer_experiments.features.FeatureSet` is one."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of one image's features, one tuple a cut layer."""
        ...

    @property
    def views(self) -> tuple[str, ...]:
        """The stored views; "original" is one of them."""
        ...

    def take(self, rows: np.ndarray, view: str = "original") -> list[np.ndarray]:
        """The features of these rows, one array a cut layer."""
        ...


class Rows:
    """Features of n rows in every view: row i in view v has the place v * n + i.

    arrays: all of them, [views * n, *shape] a cut layer, where `load` put them; None where they are too many.
    """

    def __init__(self, features: Features, rows: np.ndarray) -> None:
        self.features, self.rows = features, rows
        self.arrays: list[Any] | None = None

    def places(self, view: str) -> np.ndarray:
        """Of all rows in a view, int32."""
        return np.arange(len(self.rows), dtype="int32") + len(self.rows) * self.features.views.index(view)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: np.ndarray) -> list[np.ndarray]:
        """The features at these places, in this order, one array a cut layer."""
        view, row = np.divmod(places, len(self.rows))
        if not view.any():
            return self.features.take(self.rows[row], self.features.views[0])
        out: list[np.ndarray] = []
        for number, name in enumerate(self.features.views):
            chosen = np.flatnonzero(view == number)
            taken = self.features.take(self.rows[row[chosen]], name)
            out = out or [np.empty((len(places), *array.shape[1:]), array.dtype) for array in taken]
            for whole, part in zip(out, taken, strict=True):
                whole[chosen] = part
        return out

    def load(self, on_device: Callable[[np.ndarray], Any]) -> None:
        """Puts all of them on the device."""
        count = len(self.rows) * len(self.features.views)
        wholes = [np.empty((count, *array.shape[1:]), array.dtype) for array in self.take(np.zeros(1, "int64"))]
        for start in range(0, count, CHUNK):
            for whole, part in zip(wholes, self.take(np.arange(start, min(start + CHUNK, count))), strict=True):
                whole[start : start + CHUNK] = part
        self.arrays = [on_device(whole) for whole in wholes]

    @property
    def bytes(self) -> int:
        """Of one row in one view."""
        return sum(array.nbytes for array in self.take(np.zeros(1, "int64")))


_kept: list[Rows] = []  # of the last fit in this process: a sweep's trials share them


def load(features: Features, rows: np.ndarray, backend: Any) -> Rows:
    """The features of these rows, on the device where they take a quarter of its free memory at most.

    Those of the last two calls stay there for the next, as long as it is for the same features.
    """
    for kept in _kept:
        if kept.features is features and np.array_equal(kept.rows, rows):
            return kept
    _kept[:] = [kept for kept in _kept if kept.features is features][-1:]
    found = Rows(features, rows)
    if found.bytes * len(rows) * len(features.views) <= backend.free_memory() / 4:
        found.load(backend.on_device)
    _kept.append(found)
    return found
