"""How much two images are one photograph: one is laid over the other as well as it fits, and the two are correlated.

Everything works on a band of detail, what is left of an image between two blurs, where light and contrast do not
matter, on a grid of 48x48 points or fewer, whatever the size of the source. A move is (x, y) in points and (share,
share) by which what is looked at is larger than the grid, across and down.
"""

from __future__ import annotations

import numpy as np

SIDE = 48  # of the finest grid, and the pixels in which all lengths are given
MEDIUM, FINE = (1.5, 5.0), (0.8, 4.0)  # the two blurs (sigma, pixels) of a band
FAINTEST = 1.0  # grey levels, root mean square of a band: less is no picture
ALIKE = 0.91  # correlation of the medium band that is worth a fine registration
BLOCK, MARGIN = 6, 3  # of the correlation: side of a block, and what is left out at the border, pixels
TRIMMED = 0.25  # of the correlation: the share of the blocks that may be anything, as a watermark or a caption
OVERLAP = 0.5  # share of the blocks that both images must have
FARTHEST, MOST = 7.0, 0.3  # how far a registration may move, pixels, and stretch
RESIDUAL = 1.5  # of a registration, in standard deviations of the band: more counts as much
COARSE_STEPS, FINE_STEPS = 3, 4


def scores(first: np.ndarray, second: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Return for each pair of images how much it is one photograph, float32 [n], at most 1; 0 where it plainly is not.

    first, second: uint8 [n, h, w]. moves: float32 [n, 4], where to begin, in pixels of SIDE.
    """
    score = np.zeros(len(first), np.float32)
    halved = np.array([0.5, 0.5, 1, 1], np.float32)
    a, b = band(first, MEDIUM, 2), band(second, MEDIUM, 2)
    moves = _register(a, b, moves * halved, COARSE_STEPS)
    near = np.flatnonzero(_correlation(a, b, moves) > ALIKE)
    if len(near):
        a, b = band(first[near], FINE, 1), band(second[near], FINE, 1)
        score[near] = _correlation(a, b, _register(a, b, moves[near] / halved, FINE_STEPS))
    return score


def blur(size: int, at: np.ndarray, sigma: float) -> np.ndarray:
    """Return the Gaussian weights, float32 [points, size], with which a row of `size` pixels makes up the points `at`.

    at, sigma: in pixels of a row of SIDE.
    """
    scale = size / SIDE
    centre = (at + 0.5) * scale - 0.5
    distance = (np.arange(size) - centre[:, None]) / max(sigma * scale, 0.5)
    weights = np.exp(-0.5 * (distance**2 - (distance**2).min(axis=1, keepdims=True)))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def band(images: np.ndarray, sigmas: tuple[float, float], step: int) -> np.ndarray:
    """Return what lies between two blurs of the images, float32 [n, SIDE / step, SIDE / step]."""
    at = (np.arange(SIDE // step) + 0.5) * step - 0.5
    pixels = images.astype(np.float32)
    fine, coarse = (blur(images.shape[1], at, s) @ pixels @ blur(images.shape[2], at, s).T for s in sigmas)
    return fine - coarse


def _warp(images: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the images as the moves look at them, and where that is inside of them, bool [n, side, side]."""
    side = images.shape[1]
    place = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    row = np.arange(len(images))[:, None]
    inside = []
    for axis in (1, 0):  # the rows, then the columns
        at = (1 + moves[:, 2 + axis, None]) * place + moves[:, axis, None] + np.float32((side - 1) / 2)
        inside.append((at >= -0.5) & (at <= side - 0.5))
        at = np.clip(at, 0, np.float32(side - 1.001))
        low = at.astype(np.int64)
        share = (at - low)[:, :, None]
        images = (images[row, low] * (1 - share) + images[row, low + 1] * share).transpose(0, 2, 1)
    return images, inside[0][:, :, None] & inside[1][:, None, :]


def _standard(images: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Return the images with mean 0 and deviation 1 inside the window."""
    total = window.sum()
    images = images - (images * window).sum((1, 2), keepdims=True) / total
    return images / np.maximum(np.sqrt((images**2 * window).sum((1, 2), keepdims=True) / total), 1e-3)


def _register(first: np.ndarray, second: np.ndarray, moves: np.ndarray, steps: int) -> np.ndarray:
    """Return the moves of the second bands that fit the first best, by Gauss-Newton from `moves` on.

    The inverse compositional form of Baker & Matthews (2004), its slopes those of the first, with bounded residuals.
    """
    side = first.shape[1]
    margin = (MARGIN + 1) * side // SIDE
    window = np.zeros((side, side), np.float32)
    window[margin : side - margin, margin : side - margin] = 1
    first = _standard(first, window)
    down, across = np.gradient(first, axis=(1, 2))
    place = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    slopes = np.stack([across, down, across * place, down * place[:, None]], 1) * window
    slopes = slopes.reshape(len(first), 4, -1)
    damping = np.diag(np.array([1, 1, 2 * side, 2 * side], np.float32))
    inverse = np.linalg.inv(slopes @ slopes.transpose(0, 2, 1) + damping)
    limit = np.array([FARTHEST * side / SIDE] * 2 + [MOST] * 2, np.float32)
    for _ in range(steps):
        residual = np.clip(_standard(_warp(second, moves)[0], window) - first, -RESIDUAL, RESIDUAL)
        moves = np.clip(moves - (inverse @ slopes @ residual.reshape(len(first), -1, 1))[:, :, 0], -limit, limit)
    return moves


def _correlation(first: np.ndarray, second: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Return the correlation of the first bands and the second ones, moved, over the blocks that fit best."""
    moved, inside = _warp(second, moves)
    step = SIDE // first.shape[1]
    a, b = _blocks(first, step), _blocks(moved, step)
    both = np.asarray(_blocks(inside, step).all(axis=2))
    counted = both
    for _ in range(3):
        weights = counted[:, :, None].astype(np.float32)
        total = np.maximum(weights.sum((1, 2)) * a.shape[2], 1)[:, None, None]
        x, y = (part - (part * weights).sum((1, 2), keepdims=True) / total for part in (a, b))
        spread_x, spread_y = (np.sqrt((part**2 * weights).sum((1, 2), keepdims=True) / total) for part in (x, y))
        x, y = x / np.maximum(spread_x, 1e-6), y / np.maximum(spread_y, 1e-6)
        correlation = (x * y * weights).sum((1, 2)) / total[:, 0, 0]
        misfit = np.where(both, ((x - y) ** 2).sum(axis=2), np.inf)
        rank = misfit.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
        counted = both & (rank < np.ceil((1 - TRIMMED) * both.sum(axis=1, keepdims=True)))
    faint = np.minimum(spread_x, spread_y)[:, 0, 0] < FAINTEST
    return np.where(faint | (both.mean(axis=1) < OVERLAP), 0, np.clip(correlation, -1, 1)).astype(np.float32)


def _blocks(images: np.ndarray, step: int) -> np.ndarray:
    """Cut [n, side, side] without its margin into blocks, [n, blocks, points]."""
    margin, block = -(-MARGIN // step), BLOCK // step
    count = (images.shape[1] - 2 * margin) // block
    inner = images[:, margin : margin + count * block, margin : margin + count * block]
    cut = inner.reshape(len(images), count, block, count, block).transpose(0, 1, 3, 2, 4)
    return cut.reshape(len(images), count * count, block * block)
