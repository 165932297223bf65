"""What a picture costs to decode, told from its bytes before any decoder sees them."""

from __future__ import annotations

import re
import struct

PIXELS = 12_500_000  # of a picture: what telephones take
MOST = 2 * PIXELS  # units of a picture: what a pixel takes, some 20 ns
PART = 250  # units that each part of a file takes, by a loop in Python
INFLATED = 1 << 19  # units of a text or profile, which a kilobyte can make a megabyte
SCAN = 8  # scans of a JPEG that take what its pixels do
PARTS = 1000
PACKED = 8  # texts and profiles of a picture
BARE = (0x00, 0x01, *range(0xD0, 0xDA))  # JPEG's markers without a length


def weight(content: bytes, size: tuple[int, int]) -> int:
    """Units that a PNG, JPEG or WebP of this width and height takes; `check_parts` has been asked first.

    Raises:
        ValueError: more than a picture may take, in a few words.
    """
    pixels = size[0] * size[1]
    if pixels > PIXELS:
        raise ValueError(f"its {size[0]}x{size[1]} pixels are more than {PIXELS / 1e6:g} million")
    scans = content.count(b"\xff\xda") if content.startswith(b"\xff\xd8") else 1
    units = pixels + pixels * scans // SCAN + check_parts(content)
    if units > MOST:
        raise ValueError(f"its {scans} scans of {size[0]}x{size[1]} pixels take too long")
    return units


def check_parts(content: bytes) -> int:
    """Units that the parts of a PNG or a JPEG take besides the pixels: Pillow reads them one by one, and inflates some.

    Raises:
        ValueError: more of them than any picture has, in a few words.
    """
    if content.startswith(b"\x89PNG"):
        parts, packed = _of_png(content)
    elif content.startswith(b"\xff\xd8"):
        parts, packed = _of_jpeg(content)
    else:
        return 0  # WebP is read by its library, in one go
    if parts > PARTS + len(content) // 1000 or packed > PACKED:
        raise ValueError("it has more parts than a picture needs: save it anew, without metadata")
    return parts * PART + packed * INFLATED


def _of_png(content: bytes) -> tuple[int, int]:
    """Chunks, and those that are inflated when the file is opened."""
    at, parts, packed, most = 8, 0, 0, PARTS + len(content) // 1000
    while at + 8 <= len(content) and parts <= most:
        length, kind = struct.unpack_from(">I4s", content, at)
        at += 12 + length
        parts += 1 if kind == b"IDAT" else 10
        packed += kind in (b"iCCP", b"zTXt", b"iTXt")
    return parts, packed


def _of_jpeg(content: bytes) -> tuple[int, int]:
    """Segments before the first scan and bytes between them; tables of EXIF, which Pillow puts together to one."""
    at, parts, tables = 2, 0, 0
    while parts <= PARTS and (found := re.compile(rb"\xff[^\xff]").search(content, at)):
        parts += 1 + found.start() - at
        at, marker = found.end(), content[found.end() - 1]
        if marker == 0xDA:
            break
        if marker not in BARE:
            tables += marker == 0xE1 and content[at + 2 : at + 6] == b"Exif"
            at += max(2, int.from_bytes(content[at : at + 2]))
    return parts, PACKED + 1 if tables > 1 else 0
