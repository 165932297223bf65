"""What a registered version's files were when it was registered: nothing is loaded that is something else by now."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

TAG = "fer.digests"  # of a version: the sha256 (hex) of each file, by its path in the model's folder, as JSON


def digests(folder: Path) -> dict[str, str]:
    """The sha256 (hex) of each file in a model's folder, by its path there."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def changed(recorded: str, folder: Path) -> str | None:
    """Which file in a version's folder is not what its tag has recorded, in words; None where all are."""
    for name, digest in json.loads(recorded).items():
        path = folder / name
        now = _digest(path) if path.is_file() else "gone"
        if now != digest:
            return f"{name} is not what was registered: its sha256 was {digest[:12]}, and is {now[:12]}"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
