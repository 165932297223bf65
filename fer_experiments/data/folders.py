"""Walks through a folder, and reads what lies in it: nothing hidden, nothing twice, nothing without end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from fer_experiments.data.names import natural_key


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden, or what macOS adds to archives."""
    return name.startswith((".", "__MACOSX"))


def walk(top: Path, refuse: Callable[[OSError], None]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (folder, names of its folders, names of its files) from `top` down, in natural order, through links.

    A link to a folder above is no way down: it is listed among the files, which no one can read as one. refuse: takes
    what cannot be listed, a folder that is reached a second time by a link, and a link to nowhere, which may have been
    a folder.
    """
    seen: dict[str, str] = {}
    waiting: list[tuple[str, tuple[str, ...]]] = [(str(top), ())]
    while waiting:
        folder, above = waiting.pop()
        real = os.path.realpath(folder)
        if first := seen.get(real):
            refuse(OSError(errno.EEXIST, f"by a link it is the same folder as {first}", folder))
            continue
        seen[real] = folder
        above = (*above, real)
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_symlink() and not Path(entry.path).exists():
                        said = f"a link to {Path(entry.path).readlink()}, which is not there"
                        refuse(OSError(errno.ENOENT, said, entry.path))
                        continue
                    (folders if entry.is_dir() and not _leads_up(entry, above) else files).append(entry.name)
        except OSError as error:
            refuse(error)
            continue
        folders.sort(key=natural_key)
        yield folder, folders, sorted(files, key=natural_key)
        waiting += [(str(Path(folder) / name), above) for name in reversed(folders)]


def _leads_up(entry: os.DirEntry[str], above: tuple[str, ...]) -> bool:
    """Tell whether a folder is a link to one of the folders on the way to it, or to one that holds these."""
    if not entry.is_symlink():
        return False
    target = Path(os.path.realpath(entry.path))
    return any(Path(folder).is_relative_to(target) for folder in above)


def open_plain(path: Path) -> IO[bytes]:
    """Open a plain file. Raises OSError, for a pipe or a device too (no wait)."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=opener)  # noqa: SIM115  Path.open takes no opener
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return file


def read_plain(path: Path, most: int = -1) -> bytes:
    """Return the bytes of a plain file, at most that many. Raises what `open_plain` does."""
    with open_plain(path) as file:
        return file.read(most)
