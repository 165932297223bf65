"""Files that are written whole or not at all, and locks that several processes see."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from fer_experiments.errors import UserError


def is_held(lock: Path) -> bool:
    """Whether a process holds this lock file (of `filelock`) now; asks without writing, so that it may be read-only."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that ask do not see each other
    except BlockingIOError:
        return True
    except OSError:  # not there, or not for us to see
        return False
    return False


@contextmanager
def holding(path: Path, busy: str, timeout: float = 0) -> Iterator[None]:
    """The one process that holds this lock file; the lock of a process that dies is released by the kernel.

    Raises:
        UserError: another process holds it (`busy` says of what), or its folder cannot be written.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout)
    except Timeout:
        raise UserError(f"{busy}; wait for it, or stop it") from None
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be written ({error.strerror}); mend its permissions") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder for the block, its owner's alone, in `parent` or where temporary files go; those of the same prefix that
    killed processes have left there are removed first."""
    for left in (parent or Path(tempfile.gettempdir())).glob(f"{prefix}*/lock"):
        with suppress(OSError):  # of another user, or held
            if left.stat().st_uid == os.getuid():
                with left.open("r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left.parent, ignore_errors=True)
    folder, lock = _locked_folder(prefix, parent)
    with folder as name:
        try:
            yield Path(name)
        finally:
            os.close(lock)


def _locked_folder(prefix: str, parent: Path | None) -> tuple[tempfile.TemporaryDirectory[str], int]:
    """A folder, and the descriptor that holds its lock."""
    while True:
        folder = tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True)
        lock = os.open(Path(folder.name, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return folder, lock
        os.close(lock)  # a process that tidies up saw the file before it was locked
        folder.cleanup()


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file that is there in full or not at all, whatever is killed or full; the OSError then names it."""
    temporary = path.with_name(f"{path.name}.tmp")  # the lock sees to it that there is one writer
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = os.fspath(path)
        raise


def digest(content: Any) -> str:
    """The sha256 (hex) of what JSON has, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Writes JSON with `write_atomically`."""
    write_text(path, json.dumps(content, indent=1))


def write_text(path: Path, text: str) -> None:
    """Writes text in UTF-8 with `write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode()))
