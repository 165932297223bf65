"""Folders that may only be read: a real read-only mount, which root too must obey, for one command."""

from __future__ import annotations

import functools
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from forked import ROOT, run

UNSHARE = ["unshare", "--mount", "bash", "-euc"]


@functools.cache
def missing() -> str:
    """Why there is none here, or ""."""
    try:
        done = subprocess.run([*UNSHARE, "mount -o bind,ro /usr /usr"], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def fer_read_only(
    folders: Sequence[Path], *arguments: str | Path, cwd: Path | None = None, hidden: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`fer` where these folders may only be read, and another has nothing in it."""
    if why := missing():
        pytest.skip(f"no read-only mount can be made ({why})")
    mounts = "".join(f"mount -o bind,ro {shlex.quote(str(f))} {shlex.quote(str(f))}; " for f in folders)
    if hidden:
        mounts += f"mount -t tmpfs none {shlex.quote(str(hidden))}; "
    return run(*map(str, arguments), mounts=mounts, folder=cwd or ROOT)
