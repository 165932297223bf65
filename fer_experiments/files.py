"""Files that several processes share."""

from __future__ import annotations

import fcntl
from pathlib import Path


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
