"""Which process a run belongs to, and whether it still lives."""

from __future__ import annotations

import json
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any


def this_process() -> str:
    """This process for all time, as JSON: host, machine, boot, namespace of process ids, pid, and its start."""
    return json.dumps({**_host(), "pid": os.getpid(), "start": _start(os.getpid())})


def is_alive(process: str) -> bool | None:
    """Whether a process named by `this_process` lives; None when that cannot be told from here.

    A process id is used again sooner or later, so that the start of the process must be the same too.
    """
    try:
        then: dict[str, Any] = json.loads(process)
        if any(then[key] != _host()[key] for key in ("host", "machine")):
            return None
        if then["boot"] != _host()["boot"]:
            return False
        if then["namespace"] != _host()["namespace"]:  # a container's process ids mean nothing outside
            return None
        return then["start"] is not None and _start(int(then["pid"])) == then["start"]
    except (ValueError, TypeError, KeyError):
        return None


def same_machine(process: str, other: str) -> bool:
    """Whether two processes named by `this_process` are of one machine."""
    try:
        one, two = json.loads(process), json.loads(other)
        return all(one[key] == two[key] for key in ("host", "machine"))
    except (ValueError, TypeError, KeyError):
        return False


@cache
def _host() -> dict[str, str]:
    namespace = Path("/proc/self/ns/pid")
    return {
        "host": platform.node(),
        "machine": _text("/etc/machine-id"),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "namespace": str(namespace.readlink()) if namespace.is_symlink() else "",
    }


def _start(pid: int) -> float | None:
    """When a process started, in clock ticks since boot (without /proc: in s since 1970); None when it is dead."""
    import psutil

    stat = _text(f"/proc/{pid}/stat")
    if stat:
        fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
        return None if fields[0] in "ZX" else float(fields[19])
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time(), 1)
    except psutil.Error:
        return None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
