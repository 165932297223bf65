"""Labelled faces, as every reader returns them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fer_experiments.errors import UserError

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # FER2013's codes 0..6
USAGES = ("Training", "PublicTest", "PrivateTest")
WHOLE = 512 << 20  # pixels that a source may have: 230,000 faces of FER2013's size, 10,000 of 224x224


@dataclass(frozen=True)
class Faces:
    """Labelled faces, one row an image.

    images: uint8 [n, h, w]. emotion: str [n], the emotion's name. usage: str [n], one of USAGES, "" where the source
    has none. ids: str [n], stable and unique. converted: what a reader had to change or leave out -> how many.
    """

    images: np.ndarray
    emotion: np.ndarray
    usage: np.ndarray
    ids: np.ndarray
    converted: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> Faces:
        """Return the faces of `rows` (int64 indices or bool mask), in that order."""
        return Faces(self.images[rows], self.emotion[rows], self.usage[rows], self.ids[rows], self.converted)


def too_many(where: str) -> UserError:
    """The error for a source of more than WHOLE pixels."""
    return UserError(f"{where}: its images have more than {WHOLE >> 20} million pixels; make them smaller or fewer")
