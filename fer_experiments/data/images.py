"""The one decoder of pictures, for training, prediction and serving: files to gray pixels, told by their content."""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from fer_experiments.data.archives import Container
from fer_experiments.errors import UserError
from fer_experiments.terminal import fit

Size = tuple[int, int]  # width, height

SIZE = (48, 48)  # FER2013's: of pictures of which no size is that of most
LIMIT = 128 << 20  # bytes of a file; what is larger is no picture, or endless
PIXELS = 64_000_000  # of a picture
FEWER = {"JPEG2000": PIXELS // 4, "WEBP": PIXELS // 2}  # whose decoders hold 15 to 25 bytes for each
WHOLE = 512_000_000  # pixels of all pictures of a source; more where their files are as large as photographs'
PER_BYTE = 200  # pixels for each byte of such files: a JPEG of a face has 3 to 20, one made to burst 100,000
GROUND = 128  # the gray that shows through what is transparent
# What is decoded, by Pillow itself; the most common first, for they are tried in this order. Not EPS, for which Pillow
# runs a program, nor ICO, which holds pictures of any other size than it says.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "DDS", "PCX", "QOI", "TGA")
# Names that promise a picture: what is behind one and is none is a fault, and not passed over.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".pnm"),
    *(".avif", ".heic", ".heif", ".jp2", ".svg", ".dds", ".pcx", ".qoi", ".tga"),
)
HEAD = 64  # bytes that tell a format
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ", b"qoif")
CONTENT = re.compile(rb"RIFF....WEBP|....ftyp(avi|hei|hev|mif1|msf1)|BM....\0\0\0\0|P[1-6]\s+[#0-9]", re.DOTALL)
NOT_READ = {
    "HEIC, which is not read: convert it to JPEG or PNG": re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.DOTALL),
    "a drawing in SVG and no pixels: convert it to PNG": re.compile(rb"[^\0]{0,2000}<svg"),
    "an HTML page: was its download refused?": re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE),
}
ORIENTATION = 0x0112  # the tag's number in EXIF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TABLES = 1 << 17  # bytes of EXIF: each of its entries may take all of them into memory again
WITH_ORIENTATION = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # keys of Pillow's info


class Gray(NamedTuple):
    """A picture of mode L, and what was done to it to become one."""

    image: Image.Image
    changes: tuple[str, ...]


def is_picture(name: str, head: Callable[[], bytes]) -> bool:
    """Tell whether a file is a picture by its content, or should be by its name; head: reads its first HEAD bytes."""
    try:
        return name.lower().endswith(SUFFIXES) or begins_picture(head())
    except (OSError, UserError):  # a pipe, a link upwards or to nowhere, a file that may not be read
        return False


def begins_picture(head: bytes) -> bool:
    """Tell by its first HEAD bytes whether a file is a picture, whatever its name."""
    return head.startswith(MAGIC) or CONTENT.match(head) is not None


def read_picture(
    content: bytes, name: str, size: tuple[int, int] = SIZE, formats: tuple[str, ...] = FORMATS
) -> np.ndarray:
    """Gray uint8 [h, w] of a picture of any size, upright.

    Brought to `size` (height, width) in the way that a folder of pictures of differing sizes is before training, so
    that a model sees as much detail as it learned from. What is transparent shows one gray; of an animation the first
    picture is taken. formats: those that are taken, out of FORMATS.

    Raises:
        UserError: content that is no whole picture, or pixels without a known range; begins with `name`.
    """
    return resized(read_whole(content, name, formats), size)


def read_whole(content: bytes, name: str, formats: tuple[str, ...] = FORMATS) -> np.ndarray:
    """The same in its own size; see `read_picture`."""
    with _quietly():
        return np.asarray(_gray(content, name, formats).image)


