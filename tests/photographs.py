"""Photographs of drawn faces that the detector takes for some."""

from __future__ import annotations

import numpy as np

from fer_experiments.data.demo import draw_faces
from fer_experiments.data.images import resized
from fer_experiments.serving.finding import find_faces

GRAY = 127
PLACES = [(400, 60, 144), (60, 90, 144)]  # of two faces, from the top down
Place = tuple[int, int, int]  # left, top, side


def photograph(faces: list[np.ndarray], places: list[Place], shape: tuple[int, int] = (300, 640)) -> np.ndarray:
    picture = np.full(shape, GRAY, np.uint8)
    for face, (left, top, side) in zip(faces, places, strict=True):
        picture[top : top + side, left : left + side] = resized(face, (side, side))
    return picture


def found_faces() -> list[np.ndarray]:
    """Two of those drawn, about half, that are found alone in a gray picture."""
    place = (60, 40, 144)
    return [f for f in draw_faces(12, 0).images if len(find_faces(photograph([f], [place], (240, 280)))) == 1][:2]
