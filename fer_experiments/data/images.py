"""Image files to gray pixels of one size."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

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


def read_picture(content: bytes, name: str, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Gray uint8 [h, w] of any picture that Pillow reads, of any size, upright.

    Brought to `size` (height, width) in the way that a folder of pictures of differing sizes is before training, so
    that a model sees as much detail as it learned from. More than 8 bits become 8; of an animation the first picture is
    taken.

    Raises:
        UserError: content that is no whole picture, or pixels without a known range; begins with `name`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of oddities in tags, and of sizes over 89 megapixels; over 179 it raises
            return _gray(content, size)
    except UnidentifiedImageError as error:
        reason = "no format that is known" if content else "the file is empty"
        raise UserError(f"{name}: cannot be read as a picture ({reason}); replace it") from error
    except Exception as error:  # Pillow's plugins raise what they like: NotImplementedError of a damaged DDS
        reason = str(error).replace("\n", " ") or type(error).__name__
        raise UserError(f"{name}: cannot be read as a picture ({reason}); replace it") from error


def _gray(content: bytes, size: tuple[int, int]) -> np.ndarray:
    image: Image.Image = Image.open(io.BytesIO(content))
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode[0] in "IF":
        raise ValueError(f"mode {image.mode} has more than 8 bits, of unknown range")
    image = image.convert("L")
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


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
