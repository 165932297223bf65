"""`fer serve` as a process, and how to ask it."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import resource
import select
import signal
import socket
from pathlib import Path
from typing import Any

import numpy as np
from forked import PATIENCE, Command
from PIL import Image
from tiny_champion import SIZE

from fer_experiments.config import Config

FACE = {"inputs": np.zeros((1, *SIZE), int).tolist()}
ADDRESS = "127.0.0.1"


class Served:
    """`fer serve`, and how to ask it."""

    def __init__(self, config: Config, files: int = 0) -> None:
        own = (f"paths.mlruns={config.paths.mlruns}", f"paths.cache={config.paths.cache}", "port=0")
        self.command = Command("serve", "data=demo", *own)
        if files:
            resource.prlimit(self.command.pid, resource.RLIMIT_NOFILE, (files, files))
        line = self.command.stdout.readline()
        assert "serving models:" in line, self.command.stderr
        self.port = int(line.split(f"{ADDRESS}:")[1].split(";")[0])

    def connect(self) -> socket.socket:
        return socket.create_connection((ADDRESS, self.port), timeout=PATIENCE)

    def send(self, body: Any) -> socket.socket:
        """A connection on which this has been asked."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        client = self.connect()
        client.sendall(b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        client.sendall(f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
        return client

    def ask(self, body: Any = FACE) -> tuple[int, dict[str, Any]]:
        with self.send(body) as client:
            return answer(client)

    def memory(self) -> int:
        """The most bytes that it has held."""
        lines = Path(f"/proc/{self.command.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10

    def end(self) -> int:
        if self.command.poll() is None:
            os.kill(self.command.pid, signal.SIGTERM)
        return self.command.wait()


def answer(client: socket.socket) -> tuple[int, dict[str, Any]]:
    said = http.client.HTTPResponse(client)
    said.begin()
    return said.status, json.loads(said.read())


def answered(client: socket.socket) -> bool:
    return bool(select.select([client], [], [], 0)[0])


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    image.save(file := io.BytesIO(), form, **options)
    return file.getvalue()


def asking(*pictures: bytes) -> dict[str, list[str]]:
    return {"inputs": [base64.b64encode(picture).decode() for picture in pictures]}


LARGE = encoded(Image.new("L", (4000, 3000)), "PNG")
HEAVY = asking(*[LARGE] * 4)  # half a second, in a body of 200 KB
