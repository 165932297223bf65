"""Faces as the world shows them: noisy, blurred, compressed, too bright, too flat, small, turned, hidden, mirrored.

After Hendrycks & Dietterich (arXiv:1903.12261), for small gray pictures: each kind in STRENGTHS strengths, mirroring in
one. The same images, name and seed give the same pictures.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

STRENGTHS = 5
MIRROR = "mirror"
SIDE = 48  # pixels: sizes below are of a picture whose shorter side is this long

Random = np.random.Generator
Corruption = Callable[[np.ndarray, float, Random], np.ndarray]


def _noise(images: np.ndarray, deviation: float, random: Random) -> np.ndarray:
    """Gaussian, of this deviation in gray levels."""
    return images + random.normal(0, deviation, images.shape)


def _blur(images: np.ndarray, radius: float, random: Random) -> np.ndarray:
    """Gaussian, of this deviation in pixels of SIDE."""
    scaled = ImageFilter.GaussianBlur(radius * min(images.shape[1:]) / SIDE)
    return _each(images, lambda image: image.filter(scaled))


def _jpeg(images: np.ndarray, quality: float, random: Random) -> np.ndarray:
    """JPEG and back."""
    return _each(images, partial(_through_jpeg, quality=int(quality)))


def _through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer, formats=["JPEG"])


def _brightness(images: np.ndarray, levels: float, random: Random) -> np.ndarray:
    """Brighter by so many gray levels, or, as many of the images, darker."""
    return images + levels * _signs(len(images), random)[:, None, None]


def _contrast(images: np.ndarray, factor: float, random: Random) -> np.ndarray:
    """Flatter around an image's mean."""
    mean = images.mean(axis=(1, 2), keepdims=True)
    return (images - mean) * factor + mean


def _low_resolution(images: np.ndarray, side: float, random: Random) -> np.ndarray:
    """As if the shorter side had been so many pixels, enlarged again."""
    height, width = images.shape[1:]
    small = (max(1, round(width * side / min(height, width))), max(1, round(height * side / min(height, width))))

    def coarse(image: Image.Image) -> Image.Image:
        return image.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BILINEAR)

    return _each(images, coarse)


def _rotation(images: np.ndarray, degrees: float, random: Random) -> np.ndarray:
    """To the left, or, as many of the images, to the right; what comes in at the corners repeats the edge."""
    height, width = images.shape[1:]
    corner = (math.hypot(height, width) - min(height, width)) / 2  # beyond the shorter side
    margin = max(max(height, width) // 4, math.ceil(corner)) + 1
    around = np.pad(images, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    angles = iter((degrees * _signs(len(images), random)).tolist())
    turned = _each(around, lambda image: image.rotate(next(angles), Image.Resampling.BILINEAR))
    return turned[:, margin : margin + height, margin : margin + width]


def _occlusion(images: np.ndarray, share: float, random: Random) -> np.ndarray:
    """A rectangle of one gray over this share of the picture, anywhere in it."""
    hidden = images.copy()
    count, height, width = images.shape
    tall, wide = (max(1, round(side * share**0.5)) for side in (height, width))
    places = random.random((count, 3)) * (height - tall + 1, width - wide + 1, 256)
    for image, (top, left, gray) in zip(hidden, places.astype(int), strict=True):
        image[top : top + tall, left : left + wide] = gray
    return hidden


def _mirror(images: np.ndarray, _: float, random: Random) -> np.ndarray:
    return images[:, :, ::-1]


KINDS: dict[str, tuple[Corruption, Sequence[float]]] = {
    "noise": (_noise, (8, 16, 24, 36, 52)),
    "blur": (_blur, (0.5, 1, 1.5, 2.25, 3)),
    "jpeg": (_jpeg, (40, 25, 15, 10, 6)),
    "brightness": (_brightness, (25, 50, 75, 100, 125)),
    "contrast": (_contrast, (0.6, 0.45, 0.3, 0.2, 0.1)),
    "low_resolution": (_low_resolution, (32, 24, 18, 14, 10)),
    "rotation": (_rotation, (7, 14, 21, 30, 40)),
    "occlusion": (_occlusion, (0.05, 0.1, 0.2, 0.3, 0.4)),
    MIRROR: (_mirror, (1,)),
}
CORRUPTIONS = {
    kind if len(strengths) == 1 else f"{kind}_{number}": (kind, number)
    for kind, (_, strengths) in KINDS.items()
    for number in range(1, len(strengths) + 1)
}  # by name: kind, and strength from 1 on


def corrupt(images: np.ndarray, name: str, seed: int = 0) -> np.ndarray:
    """Images uint8 [n, h, w] as the corruption of this name, one of CORRUPTIONS, leaves them: uint8 [n, h, w]."""
    kind, strength = CORRUPTIONS[name]
    call, strengths = KINDS[kind]
    random = np.random.default_rng([seed, list(KINDS).index(kind)])  # strengths differ in strength alone
    made = call(images, strengths[strength - 1], random)
    return np.ascontiguousarray(np.rint(np.clip(made, 0, 255)).astype("uint8"))


def _signs(count: int, random: Random) -> np.ndarray:
    """1 and -1, as many of each, shuffled: [count]."""
    return random.permutation(np.where(np.arange(count) % 2, -1, 1))


def _each(images: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in images])
