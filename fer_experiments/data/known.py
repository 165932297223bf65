"""Parts of well-known data sets, recognised by their pixels, whatever their source is called."""

from __future__ import annotations

import glob
from functools import cache
from pathlib import Path

import numpy as np

from fer_experiments.data.cleaning import pixel_digests

ASSETS = Path(__file__).resolve().parents[1] / "assets"


def known_images(part: str, images: np.ndarray) -> np.ndarray:
    """Mark the images that belong to a part of a data set, "fer2013/Training" or another that ships, or with "fer2013/"
    to any that ships of it: bool [n].

    images: uint8 [n, h, w]. Recognised are the same pixels, from whatever file and under whatever name; not so pictures
    of another size, encoded again, cropped or mirrored. Of a part whose digests do not ship, no image is recognised.
    """
    known = _digests(part)
    if known is None:
        return np.zeros(len(images), bool)
    return np.isin(_short(images), known)


def ships(part: str) -> bool:
    """Whether the digests of a part ship, so that its images are known."""
    return _digests(part) is not None


def _short(images: np.ndarray) -> np.ndarray:
    """Return the first eight bytes of the sha256 of each image's pixels, uint64 [n].

    That a foreign image has one of 27,000 of them by chance has a probability of 1.5e-15.
    """
    return np.ascontiguousarray(pixel_digests(images)[:, :8]).view(">u8").ravel().astype(np.uint64)


@cache
def _digests(part: str) -> np.ndarray | None:
    source, _, usage = part.rpartition("/")
    pattern = f"{glob.escape(source.replace('/', '-'))}-{glob.escape(usage) or '*'}.npy"
    found = [np.load(path) for path in sorted(ASSETS.glob(pattern))]
    return np.concatenate(found) if found else None
