"""Pictures as views of them show them: one way for the features that are stored and for a model that is assembled."""

from __future__ import annotations

from typing import Any

import numpy as np

from fer_experiments.config import VIEWS


def shown(pixels: Any, view: str) -> Any:
    """uint8 pixels [b, h, w] or [b, h, w, c], an array or a tensor of Keras, as a view shows them.

    A window is sampled bilinearly, between centres of pixels as in `preprocessing`, and rounded, half to even. Its
    weights are multiples of 1/256: float32 is exact, and every backend and engine comes to the same pixels.
    """
    from keras import ops

    window = VIEWS[view]
    if window.moved:
        x = ops.cast(pixels, "float32")
        x = _sampled(_sampled(x, 1, window.top, window.part), 2, window.left, window.part)
        pixels = ops.cast(ops.round(x), "uint8")
    return ops.flip(pixels, axis=2) if window.mirrored else pixels


def _sampled(x: Any, axis: int, start: int, part: int) -> Any:
    """Along one axis, as many samples as it has of the window that `View` describes, linear between neighbours."""
    from keras import ops

    side = x.shape[axis]
    sixteenths = start * side + (2 * np.arange(side) + 1) * part - 8  # of each sample's place
    place, share = np.divmod(np.clip(sixteenths, 0, 16 * (side - 1)), 16)
    share = (share / 16).astype("float32").reshape(-1, *[1] * (len(x.shape) - axis - 1))
    after = np.minimum(place + 1, side - 1)
    first, second = (ops.take(x, index.astype("int32"), axis=axis) for index in (place, after))
    return first * (1 - share) + second * share
