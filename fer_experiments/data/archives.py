"""Folders, zip and tar archives behind one interface: names of files, and their bytes.

Archives are read in memory and never extracted.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from _compression import DecompressReader
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from fer_experiments.data.folders import is_hidden, open_plain, walk
from fer_experiments.errors import UserError, first_line

# What zipfile and tarfile raise on bytes that are not what they claim to be.
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)
BLOCK = 512  # bytes, of a tar
# Bounds of what an archive makes its reader hold, or go through, before any file in it is asked for; bytes.
HEADERS = 192 << 20  # of all headers of a tar: 400,000 files
HEADER = 64 << 20  # of one header, and of a zip's directory
UNPACKED = 8 << 30  # of a tar that is compressed
WINDOW = 256 << 20  # of what an xz file has its reader remember
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)  # others have windows without a bound


@dataclass(frozen=True)
class Container:
    """A folder or an archive. files, folders: paths inside it with `/`, hidden ones left out.

    open: opens a file; it, and what is read while it is open, raises UserError for what cannot be read.
    """

    path: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]
    open: Callable[[str], AbstractContextManager[IO[bytes]]]

    def read(self, name: str, most: int = -1) -> bytes:
        """The bytes of a file, at most that many. Raises UserError for what cannot be read."""
        with self.open(name) as file:
            return file.read(most)


class _Bounded:
    """A stream as an archive's reader sees it while it lists what is there. Raises ValueError beyond the bounds."""

    def __init__(self, stream: IO[bytes], most: int, end: float = float("inf")) -> None:
        self._stream, self._left, self._end = stream, most, end
        self.tell, self.seekable = stream.tell, stream.seekable

    def read(self, count: int = -1) -> bytes:
        content = self._stream.read(min(count, HEADER + 1) if count >= 0 else HEADER + 1)
        self._left -= len(content)
        if len(content) > HEADER or self._left < 0:
            raise ValueError("its list of files is larger than any that is read")
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if offset > self._end:
            raise ValueError(f"more than {UNPACKED >> 30} GB unpacked")
        return self._stream.seek(offset, whence)


def is_archive(path: Path) -> bool:
    """Tell by its content whether a file is a zip or a tar, the latter compressed or not."""
    if _is_zip(path):
        return True
    with open_unpacked(path) as stream:
        return _is_tar(stream)


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, or what a gzip, bzip2 or xz file holds, told by content."""
    with open_plain(path) as file:
        head = file.read(6)
        file.seek(0)
        if head.startswith(b"\x1f\x8b"):
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=file))
        elif head.startswith(b"BZh"):
            yield bz2.BZ2File(file)
        elif head.startswith(b"\xfd7zXZ\x00"):  # LZMAFile has no bound
            reader = DecompressReader(file, lzma.LZMADecompressor, lzma.LZMAError, memlimit=WINDOW)
            yield io.BufferedReader(reader)
        else:
            yield file


@contextmanager
def open_unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that is no archive, decompressed. Raises UserError for damage, while it is open too."""
    with _damage(path), _unpacked(path) as stream:
        yield stream


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """Open the folder, zip or tar (plain, gzip, bzip2 or xz) at `path`, told apart by content.

    Raises UserError for an archive that is truncated, damaged or encrypted, that holds a name twice, or a link or a
    name that leads out of it.
    """
    if path.is_dir():
        yield _folder(path)
        return
    with ExitStack() as stack:
        with _damage(path):
            container = _zip(path, stack) if _is_zip(path) else _tar(path, stack)
        yield container


@contextmanager
def _damage(path: Path, member: str = "") -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        where = f"{path}: {member}" if member else f"{path}"
        reason = first_line(error)
        raise UserError(f"{where}: the archive is truncated or damaged ({reason}); fetch it again") from error


