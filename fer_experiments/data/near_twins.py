"""Near twins: images of one photograph that are not the same to the pixel.

In another size, crop, compression, brightness, with another watermark, or mirrored. Coarse descriptors of all images
are compared with those of all others, as these are, moved, enlarged and mirrored; what looks alike is then registered
and correlated (`registration`), and is a pair of twins from THRESHOLD on.

A pair's score depends on its two images alone, not on the other images nor on the order of the files. Not found are
rotated pictures, strongly stretched ones, crops to less than about two thirds, and what was drawn from a photograph;
two frames of one scene are not twins while something moved between them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from fer_experiments.data.registration import SIDE, blur, scores
from fer_experiments.files import write_atomically

VERSION = 1  # raise it when other pairs come to be found
THRESHOLD = 0.95  # of the score: docs/results.md has what lies around it
SMALLEST = 16  # pixels of a side: fewer do not tell photographs apart

BAND = (2.0, 5.0)  # of a descriptor: the two blurs (sigma, pixels of SIDE) between which it is taken
GRID, SPACING, HIGHEST = 14, 3, 8.0  # of a descriptor: points a side, their distance, the highest frequency kept
ALIKE = 0.82  # correlation of two descriptors that is worth a registration
ROWS, PAIRS = 1024, 512  # at a time
WORKERS = 4  # threads, of about 100 MB each

# How the second image of a pair is looked at: moved by (x, y) pixels, enlarged by which share, and whether mirrored. Of
# two opposite moves one will do: the images of a pair are compared in both orders.
_AROUND = ((0, 0), (3, 0), (-3, 0), (0, 3), (0, -3), (3, 3), (-3, 3), (3, -3), (-3, -3))
_MOVED = ((0, 0), (3, 0), (0, 3), (3, 3), (-3, 3))
LOOKS = (
    *((x, y, 0.0, False) for x, y in _MOVED),
    *((x, y, zoom, False) for zoom in (0.1, 0.2) for x, y in _AROUND),
    *((x, y, zoom, True) for x, y, zoom in ((0, 0, 0.0), (3, 0, 0.0), (0, 3, 0.0), (0, 0, 0.1))),
)


Found = TypeVar("Found")


@dataclass(frozen=True)
class Pairs:
    """Pairs of near twins.

    rows: int64 [m, 2], ascending in each. score: float32 [m]. mirrored: bool [m]: one is like the other mirrored.
    """

    rows: np.ndarray
    score: np.ndarray
    mirrored: np.ndarray


@dataclass(frozen=True)
class NearTwins(Pairs):
    """The near twins of a source, of identical images the first.

    groups: int64 [n], equal for identical images, near twins, and near twins of near twins.
    """

    groups: np.ndarray


def find_twins(images: np.ndarray, digests: np.ndarray, groups: np.ndarray, cache: Path | None = None) -> NearTwins:
    """Return the near twins among images, constant ones left out; see `find_pairs`.

    groups: int64 [n], equal for identical images.
    """
    first = np.sort(np.unique(groups, return_index=True)[1])
    first = first[np.ptp(images[first].reshape(len(first), -1), axis=1) > 0]
    pairs = find_pairs(images[first], digests[first], cache)
    rows = first[pairs.rows]
    return NearTwins(rows, pairs.score, pairs.mirrored, merged(groups, rows))


def find_pairs(images: np.ndarray, digests: np.ndarray, cache: Path | None = None) -> Pairs:
    """Return the pairs of near twins among images of different pixels.

    images: uint8 [n, h, w]. digests: uint8 [n, 32], the sha256 of their pixels. cache: where what was found is kept; a
    folder that cannot be written costs time alone.
    """
    order = np.lexsort(digests.T[::-1])
    path = cache and cache / "near_twins" / f"{_identity(images.shape, digests[order])}.npz"
    found = path and _stored(path, len(images))
    if not found:
        found = _compare(images, order)
        if path:
            _store(path, found)
    rows = np.sort(order[found.rows], axis=1)
    by_row = np.lexsort((rows[:, 1], rows[:, 0]))
    return Pairs(rows[by_row], found.score[by_row], found.mirrored[by_row])


def merged(groups: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Number the groups that come of joining those of each pair of rows: int64 [n]."""
    count = int(groups.max(initial=-1)) + 1
    from scipy.sparse import coo_array  # here: SciPy takes a second, and most commands compare no faces
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(rows), bool), (groups[rows[:, 0]], groups[rows[:, 1]])), shape=(count, count))
    return connected_components(links, directed=False)[1].astype(np.int64)[groups]


def _identity(shape: tuple[int, ...], digests: np.ndarray) -> str:
    return hashlib.sha256(f"{VERSION} {shape}".encode() + digests.tobytes()).hexdigest()


def _stored(path: Path, count: int) -> Pairs | None:
    try:
        with np.load(path) as stored:
            found = Pairs(stored["rows"], stored["score"], stored["mirrored"])
    except Exception:  # whatever NumPy and zipfile make of a damaged file
        return None
    pairs, rows = len(found.score), found.rows
    sound = rows.shape == (pairs, 2) and found.mirrored.shape == (pairs,) and found.score.shape == (pairs,)
    sound = sound and rows.dtype.kind == "i" and found.mirrored.dtype == bool
    return found if sound and rows.min(initial=0) >= 0 and rows.max(initial=-1) < count else None


