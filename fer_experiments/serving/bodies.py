"""The body of a request to pixels, within bounds that are checked before anything is made of it."""

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple

import numpy as np

from fer_experiments.data.images import read_picture, read_whole
from fer_experiments.errors import UserError
from fer_experiments.serving.finding import Found, check_detector, look
from fer_experiments.serving.weight import weight

IMAGES = 1024  # of a request
VALUES = 4 << 20  # numbers of all images of a request
UNITS = 64_000_000  # of all pictures of a request: see `weight`
SLICE = 1_000_000  # units between which others have their turn
FORMATS = ("PNG", "JPEG", "WEBP")
KEYS = ("inputs", "instances")
FIND = "find_faces"
SPACES = b" \t\n\x0b\x0c\r\x1c\x1d\x1e\x1f"  # those of ASCII that str.split knows, without its list of pieces
Size = tuple[int, int]  # height, width


class Refusal(Exception):
    """A request that cannot be answered: an HTTP status of 4xx, or 501, and a line for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Picture(NamedTuple):
    """An encoded picture, its place in the request, and what it takes to decode it, and to search it."""

    content: bytes
    number: int
    units: int


class Asked(NamedTuple):
    """The images of a request, uint8 [n, height, width] or encoded, and whether faces are looked for in these."""

    images: np.ndarray | list[Picture]
    find_faces: bool


def most_images(size: Size) -> int:
    """How many images a request may have."""
    return min(IMAGES, max(1, VALUES // (size[0] * size[1])))


def read_body(body: bytes | bytearray, size: Size) -> Asked:
    """Pixels of nested lists, or pictures to be decoded.

    Raises:
        Refusal: anything else, naming the first thing that is wrong.
    """
    _check_counts(body, size)
    try:
        content = json.loads(body.decode("utf-8-sig"))
    except RecursionError as error:
        raise Refusal(400, "the body is nested too deeply") from error
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON ({error})") from error
    key, images, find = _parts(content)
    if not isinstance(images, list) or not images:
        raise Refusal(400, f"{key} is {_shown(images)}, not a list of images")
    if len(images) > most_images(size):
        raise Refusal(413, f"{key} has {len(images)} images, more than {most_images(size)}: ask for fewer at once")
    texts = sum(isinstance(image, str) for image in images)
    if texts not in (0, len(images)):
        raise Refusal(400, f"{key} has {texts} base64 strings among {len(images)} images; send all in one form")
    if texts:
        return Asked(_pictures(images, find), find)
    if find:
        raise Refusal(400, f"{FIND} looks in pictures: send {key} as base64 strings, not as lists")
    truths = b"true" in body or b"false" in body  # Python takes them for 1 and 0
    pixels = b"".join(_pixels(image, number, size, truths) for number, image in enumerate(images))
    return Asked(np.frombuffer(pixels, "uint8").reshape(-1, *size), find)


def slices(pictures: list[Picture]) -> list[list[Picture]]:
    """The pictures in groups of at most SLICE units, or of one."""
    groups: list[list[Picture]] = []
    units = 0
    for picture in pictures:
        if not groups or units + picture.units > SLICE:
            groups.append([])
            units = 0
        groups[-1].append(picture)
        units += picture.units
    return groups


def decode(pictures: list[Picture], size: Size) -> np.ndarray:
    """uint8 [n, height, width].

    Raises:
        Refusal: one that cannot be read.
    """
    try:
        return np.stack([read_picture(p.content, f"image {p.number}", size, FORMATS) for p in pictures])
    except UserError as error:
        raise Refusal(400, str(error)) from error


def search(pictures: list[Picture], size: Size) -> list[Found]:
    """The faces in each picture; by one thread at once.

    Raises:
        Refusal: a picture that cannot be read, no detector.
    """
    try:
        check_detector(FIND)
    except UserError as error:
        raise Refusal(501, str(error)) from error
    try:
        return [look(read_whole(p.content, f"image {p.number}", FORMATS), size) for p in pictures]
    except UserError as error:
        raise Refusal(400, str(error)) from error


def _check_counts(body: bytes | bytearray, size: Size) -> None:
    """What JSON makes of 32 MB can be 20 times that: what no request needs is refused while it is still bytes."""
    images = most_images(size)
    lists, values, few = images * (size[0] + 1) + 2, images * size[0] * size[1], 2 * images + 16
    for sign, most in ((b"[", lists), (b",", values), (b"{", few), (b":", few), (b'"', few)):
        if (count := body.count(sign)) > most:
            if b"[[[[" in body:
                raise Refusal(400, "the body is nested too deeply")
            raise Refusal(413, f"the body has {count} {sign.decode()}, more than {images} images have")


def _parts(content: Any) -> tuple[str, Any, bool]:
    """The key of the images, these, and whether faces are looked for."""
    keys = [key for key in content if key != FIND] if isinstance(content, dict) else []
    if len(keys) != 1 or keys[0] not in KEYS:
        given = (
            f"has the keys {json.dumps(list(content))[:100]}" if isinstance(content, dict) else f"is {_shown(content)}"
        )
        needed = f'an object with "inputs" or "instances", and nothing else but "{FIND}"'
        raise Refusal(400, f"the body must be {needed}; it {given}")
    if not isinstance(find := content.get(FIND, False), bool):
        raise Refusal(400, f"{FIND} is {_shown(find)}, neither true nor false")
    return keys[0], content[keys[0]], find


def _pictures(texts: list[str], find_faces: bool) -> list[Picture]:
    pictures = []
    for number, text in enumerate(texts):
        encoded = text.partition(",")[2] if text.startswith("data:") else text
        try:
            if not encoded.isascii():
                raise ValueError("not ASCII")
            content = base64.b64decode(encoded.encode().translate(None, SPACES), validate=True)
        except ValueError as error:
            raise Refusal(400, f"image {number} is text that is not base64 ({error})") from error
        try:
            units = weight(content, find_faces)
        except ValueError as error:
            raise Refusal(400, f"image {number}: cannot be read as a picture ({error})") from error
        pictures.append(Picture(content, number, units))
    if (units := sum(picture.units for picture in pictures)) > UNITS:
        raise Refusal(413, f"the pictures take {units / UNITS:.1f} times what a request may: ask for fewer at once")
    return pictures


def _pixels(image: Any, number: int, size: Size, truths: bool) -> bytes:
    """Of nested lists. bytes() of a list of Python ints is faster than numpy, and takes nothing but 0 to 255."""
    height, width = size
    if not isinstance(image, list) or len(image) != height:
        raise Refusal(400, f"image {number} is {_shown(image)}, not {height} rows")
    rows = []
    for y, row in enumerate(image):
        if not isinstance(row, list) or len(row) != width:
            raise Refusal(400, f"image {number}, row {y} is {_shown(row)}, not {width} numbers")
        try:
            if truths and bool in map(type, row):
                raise ValueError
            rows.append(bytes(row))
        except (TypeError, ValueError):
            x = next(x for x, value in enumerate(row) if type(value) is not int or not 0 <= value <= 255)
            raise Refusal(400, f"image {number}, row {y}, column {x} is {_shown(row[x])}") from None
    return b"".join(rows)


def _shown(value: Any) -> str:
    """A client's value in a few words of one line."""
    if isinstance(value, list | dict):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}" if value else "an empty list"
    return json.dumps(value[:40] if isinstance(value, str) else value)[:100]
