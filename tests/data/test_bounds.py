"""Small files that would be large, or without end, to their reader: refused in a line, within 2 GB of memory."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from face_files import png, random_faces, write_folder
from PIL import Image

from fer_experiments.data import images
from fer_experiments.data.readers import read_faces
from fer_experiments.errors import UserError

FACE = png(random_faces(1).images[0])
HEADER = b"emotion,pixels,Usage\n"
MEMORY = 2000  # MB, of a process that refuses something
READ = """
import sys
from pathlib import Path
from fer_experiments.data.readers import read_faces
from fer_experiments.errors import UserError
try:
    print(read_faces(Path(sys.argv[1])).images.shape)
except UserError as error:
    print(f"refused: {error}")
# Not ru_maxrss, which begins with what the process had that started this one.
print(int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) // 1024)
"""


def picture(width: int, height: int, form: str = "PNG", mode: str = "1") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, form)
    return buffer.getvalue()


def zipped(path: Path, name: str, start: bytes, piece: bytes, count: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open(name, "w") as file:
        file.write(start)
        for _ in range(count):
            file.write(piece)
    return path


def gzipped(path: Path, start: bytes, piece: bytes, count: int) -> Path:
    path.write_bytes(gzip.compress(start) + gzip.compress(piece) * count)  # members follow one another
    return path


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def pictures(folder: Path, *contents: bytes) -> Path:
    with zipfile.ZipFile(folder / "pictures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"{'happy' if number % 2 else 'sad'}/{number}.png", contents[number % len(contents)])
    return folder / "pictures.zip"


def wide_window(folder: Path) -> Path:
    """A table in an xz file that would have its reader remember 4 GB."""
    content = bytearray(lzma.compress(HEADER))
    end = 12 + 4 * (content[12] + 1) - 4  # of the block's header
    content[16] = 40
    content[end : end + 4] = struct.pack("<I", zlib.crc32(content[12:end]))
    (folder / "table.csv.xz").write_bytes(content)
    return folder / "table.csv.xz"


def unusual(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "unusual.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("happy/1.png", FACE)
    return folder / "unusual.zip"


def without_end(folder: Path) -> Path:
    write_folder(folder / "faces", {"sad/1.png": FACE, "happy/1.png": FACE})
    (folder / "faces" / "happy" / "2.png").symlink_to("/dev/zero")
    return folder / "faces"


def holes(folder: Path) -> Path:
    write_folder(folder / "faces", {"sad/1.png": FACE, "happy/1.png": FACE})
    os.truncate(folder / "faces" / "happy" / "1.png", 1 << 40)
    return folder / "faces"


ROWS = b"0," + b"0 " * (1 << 19)
INPUTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pictures in a zip": (lambda f: pictures(f, picture(8000, 8000)), "its 40 images of 8000x8000 have more than 512"),
    "a large file in a zip": (
        lambda f: zipped(f / "a.zip", "happy/1.png", FACE, bytes(1 << 20), 300),
        "happy/1.png is larger than 128 MB",
    ),
    "a row in a zip": (lambda f: zipped(f / "a.zip", "fer2013.csv", HEADER, ROWS, 1100), "larger than 1 GB"),
    "a field in a zip": (
        lambda f: zipped(f / "a.zip", "fer2013.csv", HEADER + b'0,"', ROWS[2:], 40),
        "row 2: not CSV text .16 MB and no end of it",
    ),
    "a header": (
        lambda f: zipped(f / "a.zip", "fer2013.csv", b"", b"emotion,pixels," * (1 << 16), 40),
        "row 1: not CSV text .16 MB and no end of it",
    ),
    "short rows": (lambda f: zipped(f / "a.zip", "fer2013.csv", HEADER, b"0,0,\n" * (1 << 18), 8), "1,048,576 lines"),
    "blank rows": (lambda f: zipped(f / "a.zip", "fer2013.csv", HEADER, b"\n" * (1 << 20), 8), "1,048,576 lines"),
    "NUL bytes": (lambda f: zipped(f / "a.zip", "fer2013.csv", HEADER, bytes(1 << 20), 2000), "row 2: a NUL byte"),
    "a table in gzip": (lambda f: gzipped(f / "fer2013.csv.gz", HEADER, ROWS, 1100), "larger than 1 GB"),
    "a table in a tar.gz": (
        lambda f: gzipped(f / "a.tar.gz", header("fer2013.csv", 3 << 30) + HEADER.ljust(512), b"0 " * (1 << 19), 3072),
        "truncated or damaged",
    ),
    "a long name": (
        lambda f: gzipped(f / "a.tar.gz", header("x", 2 << 30, tarfile.GNUTYPE_LONGNAME), b"a" * (1 << 20), 2200),
        "its list of files is larger than any that is read",
    ),
    "long tags": (
        lambda f: gzipped(f / "a.tar.gz", header("x", 2 << 30, tarfile.XHDTYPE), b"a" * (1 << 20), 2200),
        "its list of files is larger than any that is read",
    ),
    "many members": (
        lambda f: gzipped(f / "a.tar.gz", b"", b"".join(header(f"happy/{n}.png") for n in range(2000)), 300),
        "its list of files is larger than any that is read",
    ),
    "unpacked without end": (
        lambda f: gzipped(f / "a.tar.gz", header("happy/1.png", 90 << 30), bytes(1 << 20), 10),
        "more than 8 GB unpacked",
    ),
    "a window": (wide_window, "truncated or damaged .Memory usage limit exceeded"),
    "a method": (unusual, "happy/1.png is compressed in an unusual way; pack it again"),
    "a link to a device": (without_end, "happy/2.png: cannot be read .not a plain file"),
    "a file of holes": (holes, "happy/1.png is larger than 128 MB"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_what_grows_is_refused_in_bounded_memory(tmp_path: Path, name: str) -> None:
    make, reason = INPUTS[name]
    path = make(tmp_path)
    found = subprocess.run(
        [sys.executable, "-c", READ, str(path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)),
    )
    assert found.returncode == 0, found.stderr[-500:]
    said, memory = found.stdout.splitlines()
    assert said.startswith(f"refused: {path}")
    assert reason.replace(" .", " (") in said
    assert int(memory) < MEMORY


def test_pictures_too_large_for_all_are_read_where_most_are_small(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", READ, str(pictures(tmp_path, picture(8000, 8000), FACE, FACE, FACE, FACE))],
        capture_output=True,
        text=True,
        check=True,
    )
    said, memory = found.stdout.splitlines()
    assert said == "(40, 48, 48)" and int(memory) < MEMORY


def test_a_large_source_whose_files_are_as_large_as_photographs_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """AffectNet has 14,000 million pixels, in files of five for each byte."""
    monkeypatch.setattr(images, "WHOLE", 10_000)
    monkeypatch.setattr(images, "PER_BYTE", 20)
    noise = np.random.default_rng(0).integers(0, 256, (100, 100), dtype=np.uint8)
    content = png(noise)
    assert read_faces(pictures(tmp_path, content)).images.shape == (40, 100, 100)
    with pytest.raises(UserError, match="its 40 images of 100x100 have more than"):
        read_faces(pictures(tmp_path, picture(100, 100)))
