"""Random changes of face images that leave their expression as it is, on whole batches and in NumPy alone."""

from __future__ import annotations

import numpy as np

from fer_experiments.config import PixelsConfig


def augment(images: np.ndarray, config: PixelsConfig, rng: np.random.Generator) -> np.ndarray:
    """Return a float32 [n, h, w] copy of uint8 `images` [n, h, w], in [0, 255], each image changed in its own way.

    In this order: mirrored or not, rotated, zoomed, sheared and shifted (bilinear), gamma, one rectangle erased.
    """
    changed = _affine(images, config, rng)
    if config.gamma:
        exponents = np.exp(rng.uniform(-config.gamma, config.gamma, (len(images), 1, 1))).astype(np.float32)
        changed = 255 * np.power(changed / 255, exponents)
    if config.erasing:
        _erase(changed, config.erasing, rng)
    return changed


def mixed(
    images: np.ndarray, targets: np.ndarray, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Images and targets, each mixed with another's by a share from a beta distribution (mixup, Zhang et al., 2018)."""
    share = rng.beta(alpha, alpha, len(images)).astype(np.float32)
    other = rng.permutation(len(images))
    of_image, of_target = share.reshape(-1, *[1] * (images.ndim - 1)), share[:, None]
    return of_image * images + (1 - of_image) * images[other], of_target * targets + (1 - of_target) * targets[other]


def _affine(images: np.ndarray, config: PixelsConfig, rng: np.random.Generator) -> np.ndarray:
    """Sample each image on a grid that is mirrored, turned, scaled and moved."""
    count, height, width = images.shape

    def draw(largest: float) -> np.ndarray:
        return rng.uniform(-largest, largest, (count, 1, 1)).astype(np.float32)

    angle, scale = np.deg2rad(draw(config.rotation)), np.exp(draw(np.log1p(config.zoom)))
    mirror = rng.choice(np.array([-1, 1], np.float32), (count, 1, 1)) if config.flip else np.float32(1)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    y = np.arange(height, dtype=np.float32)[None, :, None] - (height - 1) / 2
    x = np.arange(width, dtype=np.float32)[None, None, :] - (width - 1) / 2
    columns = mirror * (cos * x - sin * y) + draw(config.shift) * width + (width - 1) / 2
    rows = sin * x + cos * y + draw(config.shift) * height + (height - 1) / 2
    if config.shear:
        columns = columns + np.tan(np.deg2rad(draw(config.shear))) * y
    columns, rows = _inside(columns, width, config.fill), _inside(rows, height, config.fill)

    left, top = np.minimum(columns.astype(np.int32), width - 2), np.minimum(rows.astype(np.int32), height - 2)
    right_share, bottom_share = columns - left.astype(np.float32), rows - top.astype(np.float32)
    start = (np.arange(count, dtype=np.int32)[:, None, None] * height + top) * width + left
    pixels = images.ravel()
    upper = _between(pixels[start], pixels[start + 1], right_share)
    lower = _between(pixels[start + width], pixels[start + width + 1], right_share)
    return upper + (lower - upper) * bottom_share


def _inside(places: np.ndarray, side: int, fill: str) -> np.ndarray:
    """Where in 0..side - 1 the pixels of these places are taken from: the nearest, or the mirror image in the edge."""
    if fill == "reflect":
        around = np.mod(places + 0.5, 2 * side)
        places = np.minimum(around, 2 * side - around) - 0.5
    return np.clip(places, 0, side - 1)


def _between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Linear interpolation of uint8 arrays in float32."""
    first = first.astype(np.float32)
    return first + (second - first) * share


def _erase(images: np.ndarray, largest: float, rng: np.random.Generator) -> None:
    """Fill a rectangle of each image, up to `largest` of its area, with one random gray (Zhong et al., 2020)."""
    count, height, width = images.shape
    area, aspect = rng.uniform(0, largest, (count, 1, 1)), np.exp(rng.uniform(-0.7, 0.7, (count, 1, 1)))
    tall, wide = np.sqrt(area * aspect) * height, np.sqrt(area / aspect) * width
    top, left = (rng.uniform(0, 1, (count, 1, 1)) * (side - part) for side, part in ((height, tall), (width, wide)))
    y, x = np.arange(height)[None, :, None] + 0.5, np.arange(width)[None, None, :] + 0.5  # centres of pixels
    inside = (y >= top) & (y < top + tall) & (x >= left) & (x < left + wide)
    gray = rng.uniform(0, 255, (count, 1, 1)).astype(np.float32)
    np.copyto(images, gray, where=inside)
