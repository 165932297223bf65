"""Debian's Chromium, and MLflow's UI for it to look at."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
def mlflow_ui(uri: str) -> Iterator[str]:
    """The address of `mlflow ui`, started as `make ui` does, and ended with all its workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mlflow = Path(sys.executable).with_name("mlflow")
    command = [str(mlflow), "ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]
    # It shows the same with one worker as with four, and without the eight processes that judge traces of language
    # models; each of all these imports MLflow.
    command += ["--workers", "1"]
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w+") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            end = time.monotonic() + PATIENCE / 1000
            while not _answers(f"http://127.0.0.1:{port}/health"):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"mlflow ui did not start:\n{Path(log.name).read_text()}")
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False
