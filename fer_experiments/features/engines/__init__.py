"""One file an engine, by its name: each has a `compile_forward`, which gives a Compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fer_experiments.errors import UserError


class Unsuited(UserError):
    """An engine that cannot compile a network, or gives something else than Keras."""


@dataclass(frozen=True)
class Compiled:
    """A forward pass on batches of at most `batch_size` images.

    start: begins one, on uint8 pixels [b, h, w(, 3)], and returns what waits for its float32 features, one array a cut
    layer. ahead: batches that it works on at once.
    """

    start: Callable[[np.ndarray], Callable[[], list[np.ndarray]]]
    batch_size: int
    ahead: int = 1
