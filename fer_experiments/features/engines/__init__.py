"""One file an engine, by its name: each has a `compile_forward`, which gives a Compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Compiled:
    """A forward pass on batches of at most `batch_size` images.

    start: begins one, on uint8 pixels [b, h, w(, 3)], and returns what waits for its float32 features, one array a cut
    layer. ahead: batches that it works on at once.
    """

    start: Callable[[np.ndarray], Callable[[], list[np.ndarray]]]
    batch_size: int
    ahead: int = 1
