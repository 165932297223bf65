"""Pictures of every format, damaged at random: read, or refused in a line that names them."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image

from fer_experiments.data.images import SIZE, read_picture
from fer_experiments.errors import UserError

COUNT = int(os.environ.get("FER_DAMAGED", "5000"))  # pictures in all; by hand: FER_DAMAGED=20000 pytest <this file>
FORMS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "DDS", "TGA", "PCX", "QOI")
HEADER = 64  # bytes in which half of the damage is done


def whole(form: str) -> list[bytes]:
    """Pictures of a format, small, in several modes and with tags."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[274], exif[270] = 6, "a face"
    saved = []
    for mode in ("L", "RGB", "RGBA", "P", "LA"):
        buffer = io.BytesIO()
        options = {"exif": exif} if form in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF") else {}
        try:
            Image.fromarray(pixels).convert(mode).save(buffer, form, **options)
        except (OSError, ValueError, KeyError):
            continue  # not a mode of this format
        saved.append(buffer.getvalue())
    return saved


def damaged(content: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """Content with bits flipped, cut off, with a piece of another picture in it, or with a piece twice or left out."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        reach = min(HEADER, len(data)) if rng.random() < 0.5 else len(data)
        at, end = sorted(int(x) for x in rng.integers(0, reach, 2)) if reach else (0, 0)
        match rng.integers(5):
            case 0:
                for place in rng.integers(0, max(reach, 1), rng.integers(1, 9)).tolist():
                    data[place : place + 1] = bytes(b ^ (1 << int(rng.integers(8))) for b in data[place : place + 1])
            case 1:
                del data[end:]
            case 2:
                other = others[rng.integers(len(others))]
                start = int(rng.integers(len(other)))
                data[at:end] = other[start : start + int(rng.integers(1, 200))]
            case 3:
                data[at:at] = data[at:end]
            case 4:
                data[at : at + 4] = bytes(rng.choice([0, 1, 127, 255], 4).tolist())
    return bytes(data)


@pytest.mark.parametrize("form", FORMS)
def test_damaged_pictures_are_read_or_refused_by_name(form: str) -> None:
    rng = np.random.default_rng(FORMS.index(form))
    contents = whole(form)
    others = [content for other in FORMS for content in whole(other)]
    outcomes = {"read": 0, "refused": 0}
    for content in contents:
        assert read_picture(content, "whole").shape == SIZE
    for number in range(COUNT // len(FORMS)):
        content = damaged(contents[number % len(contents)], others, rng)
        try:
            assert read_picture(content, "some/face").shape == SIZE
            outcomes["read"] += 1
        except UserError as error:
            assert str(error).startswith("some/face: cannot be read as a picture (") and "\n" not in str(error)
            outcomes["refused"] += 1
    assert outcomes["refused"] > 0