def _folder(path: Path) -> Container:
    @contextmanager
    def opened(name: str) -> Iterator[IO[bytes]]:
        try:
            with open_plain(path / name) as file:
                yield file
        except OSError as error:
            refuse(OSError(error.errno, error.strerror, str(path / name)))

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); mend or remove it") from error

    files: list[str] = []
    folders: list[str] = []
    for root, inner, names in walk(path, refuse):
        here = Path(root).relative_to(path).as_posix()
        prefix = "" if here == "." else f"{here}/"
        folders += [prefix + name for name in inner]
        files += [prefix + name for name in names]
    return Container(path, tuple(files), tuple(folders), opened)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(3)
    return head.startswith(b"PK") and head[2:] in (b"", b"\x03", b"\x05", b"\x07")


def _zip(path: Path, stack: ExitStack) -> Container:
    file = stack.enter_context(open_plain(path))
    archive = stack.enter_context(zipfile.ZipFile(cast("IO[bytes]", _Bounded(file, HEADERS))))
    archive.fp = file
    members = archive.infolist()
    if any(member.flag_bits & 1 for member in members):
        raise UserError(f"{path}: the archive is encrypted; unpack it with its password and give the folder")
    if strange := [member.filename for member in members if member.compress_type not in METHODS]:
        raise UserError(f"{path}: {strange[0]} is compressed in an unusual way; pack it again with deflate")
    windows = not any("/" in member.filename for member in members)  # old tools write their own separator

    def opened(member: zipfile.ZipInfo) -> IO[bytes]:
        return io.BufferedReader(cast("io.RawIOBase", archive.open(member)))

    entries = []
    for member in members:
        name = member.filename.replace("\\", "/") if windows else member.filename
        entries.append((name, name.endswith("/"), member))
    return _listed(path, entries, opened)


def _is_tar(stream: IO[bytes]) -> bool:
    """Tell whether a stream begins with a tar's header, whose checksum is right."""
    try:
        tarfile.TarInfo.frombuf(stream.read(BLOCK), tarfile.ENCODING, "surrogateescape")
    except tarfile.TarError:  # HeaderError, a subclass that is not exported
        return False
    return True


def _tar(path: Path, stack: ExitStack) -> Container:
    stream = stack.enter_context(_unpacked(path))
    end = float("inf") if isinstance(getattr(stream, "raw", None), io.FileIO) else UNPACKED
    bounded = _Bounded(stream, HEADERS, end)
    archive = stack.enter_context(tarfile.TarFile(fileobj=cast("IO[bytes]", bounded)))
    members = []
    for member in archive:
        if not (member.isfile() or member.isdir()) or member.issparse():
            raise UserError(f"{path}: {member.name} is a link or a device; pack plain files and folders only")
        member.pax_headers = {}  # read, and of any size
        archive.pax_headers = {}
        members.append(member)
    archive.fileobj = stream
    bounded.seek(archive.offset)
    if len(last := stream.read(BLOCK)) < BLOCK or last.strip(b"\0"):  # where tarfile stops without a word
        raise EOFError("it has no end")
    while stream.read(1 << 20):  # gzip checks length and CRC only at its own end
        bounded.seek(stream.tell())

    def opened(member: tarfile.TarInfo) -> IO[bytes]:
        file = archive.extractfile(member)
        assert file is not None  # only links and devices have no content, and those are refused above
        return file

    return _listed(path, [(member.name, member.isdir(), member) for member in members], opened)


def _listed(path: Path, entries: list[tuple[str, bool, Any]], open_member: Callable[[Any], IO[bytes]]) -> Container:
    """Make the container of an archive's (name, whether a folder, member), as long as each name means one thing."""
    members: dict[str, Any] = {}
    folders: list[str] = []
    for given, is_folder, member in entries:
        _refuse_escape(path, given)
        name = PurePosixPath(given).as_posix()  # "./a/" -> "a"
        if any(map(is_hidden, name.split("/"))):
            continue
        if is_folder:
            folders.append(name)
            continue
        if name in members:
            raise UserError(f"{path}: {name} is in it twice, and which is meant cannot be known; pack it again")
        members[name] = member

    @contextmanager
    def opened(name: str) -> Iterator[IO[bytes]]:
        with _damage(path, name), open_member(members[name]) as file:
            yield file

    return Container(path, tuple(members), tuple(folders), opened)


def _refuse_escape(path: Path, name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
        raise UserError(f"{path}: member {name!r} leads out of the archive; do not trust it, fetch it elsewhere")
