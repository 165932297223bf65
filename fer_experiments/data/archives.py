"""Folders, zip and tar archives behind one interface: names of files, and their bytes.

Archives are read in memory and never extracted.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from fer_experiments.data.folders import is_hidden, read_plain, walk
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
COMPRESSED = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ\x00": lzma.LZMAFile}


class Read(Protocol):
    """Reads a file of a container: all of it, or its first bytes."""

    def __call__(self, name: str, most: int = -1) -> bytes:
        """Return at most `most` bytes. Raises UserError for what cannot be read."""


@dataclass(frozen=True)
class Container:
    """A folder or an archive. files, folders: paths inside it with `/`, hidden ones left out; read: file -> bytes."""

    path: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]
    read: Read


def is_archive(path: Path) -> bool:
    """Tell by its content whether a file is a zip or a tar, the latter compressed or not."""
    if _is_zip(path):
        return True
    with _damage(path), open_plain(path) as stream:
        return _is_tar(stream)


@contextmanager
def open_plain(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, or what a gzip, bzip2 or xz file holds, told by content."""
    with path.open("rb") as file:
        head = file.read(6)
    form = next((form for magic, form in COMPRESSED.items() if head.startswith(magic)), None)
    with form(path) if form else path.open("rb") as stream:
        yield stream


def read_unpacked(path: Path, most: int) -> bytes:
    """Return the bytes of a file that is no archive, decompressed, at most that many. Raises UserError for damage."""
    with _damage(path), open_plain(path) as stream:
        return stream.read(most)


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
    def read(name: str, most: int = -1) -> bytes:
        try:
            return read_plain(path / name, most)
        except OSError as error:
            refuse(OSError(error.errno, _nowhere(path / name) or error.strerror, str(path / name)))
            raise

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); mend or remove it") from error

    files: list[str] = []
    folders: list[str] = []
    for root, inner, names in walk(path, refuse):
        here = Path(root).relative_to(path).as_posix()
        prefix = "" if here == "." else f"{here}/"
        folders += [prefix + name for name in inner]
        files += [prefix + name for name in names]
    return Container(path, tuple(files), tuple(folders), read)


def _nowhere(path: Path) -> str:
    """Say where a link leads that leads nowhere, "" of anything else."""
    return f"a link to {path.readlink()}, which is not there" if path.is_symlink() and not path.exists() else ""


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(3)
    return head.startswith(b"PK") and head[2:] in (b"", b"\x03", b"\x05", b"\x07")


def _zip(path: Path, stack: ExitStack) -> Container:
    archive = stack.enter_context(zipfile.ZipFile(path))
    members = archive.infolist()
    if any(member.flag_bits & 1 for member in members):
        raise UserError(f"{path}: the archive is encrypted; unpack it with its password and give the folder")
    windows = not any("/" in member.filename for member in members)  # old tools write their own separator

    def read(member: zipfile.ZipInfo, most: int) -> bytes:
        with archive.open(member) as file:
            return file.read(most)

    entries = []
    for member in members:
        name = member.filename.replace("\\", "/") if windows else member.filename
        entries.append((name, name.endswith("/"), member))
    return _listed(path, entries, read)


def _is_tar(stream: IO[bytes]) -> bool:
    """Tell whether a stream begins with a tar's header, whose checksum is right."""
    try:
        tarfile.TarInfo.frombuf(stream.read(BLOCK), tarfile.ENCODING, "surrogateescape")
    except tarfile.TarError:  # HeaderError, a subclass that is not exported
        return False
    return True


def _tar(path: Path, stack: ExitStack) -> Container:
    stream = stack.enter_context(open_plain(path))
    archive = stack.enter_context(tarfile.TarFile(fileobj=stream))
    members = archive.getmembers()
    stream.seek(archive.offset)
    if len(end := stream.read(BLOCK)) < BLOCK or end.strip(b"\0"):  # where tarfile stops without a word
        raise EOFError("it has no end")
    while stream.read(1 << 20):  # gzip checks length and CRC only at its own end
        pass
    for member in members:
        if not (member.isfile() or member.isdir()):
            raise UserError(f"{path}: {member.name} is a link or a device; pack plain files and folders only")

    def read(member: tarfile.TarInfo, most: int) -> bytes:
        file = archive.extractfile(member)
        assert file is not None  # only links and devices have no content, and those are refused above
        return file.read(most)

    return _listed(path, [(member.name, member.isdir(), member) for member in members], read)


def _listed(path: Path, entries: list[tuple[str, bool, Any]], read_member: Any) -> Container:
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

    def read(name: str, most: int = -1) -> bytes:
        with _damage(path, name):
            return read_member(members[name], most)

    return Container(path, tuple(members), tuple(folders), read)


def _refuse_escape(path: Path, name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
        raise UserError(f"{path}: member {name!r} leads out of the archive; do not trust it, fetch it elsewhere")