def _store(path: Path, found: Pairs) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, partial(np.savez, allow_pickle=False, **vars(found)))
    except OSError:
        return


def _compare(images: np.ndarray, order: np.ndarray) -> Pairs:
    """Return the pairs, their rows those of `order`."""
    if len(images) < 2 or min(images.shape[1:]) < SMALLEST:
        return Pairs(np.zeros((0, 2), np.int64), np.zeros(0, np.float32), np.zeros(0, bool))
    candidates, look = _candidates(images, order)
    x, y, zoom, mirrored = (np.array(column)[look] for column in zip(*LOOKS, strict=True))
    moves = np.column_stack([x, y, -zoom, -zoom]).astype(np.float32)

    def score_of(start: int) -> np.ndarray:
        here = slice(start, start + PAIRS)
        first, second = (images[order[column]] for column in candidates[here].T)
        second[mirrored[here]] = second[mirrored[here], :, ::-1]
        return scores(first, second, moves[here])

    found = _in_threads(score_of, range(0, len(candidates), PAIRS))
    score = np.concatenate([np.zeros(0, np.float32), *found])
    taken = np.flatnonzero(score >= THRESHOLD)
    rows, score, mirrored = np.sort(candidates[taken], axis=1), score[taken], mirrored[taken]
    best = _first_of_each(rows, mirrored, -score)  # a symmetric face is its twin's mirror as well
    return Pairs(rows[best], score[best], mirrored[best])


def _candidates(images: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of rows of `order`, int64 [m, 2], and which of LOOKS makes them most alike, int64 [m].

    The second of a pair is what is looked at. A pair may come twice, as it is and mirrored.
    """
    plain = _descriptors(images, order, LOOKS[0])

    def look_at(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        moved = _descriptors(images, order, LOOKS[number])
        pairs, alike = _alike(plain, moved, LOOKS[number][:3] == (0, 0, 0.0))
        return pairs, alike, np.full(len(pairs), number)

    found = _in_threads(look_at, range(len(LOOKS)))
    pair, alike, look = (np.concatenate(column) for column in zip(*found, strict=True))
    flipped = np.array([mirrored for *_, mirrored in LOOKS])[look]
    best = _first_of_each(np.column_stack([np.sort(pair, axis=1), flipped]), look, -alike)
    return pair[best], look[best]


def _alike(plain: np.ndarray, moved: np.ndarray, symmetric: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of different rows whose descriptors are alike, int64 [m, 2], and how much, float32 [m].

    symmetric: the second row is to be the larger, the two being alike either way.
    """
    pairs, alike = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, len(plain), ROWS):
        for other in range(start if symmetric else 0, len(plain), ROWS):
            product = plain[start : start + ROWS] @ moved[other : other + ROWS].T
            where = np.flatnonzero(product > ALIKE)
            rows = np.column_stack(np.divmod(where, product.shape[1])) + np.array([start, other])
            wanted = rows[:, 0] < rows[:, 1] if symmetric else rows[:, 0] != rows[:, 1]
            pairs.append(rows[wanted])
            alike.append(product.ravel()[where[wanted]])
    return np.concatenate(pairs), np.concatenate(alike)


def _in_threads(call: Callable[[int], Found], numbers: Iterable[int]) -> list[Found]:
    """Return what `call` gives for each number, in their order, computed by several threads.

    Their matrix products are small: shared out by BLAS as well, they took four times as long on a busy machine.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        return list(pool.map(call, numbers))


def _first_of_each(keys: np.ndarray, then: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return for each different row of keys, int [n, k], the index with the smallest (first, then)."""
    order = np.lexsort((then, first, *keys.T[::-1]))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(keys[order], axis=0) != 0).any(axis=1)
    return order[new]


def _descriptors(images: np.ndarray, order: np.ndarray, look: tuple[float, float, float, bool]) -> np.ndarray:
    """Return for each image, looked at so, the low frequencies of a band, float32 [n, d] of length 1 (0 where flat)."""
    x, y, zoom, mirrored = look
    middle = (SIDE - 1) / 2
    at = (1 - zoom) * SPACING * (np.arange(GRID) - (GRID - 1) / 2) + middle
    place = np.arange(GRID)
    cosines = np.cos(np.pi / GRID * np.outer(place, place + 0.5)) * np.sqrt(np.where(place > 0, 2, 1) / GRID)[:, None]
    size = np.hypot(place[:, None], place)
    kept = (size > 0) & (size <= HIGHEST)
    weights = np.zeros((int(kept.sum()), *images.shape[1:]))
    for sigma, sign in zip(BAND, (1, -1), strict=True):
        down = cosines @ blur(images.shape[1], at + y, sigma * (1 - zoom))
        across = cosines @ blur(images.shape[2], at + x, sigma * (1 - zoom))
        down_of, across_of = np.nonzero(kept)
        weights += sign * down[down_of][:, :, None] * across[across_of][:, None, :]
    if mirrored:
        weights = weights[:, :, ::-1]
    flat = weights.reshape(len(weights), -1).astype(np.float32).T
    found = np.empty((len(order), len(weights)), np.float32)
    for start in range(0, len(order), ROWS):
        batch = images[order[start : start + ROWS]].reshape(-1, len(flat)).astype(np.float32)
        found[start : start + ROWS] = batch @ flat
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1.0)
