"""Labelled faces, as every reader returns them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fer_experiments.config import USAGES as USAGES

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # FER2013's codes 0..6


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


def images_digest(images: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> str:
    """Return what two results have in common whose images, row by row, and labels are the same: sha256 (hex)."""
    digest = hashlib.sha256(repr((images.shape, tuple(classes))).encode())
    for array in (images, labels.astype("int64")):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
