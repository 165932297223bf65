"""What a run was made with: versions, hardware, and the state of the git repository."""

from __future__ import annotations

import csv
import os
import platform
import shlex
import subprocess
import sys
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_experiments.ambient import open_environment

if TYPE_CHECKING:
    import keras

# Instruction sets that decide how fast a network runs on a CPU.
CPU_FEATURES = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni",
    "amx_tile", "amx_bf16", "amx_int8", "asimd", "sve", "bf16", "i8mm",
)  # fmt: skip
SOURCES = ("*.py", "*.yaml", "*.yml", "*.toml", "Makefile")  # of new files, those whose content belongs in a diff
MAX_UNTRACKED = 50
# Whatever its user has set for reading: a patch applies, and new files count.
GIT_SETTINGS = (
    "core.quotepath=off", "color.ui=false", "diff.noprefix=false", "diff.mnemonicPrefix=false",
    "status.showUntrackedFiles=normal",
)  # fmt: skip
DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--binary")
MAX_DIFF = 1_000_000  # characters
PATIENCE_S = 120.0  # for git on a slow disk, or a driver that wakes its GPUs


@dataclass(frozen=True)
class GitState:
    """Of a checkout. commit and dirty are None outside a repository; commit also before the first commit, and dirty
    where git could not say it.

    diff: uncommitted changes, new source files included, as a patch, sources first; "" when there are none.
    """

    commit: str | None
    dirty: bool | None
    diff: str


def conda(name: str, network: keras.Model, *others: str) -> dict[str, Any]:
    """The conda environment of a network: what loads it, and other packages, in the versions that are here."""
    import keras

    known = versions()
    hub = ["keras-hub"] if "keras_hub" in network.to_json() else []  # of a preset, whose layers are KerasHub's
    needed = ("mlflow", "keras", keras.backend.backend(), *hub, "numpy", *others)
    pip = [f"{package}=={known[package]}" for package in needed if package in known]
    return {"name": name, "dependencies": [f"python={known['python']}", "pip", {"pip": pip}]}


@cache
def git_state(root: Path) -> GitState:
    """The git state of the checkout at `root`; once a process, because the code was loaded once.

    A repository that merely encloses `root` does not count: its commit says nothing about this code.
    """
    toplevel = (_git(root, "rev-parse", "--show-toplevel") or "").strip()
    if not toplevel or Path(toplevel).resolve() != root.resolve():
        return GitState(None, None, "")
    commit = (_git(root, "rev-parse", "--verify", "--quiet", "HEAD") or "").strip() or None
    status = _git(root, "status", "--porcelain")
    if not status:
        return GitState(commit, None if status is None else False, "")
    changes = "".join(f"# {line}\n" for line in status.splitlines())
    asked = []
    if commit:  # a large picture must not cut the code off
        asked += [("HEAD", "--", *SOURCES), ("HEAD", "--", ".", *(f":(exclude){pattern}" for pattern in SOURCES))]
    new = (_git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *SOURCES) or "").split("\0")
    asked[1:1] = [("--no-index", "--", os.devnull, path) for path in [p for p in new if p][:MAX_UNTRACKED]]
    for arguments in asked:
        patch = _git(root, *DIFF, *arguments)
        changes += f"# not here, as git failed: git diff {shlex.join(arguments)}\n" if patch is None else patch
    if len(changes) > MAX_DIFF:
        changes = changes[:MAX_DIFF] + f"\n# cut at {MAX_DIFF} characters\n"
    return GitState(commit, True, changes)


def _git(root: Path, *arguments: str) -> str | None:
    """Standard output of a git command that changes nothing, None when it fails or there is no git."""
    command = ["git", "-C", str(root), *(word for setting in GIT_SETTINGS for word in ("-c", setting)), *arguments]
    # A hook's GIT_DIR is another repository's. Optional locks off: `git status` would rewrite the index under another
    # process's feet.
    quiet = {name: value for name, value in open_environment().items() if not name.startswith("GIT_")}
    quiet["GIT_OPTIONAL_LOCKS"] = "0"
    return _output(*command, environment=quiet, good=(0, 1))  # `git diff --no-index`: 1 when there are differences


@cache
def versions() -> dict[str, str]:
    """Python and every installed distribution with its version, by name."""
    read = [distribution.metadata for distribution in metadata.distributions()]  # read anew each time it is asked for
    installed = {each["Name"].lower(): each["Version"] for each in read if each and each["Name"]}
    return {"python": platform.python_version(), **dict(sorted(installed.items()))}


@cache
def hardware() -> dict[str, Any]:
    """This machine, JSON-able: host, platform, cpu, cores (this process may use), memory_gb, cpu_features, gpus."""
    import psutil

    model, features = _cpu()
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "cpu_features": features,
        "gpus": gpus(),
    }


def _cpu() -> tuple[str, list[str]]:
    """Model name and those of CPU_FEATURES it has, as the operating system reports them."""
    if sys.platform == "darwin":
        names = ("machdep.cpu.brand_string", "machdep.cpu.features", "machdep.cpu.leaf7_features")
        model, *flags = ((_output("sysctl", "-n", name) or "").strip() for name in names)
        known = set(" ".join(flags).lower().split()) or {"asimd"}  # Apple silicon lists no flags
    else:
        cpuinfo = Path("/proc/cpuinfo")
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
        fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        model = fields.get("model name", "")
        known = set(fields.get("flags", fields.get("features", "")).split())
    return model or platform.processor() or platform.machine(), [f for f in CPU_FEATURES if f in known]


def gpus() -> list[dict[str, str]]:
    """NVIDIA GPUs as nvidia-smi lists them: name, memory, driver. Empty without one."""
    listed = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader") or ""
    rows = csv.reader(listed.splitlines())
    return [dict(zip(("name", "memory", "driver"), map(str.strip, row), strict=False)) for row in rows]


def _output(*command: str, environment: dict[str, str] | None = None, good: tuple[int, ...] = (0,)) -> str | None:
    """Standard output of a command; None when it is not there, ends with another exit status than the good ones, or,
    which is said, not in time."""
    try:
        done = subprocess.run(
            command, capture_output=True, env=environment or open_environment(), timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        warnings.warn(
            f"{command[0]} has not answered in {PATIENCE_S:.0f} s; what it knows is not recorded", stacklevel=2
        )
        return None
    except OSError:
        return None
    return done.stdout.decode(errors="replace") if done.returncode in good else None
