"""Faces in photographs, found by dlib's detector of frontal faces, which is inside its package.

Histograms of oriented gradients in a window (Dalal & Triggs 2005), at several sizes; turned and half hidden faces are
often missed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_experiments.data.images import resized
from fer_experiments.errors import UserError

LONGEST = (
    1600  # pixels that the longer side is brought to before faces are looked for: smaller ones than 80 are not seen
)
LARGER = 4  # times that a small picture is enlarged at most
# Where the detector's box lies in a picture of FER2013: its share of the side, and how far its middle is below the
# picture's. Medians of the 193 that it found in 300 faces of Training, drawn at random and enlarged four times.
SHARE, BELOW = 0.78, 0.04
COLOUR = (255, 64, 0)
CONSTANT = "constant, one gray level throughout: no face"


class Face(NamedTuple):
    """A square around a face, in pixels of the picture: cut out, it shows as much as a picture of FER2013.

    confidence: of the detector, how far above the least that it takes for a face; no probability.
    """

    left: int
    top: int
    width: int
    height: int
    confidence: float

    def __str__(self) -> str:
        return f"{self.width}x{self.height}+{self.left}+{self.top}"


class Found(NamedTuple):
    """The faces in a picture, each cut out as well, uint8 [n, h, w]; note: why there are none."""

    faces: list[Face]
    crops: np.ndarray
    note: str


def check_detector(asked: str = "--find-faces") -> None:
    """Makes the detector ready, which takes a quarter of a second; refuses to look for faces without dlib.

    asked: by which words.

    Raises:
        UserError: with the remedy.
    """
    try:
        import dlib  # noqa: F401
    except ImportError as error:
        raise UserError(f"{asked}: dlib is not installed; pip install dlib-bin (the extra faces)") from error
    _detector()


@cache
def _detector() -> Any:
    import dlib

    return dlib.get_frontal_face_detector()


def look(gray: np.ndarray, size: tuple[int, int]) -> Found:
    """What is in uint8 [h, w] for a model of this size (height, width)."""
    constant = np.ptp(gray) == 0
    faces = [] if constant else find_faces(gray)
    crops = [cut_out(gray, face, size) for face in faces]
    note = "" if faces else CONSTANT if constant else "no face found"
    return Found(faces, np.stack(crops) if crops else np.empty((0, *size), np.uint8), note)


def find_faces(gray: np.ndarray) -> list[Face]:
    """The faces in uint8 [h, w], from the top left to the bottom right; by one thread at once."""
    scale, size = enlarged(*gray.shape)
    boxes, scores, _ = _detector().run(resized(gray, size), 0, 0.0)
    squares: dict[tuple[int, int, int, int], float] = {}
    for box, score in zip(boxes, scores, strict=True):  # the surest first
        square = _square(box.left(), box.top(), box.right(), box.bottom(), scale, gray.shape)
        squares.setdefault(square, round(score, 4))
    faces = [Face(*square, score) for square, score in squares.items()]
    return sorted(faces, key=lambda face: (face.top, face.left))


def enlarged(height: int, width: int) -> tuple[float, tuple[int, int]]:
    """The scale at which a picture is searched, and its size (height, width) then."""
    scale = min(LARGER, LONGEST / max(height, width, 1))
    return scale, (round(height * scale) or 1, round(width * scale) or 1)


def _square(
    left: float, top: float, right: float, bottom: float, scale: float, shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """What FER2013 would show of a face with this box (left, top, width, height), moved into the picture."""
    side = min(max(1, round((right - left) / SHARE / scale)), *shape)
    middle = (top + bottom) / 2 / scale - BELOW * side, (left + right) / 2 / scale
    y, x = (min(max(0, round(place - side / 2)), length - side) for place, length in zip(middle, shape, strict=True))
    return x, y, side, side


def cut_out(gray: np.ndarray, face: Face, size: tuple[int, int]) -> np.ndarray:
    """The face alone, uint8 [h, w] of this size (height, width)."""
    return resized(gray[face.top : face.top + face.height, face.left : face.left + face.width], size)


def make_folder(folder: Path) -> None:
    """Makes a folder for copies; UserError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"marked={folder}: cannot be made ({error.strerror}); name another folder") from error


def mark(gray: np.ndarray, found: list[tuple[Face, str]], path: Path) -> None:
    """Writes a PNG of the picture, in gray, with its faces framed and labelled."""
    image = Image.fromarray(gray).convert("RGB")
    draw, line = ImageDraw.Draw(image), max(1, max(gray.shape) // 400)
    for face, label in found:
        right, bottom = face.left + face.width - 1, face.top + face.height - 1
        draw.rectangle((face.left, face.top, right, bottom), outline=COLOUR, width=line)
        font = ImageFont.load_default(max(10, face.height / 6))
        box = draw.textbbox((face.left, face.top), label, font=font)
        draw.rectangle(box, fill=COLOUR)
        draw.text((face.left, face.top), label, fill="white", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
