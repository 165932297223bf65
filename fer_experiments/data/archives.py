"""Folders, zip and tar.gz archives behind one interface: names of files, and their bytes.

Archives are read in memory and never extracted.
"""

from __future__ import annotations

import gzip
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fer_experiments.errors import UserError

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


@dataclass(frozen=True)
class Container:
    """A folder or an archive. files, folders: paths inside it with `/`, hidden ones left out; read: file -> bytes."""

    path: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]
    read: Callable[[str], bytes]


def is_archive(path: Path) -> bool:
    """Tell whether the file begins like a zip or a gzip."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x1f\x8b")


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """Open the folder, zip or tar.gz at `path`, told apart by content.

    Raises UserError for an archive that is truncated, damaged or encrypted, or that holds a link or a name that leads
    out of it.
    """
    if path.is_dir():
        yield _folder(path)
        return
    with ExitStack() as stack:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        with _damage(path):
            container = _zip(path, stack) if zipped else _tar(path, stack)
        yield container


@contextmanager
def _damage(path: Path, member: str = "") -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        where = f"{path}: {member}" if member else f"{path}"
        reason = str(error) or type(error).__name__
        raise UserError(f"{where}: the archive is truncated or damaged ({reason}); fetch it again") from error


def _folder(path: Path) -> Container:
    def read(name: str) -> bytes:
        try:
            return (path / name).read_bytes()
        except OSError as error:
            raise UserError(f"{path / name}: cannot be read ({error.strerror}); mend or remove it") from error

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); mend or remove it") from error

    files: list[str] = []
    folders: list[str] = []
    for root, inner, names in os.walk(path, onerror=refuse, followlinks=True):
        here = Path(root).relative_to(path).as_posix()
        prefix = "" if here == "." else f"{here}/"
        folders += [prefix + name for name in inner]
        files += [prefix + name for name in names]
    return Container(path, _visible(files), _visible(folders), read)


def _zip(path: Path, stack: ExitStack) -> Container:
    archive = stack.enter_context(zipfile.ZipFile(path))
    members = archive.infolist()
    _refuse_escapes(path, (member.filename for member in members))
    if any(member.flag_bits & 1 for member in members):
        raise UserError(f"{path}: the archive is encrypted; unpack it with its password and give the folder")
    by_name = {PurePosixPath(member.filename).as_posix(): member for member in members}  # "./a/" -> "a"

    def read(name: str) -> bytes:
        with _damage(path, name):
            return archive.read(by_name[name])

    files = [name for name, member in by_name.items() if not member.is_dir()]
    folders = [name for name, member in by_name.items() if member.is_dir()]
    return Container(path, _visible(files), _visible(folders), read)


def _tar(path: Path, stack: ExitStack) -> Container:
    stream = stack.enter_context(gzip.GzipFile(path))
    archive = stack.enter_context(tarfile.TarFile(fileobj=stream))
    members = archive.getmembers()
    while stream.read(1 << 20):  # tarfile stops at its end marker, gzip checks length and CRC only at its own
        pass
    _refuse_escapes(path, (member.name for member in members))
    for member in members:
        if not (member.isfile() or member.isdir()):
            raise UserError(f"{path}: {member.name} is a link or a device; pack plain files and folders only")
    by_name = {PurePosixPath(member.name).as_posix(): member for member in members}  # "./a" -> "a"

    def read(name: str) -> bytes:
        with _damage(path, name):
            file = archive.extractfile(by_name[name])
            assert file is not None  # only links and devices have no content, and those are refused above
            return file.read()

    files = [name for name, member in by_name.items() if member.isfile()]
    folders = [name for name, member in by_name.items() if member.isdir()]
    return Container(path, _visible(files), _visible(folders), read)


def _refuse_escapes(path: Path, names: Iterable[str]) -> None:
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
            raise UserError(f"{path}: member {name!r} leads out of the archive; do not trust it, fetch it elsewhere")


def _visible(names: Iterable[str]) -> tuple[str, ...]:
    """Leave out hidden files and what macOS adds to archives; keep the order."""
    return tuple(name for name in names if not any(part.startswith((".", "__MACOSX")) for part in name.split("/")))
