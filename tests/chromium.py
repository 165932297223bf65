"""Debian's Chromium, and MLflow's UI for it to look at."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forked import Command

PATIENCE = 300_000  # ms, for a browser that draws WebGL in software on a busy machine
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"


def missing() -> str | None:
    """What there is not, of what a browser takes."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "no playwright here (make setup)"
    return None if _chromium() else "no chromium here (apt-get install chromium)"


@contextmanager
def open_browser() -> Iterator[Any]:
    """A browser of playwright's synchronous kind."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_chromium(), args=FLAGS.split(), timeout=PATIENCE)
        yield started
        started.close()


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def mlflow_ui(mlruns: Path) -> Iterator[tuple[str, str]]:
    """The address of `fer ui` over a folder's store, and the one that it prints, with a password in it."""
    ui = Command("ui", "port=0", f"paths.mlruns={mlruns}")
    try:
        line = next(line for line in ui.stdout if "@" in line).strip()
        yield f"http://{line.partition('@')[2].partition('/')[0]}/", line
    finally:
        os.kill(ui.pid, signal.SIGINT)
        ui.wait()
