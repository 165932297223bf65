"""A real tracking server in a folder of its own, which can be killed and started again: what `make server` starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "server"))

from postgres import binaries  # noqa: E402

PATIENCE = 600  # seconds; a hang, not a slow machine

needs_postgres = pytest.mark.skipif(binaries() is None, reason="no PostgreSQL here: apt-get install postgresql")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """server/start.py as a process. mlruns must be reachable for PostgreSQL's user when the tests run as root."""

    mlruns: Path
    port: int = field(default_factory=free_port)
    options: tuple[str, ...] = ("--workers", "1")
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> Path:
        return self.mlruns / "server" / "credentials"

    @property
    def output(self) -> str:
        return (self.mlruns / "output").read_text()

    def start(self, *, wait: bool = True, env: dict[str, str] | None = None) -> None:
        """Starts it; with `wait`, returns when it answers."""
        self.mlruns.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(ROOT / "server" / "start.py"), "--mlruns", str(self.mlruns)]
        command += ["--port", str(self.port), *self.options]
        with (self.mlruns / "output").open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **(env or {})})
        deadline = time.monotonic() + PATIENCE
        while wait and "Ctrl-C stops it" not in self.output:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the server did not start:\n{self.output}")
            time.sleep(0.1)

    def family(self) -> list[psutil.Process]:
        """The processes it consists of: ours, MLflow's and PostgreSQL's."""
        assert self.process is not None
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it as Ctrl-C or a service manager does; returns its exit code."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """Ends all of it with SIGKILL, as a power cut would."""
        assert self.process is not None
        family = self.family()
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()
        psutil.wait_procs(family, PATIENCE)


@contextmanager
def running_server(*options: str) -> Iterator[Server]:
    """A server on free ports with everything in a temporary folder, stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="fer-server-") as folder:
        Path(folder).chmod(0o755)  # as root, PostgreSQL runs as another user; pytest's folders are closed to that
        server = Server(Path(folder) / "mlruns", options=options or Server.options)
        server.start()
        try:
            yield server
        finally:
            server.stop()
