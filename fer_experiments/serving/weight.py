"""What a picture costs to decode, told from its bytes before any decoder sees them."""

from __future__ import annotations

import re
import struct

from fer_experiments.serving.finding import enlarged

PIXELS = 12_500_000  # of a picture: what telephones take
MOST = 2 * PIXELS  # units of a picture: what a pixel takes, some 20 ns
SEARCHED = 3  # units of each pixel in which faces are looked for, once it has the size for that: 45 to 60 ns
SCANS = 8  # of a JPEG, that take what its pixels do
PARTS = 1000
PART = 250  # units that each part of a file takes, by a loop in Python
PACKED = 8  # texts and profiles of a picture
INFLATED = 1 << 19  # units of one, which a kilobyte can make a megabyte
BARE = (0x00, 0x01, *range(0xD0, 0xDA))  # JPEG's markers without a length
SIZES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # those with the size
MARKER = re.compile(rb"\xff[^\xff]")


def weight(content: bytes, find_faces: bool = False) -> int:
    """Units that a PNG, JPEG or WebP takes; of anything else, which is refused soon, 0.

    find_faces: and those that looking for faces in it takes.

    Raises:
        ValueError: more than a picture may take, in a few words.
    """
    scans, most = 1, PARTS + len(content) // 1000
    if content.startswith(b"\x89PNG"):
        size, parts, packed = _of_png(content, most)
    elif content.startswith(b"\xff\xd8"):
        size, parts, packed = _of_jpeg(content, most)
        scans = content.count(b"\xff\xda")
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        size, parts, packed = _of_webp(content), 0, 0  # its library reads it in one go
    else:
        return 0
    if parts > most or packed > PACKED:
        raise ValueError("it has more parts than a picture needs: save it anew, without metadata")
    pixels = size[0] * size[1]
    if pixels > PIXELS:
        raise ValueError(f"its {size[0]}x{size[1]} pixels are more than {PIXELS / 1e6:g} million")
    units = pixels + pixels * scans // SCANS + parts * PART + packed * INFLATED
    if units > MOST:
        raise ValueError(f"its {scans} scans of {size[0]}x{size[1]} pixels take too long")
    if find_faces:
        height, width = enlarged(size[1], size[0])[1]
        units += SEARCHED * height * width
    return units


def _of_png(content: bytes, most: int) -> tuple[tuple[int, int], int, int]:
    """The largest size that is said; chunks; and those that are inflated when the file is opened."""
    at, size, parts, packed = 8, (0, 0), 0, 0
    while at + 8 <= len(content) and parts <= most:
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"IHDR":
            said = (int.from_bytes(content[at + 8 : at + 12]), int.from_bytes(content[at + 12 : at + 16]))
            size = max(size, said, key=lambda s: s[0] * s[1])
        at += 12 + length
        parts += 1 if kind == b"IDAT" else 10
        packed += kind in (b"iCCP", b"zTXt", b"iTXt")
    return size, parts, packed


def _of_jpeg(content: bytes, most: int) -> tuple[tuple[int, int], int, int]:
    """The same; segments before the first scan and bytes between them; tables of EXIF, which Pillow makes one of."""
    at, size, parts, tables = 2, (0, 0), 0, 0
    while parts <= most and (found := MARKER.search(content, at)):
        parts += 1 + found.start() - at
        at, marker = found.end(), content[found.end() - 1]
        if marker == 0xDA:
            break
        if marker in SIZES:
            said = (int.from_bytes(content[at + 5 : at + 7]), int.from_bytes(content[at + 3 : at + 5]))
            size = max(size, said, key=lambda s: s[0] * s[1])
        if marker not in BARE:
            tables += marker == 0xE1 and content[at + 2 : at + 6] == b"Exif"
            at += max(2, int.from_bytes(content[at : at + 2]))
    return size, parts, PACKED + 1 if tables > 1 else 0


def _of_webp(content: bytes) -> tuple[int, int]:
    if content[12:16] == b"VP8X":
        return 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(content[27:30], "little")
    if content[12:16] == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(content[26:28], "little") & 0x3FFF, int.from_bytes(content[28:30], "little") & 0x3FFF
