"""Image files to gray pixels of one size."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps

from fer_experiments.data.archives import Container
from fer_experiments.errors import UserError

SIZE = (48, 48)  # what images of differing sizes are brought to: FER2013's


def decode_images(container: Container, names: list[str]) -> tuple[np.ndarray, dict[str, int]]:
    """Decode images to uint8 [n, h, w] and count what was converted.

    Colour becomes gray; where sizes differ, all become 48x48. Raises UserError naming a file that is no 8-bit image.
    """
    images: list[Image.Image] = []
    gray = 0
    resizing = False
    resized = 0
    for name in names:
        image = _decode(container, name)
        if image.mode != "L":
            image = image.convert("L")
            gray += 1
        if not resizing and images and image.size != images[0].size:
            resizing = True
            resized = len(images) if images[0].size != SIZE else 0
            images = [_resize(earlier) for earlier in images]
        if resizing and image.size != SIZE:
            resized += 1
            image = _resize(image)
        images.append(image)
    converted = {"colour to gray": gray, f"resized to {SIZE[0]}x{SIZE[1]}": resized}
    return np.stack([np.asarray(image) for image in images]), {what: n for what, n in converted.items() if n}


def _resize(image: Image.Image) -> Image.Image:
    return image if image.size == SIZE else image.resize(SIZE, Image.Resampling.BILINEAR)


def _decode(container: Container, name: str) -> Image.Image:
    content = container.read(name)
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        if image.mode[0] in "IF":
            raise ValueError(f"mode {image.mode} has more than 8 bits")
        return image if image.mode == "L" and not image.info.get("exif") else ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).replace("\n", " ")
        raise UserError(f"{container.path}: image {name} cannot be decoded ({reason}); replace or remove it") from error