def resized(gray: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Gray uint8 [h, w] in another size (height, width), as every picture is brought to that of a model."""
    return np.asarray(_resized(Image.fromarray(gray), (size[1], size[0])))


def decode_images(container: Container, names: list[str]) -> tuple[np.ndarray, dict[str, int]]:
    """Decode images as `read_picture` does to uint8 [n, h, w] and count what was changed.

    Where sizes differ, all become that of more than half of them, or 48x48 where there is none. Raises UserError naming
    the first file that is no picture.
    """
    sizes: list[Size] = []
    changes: Counter[str] = Counter()
    size, settled, images, read = SIZE, False, np.empty((0, 0, 0), np.uint8), 0
    with _quietly():
        for row, name in enumerate(names):
            content = _content(container, name)
            read += len(content)
            image, changed = _gray(content, f"{container.path}: {name}")
            changes.update(changed)
            sizes.append(image.size)
            if row == 0:
                size = image.size
            if not settled and (image.size != size or len(names) * size[0] * size[1] > WHOLE):
                rest = [_size(_content(container, other)) for other in names[row + 1 :]]
                size, settled = _usual([*sizes, *rest]), True
            if images.shape[2:0:-1] != size:
                images = _room(container, images[:row], len(names), size, read // (row + 1))
            images[row] = np.asarray(_resized(image, size))
    if odd := [row for row, given in enumerate(sizes) if given != size]:
        first = "{}x{}".format(*sizes[odd[0]])
        changes["resized to {}x{}, ".format(*size) + f"first {fit(names[odd[0]])} of {first}"] = len(odd)
    return images, dict(changes)


def _room(container: Container, images: np.ndarray, count: int, size: Size, each: int) -> np.ndarray:
    """Room for so many images of that size, in which the first ones are. each: bytes of a file."""
    most = max(WHOLE, PER_BYTE * each * count)
    if count * size[0] * size[1] > most:
        raise UserError(
            f"{container.path}: its {count:,} images of {size[0]}x{size[1]} have more than {most // 1_000_000} million "
            f"pixels, in files of {each:,} bytes; make them smaller, or give fewer"
        )
    room = np.empty((count, size[1], size[0]), np.uint8)
    for row, image in enumerate(images):
        room[row] = np.asarray(_resized(Image.fromarray(image), size))
    return room


def _quietly() -> warnings.catch_warnings[None]:
    """Pillow warns of oddities in tags, and of large pictures."""
    return warnings.catch_warnings(action="ignore")


def _content(container: Container, name: str) -> bytes:
    return limited(container.read(name, LIMIT + 1), f"{container.path}: {name}")


def limited(content: bytes, where: str) -> bytes:
    """The content of a picture's file, of which LIMIT + 1 bytes were read. Raises UserError for more than LIMIT."""
    if len(content) > LIMIT:
        raise UserError(f"{where} is larger than {LIMIT >> 20} MB; give a smaller picture")
    return content


def _usual(sizes: list[Size | None]) -> Size:
    size, count = Counter(sizes).most_common(1)[0]
    return size if size and 2 * count > len(sizes) else SIZE


def _resized(image: Image.Image, size: Size) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def _gray(content: bytes, where: str, formats: tuple[str, ...] = FORMATS) -> Gray:
    """The picture in `content`. Raises UserError that begins with `where`, whatever is wrong."""
    try:
        image = _opened(content, formats)
        if _is_deep(image, content):
            raise ValueError("more than 8 bits a channel, of unknown range: convert it to 8 bits")
        image.load()
        return _upright(_flat(image), image)
    except UnidentifiedImageError as error:
        reason = next((what for what, head in NOT_READ.items() if head.match(content)), "no format that is known")
        raise _refusal(where, reason if content else "the file is empty") from error
    except Exception as error:  # Pillow's plugins raise what they like: NotImplementedError of a damaged DDS
        raise _refusal(where, str(error) or type(error).__name__) from error


def _refusal(where: str, reason: str) -> UserError:
    return UserError(f"{where}: cannot be read as a picture ({' '.join(reason.split())}); replace or remove it")


@cache
def _known(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Those that this Pillow knows."""
    Image.init()
    return tuple(form for form in formats if form in Image.OPEN)


def _opened(content: bytes, formats: tuple[str, ...] = FORMATS) -> ImageFile.ImageFile:
    image = Image.open(io.BytesIO(content), formats=_known(formats))
    most = FEWER.get(str(image.format), PIXELS)
    if image.width * image.height > most:
        raise ValueError(f"its {image.width}x{image.height} pixels are more than {most // 10**6} million")
    return image


def _is_deep(image: ImageFile.ImageFile, content: bytes) -> bool:
    """Tell whether there are more than 8 bits a channel: 12 of them are often stored as 16, which are all but black."""
    if image.mode[0] in "IF":
        return True
    if image.format == "PNG":
        return content[24] > 8  # of its header; colours of 16 bits are cut to 8 without a word
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,))) > 8  # type: ignore[attr-defined]
    args = image.tile[0].args if image.format == "PPM" else ()
    return isinstance(args, tuple) and args[-1:] > (255,)


def _flat(image: Image.Image) -> Gray:
    """Gray without transparency: the colour that is hidden under it is no part of the picture."""
    if not image.has_transparency_data:
        return Gray(image if image.mode == "L" else image.convert("L"), _greyed(image))
    colour = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
    alpha = colour.getchannel("A")
    least, most = alpha.getextrema()
    if most == 0:
        raise ValueError("it is transparent throughout, a picture without content")
    if least == 255:
        return Gray(image.convert("L"), _greyed(image))
    ground = Image.new("L", image.size, GROUND)
    return Gray(Image.composite(colour.convert("L"), ground, alpha), (*_greyed(image), "transparency to gray"))


def _greyed(image: Image.Image) -> tuple[str, ...]:
    return () if image.mode in ("L", "LA", "1") else ("colour to gray",)


def _upright(gray: Gray, image: Image.Image) -> Gray:
    """Turned as the file says. ImageOps.exif_transpose writes the tags anew, and fails of one that is malformed."""
    turn = UPRIGHT.get(_orientation(image))
    return gray if turn is None else Gray(gray.image.transpose(turn), (*gray.changes, "turned upright"))


def _orientation(image: Image.Image) -> int:
    """What EXIF or XMP says; 1, upright, where they are missing or cannot be read, as viewers take it."""
    if image.format == "TIFF" or not WITH_ORIENTATION & image.info.keys():
        return 1  # Pillow turns a TIFF itself when it loads it
    if max(len(image.info.get("exif", b"")), len(image.info.get("Raw profile type exif", "")) // 2) > TABLES:
        return 1
    try:
        said = image.getexif().get(ORIENTATION)
    except Exception:  # whatever bytes that are no tags make of its parser
        return 1
    return said if isinstance(said, int) else 1


def _size(content: bytes) -> Size | None:
    """A picture's size without its pixels; None where it cannot be read, which is said when it is decoded."""
    try:
        image = _opened(content)
        said = image.getexif().get(ORIENTATION) if image.format == "TIFF" else _orientation(image)
    except Exception:
        return None
    return (image.height, image.width) if said in (5, 6, 7, 8) else image.size
