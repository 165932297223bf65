"""How many requests `fer serve` answers, and how fast, when many clients ask at once; every answer is checked.

    python benchmarks/serve_load.py [--clients 1 8 32 128] [--seconds 6] [--against <checkout>] [data=fer2013 ...]

Each client has a connection and asks again as soon as it is answered, for one of 64 pictures (base64 PNG). With
`--against` another checkout's server takes turns with this one's, so that what else the machine does falls on both.
The champion is that of the overrides, or `bench_serve.register_demo`'s.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import selectors
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from bench_serve import register_demo, server
from PIL import Image

from fer_experiments.config.compose import compose
from fer_experiments.serving import loading

ROUNDS = 3


class Client:
    """A connection that is kept, and the request in flight on it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.picture, self.sent, self.received = 0, 0.0, b""

    def ask(self, picture: int, request: bytes) -> None:
        """Sends a request."""
        self.picture, self.sent, self.received = picture, time.perf_counter(), b""
        self.socket.sendall(request)

    def answer(self) -> tuple[bytes, bytes] | None:
        """The status line and the body, when all of it is there; empty ones when the server has hung up."""
        part = self.socket.recv(1 << 16)
        self.received += part
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not part:
            return b"", b""
        if not found or len(body) < int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            return None
        return head.split(b"\r\n")[0], body


def load(
    port: int, clients: int, seconds: float, requests: list[bytes], expected: np.ndarray
) -> tuple[list[float], int]:
    """Seconds of each answer, and how many were wrong or did not come."""
    taken, wrong, number = [], 0, 0
    with selectors.DefaultSelector() as waiting, ExitStack() as stack:
        for _ in range(clients):
            client = Client(port)
            stack.callback(client.socket.close)
            waiting.register(client.socket, selectors.EVENT_READ, client)
            client.ask(number % len(requests), requests[number % len(requests)])
            number += 1
        until = time.perf_counter() + seconds
        while waiting.get_map():
            ready = waiting.select(60)
            if not ready:
                return taken, wrong + len(waiting.get_map())
            for key, _ in ready:
                client = key.data
                if (answer := client.answer()) is None:
                    continue
                taken.append(time.perf_counter() - client.sent)
                status, body = answer
                rows = json.loads(body)["predictions"] if b" 200 " in status else [{}]
                got = [value for name, value in rows[0].items() if name != "label"]
                wrong += len(got) != expected.shape[1] or not np.allclose(got, expected[client.picture], atol=1e-5)
                if time.perf_counter() > until or not status:
                    waiting.unregister(client.socket)
                else:
                    client.ask(number % len(requests), requests[number % len(requests)])
                    number += 1
    return taken, wrong


def cpu(process: int) -> float:
    """Seconds that a process has computed, which other programs do not lengthen as they do the clock's."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Prints a line for each number of clients and each server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--against", type=Path)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        config = compose(options.overrides) if options.overrides else register_demo(Path(folder))
        version, classifier = loading.load_model(config, "champion")
        faces = np.random.default_rng(0).integers(0, 256, (64, *classifier.size), dtype=np.uint8)
        requests = []
        for face in faces:
            Image.fromarray(face).save(file := io.BytesIO(), "PNG")
            body = json.dumps({"inputs": [base64.b64encode(file.getvalue()).decode()]})
            head = "POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            requests.append(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        checkouts = [None, options.against] if options.against else [None]
        servers = {str(c or "."): stack.enter_context(server("ours", config, c)) for c in checkouts}
        ports = {name: (connection.port, pid) for name, (connection, pid) in servers.items()}
        expected = classifier.probabilities(faces)
        for port, _ in ports.values():
            load(port, 8, 1, requests, expected)
        print(f"{version.uri}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, medians of {ROUNDS} rounds")
        columns = f"{'clients':>8}{'requests/s':>12}{'p50 ms':>8}{'p99 ms':>8}{'CPU ms':>8}{'answers':>9}{'wrong':>7}"
        print(f"{'server':30}{columns}")
        for clients in options.clients:
            rounds: dict[str, list[tuple[float, ...]]] = {name: [] for name in ports}
            for _ in range(ROUNDS):
                for name, (port, pid) in ports.items():
                    started, computed = time.perf_counter(), cpu(pid)
                    taken, wrong = load(port, clients, options.seconds, requests, expected)
                    rate = len(taken) / (time.perf_counter() - started)
                    each = 1000 * (cpu(pid) - computed) / len(taken)
                    rounds[name].append((rate, *1000 * np.percentile(taken, [50, 99]), each, len(taken), wrong))
            for name, of_it in rounds.items():
                rate, middle, late, each = np.median(of_it, axis=0)[:4]
                answers, wrong = np.sum(of_it, axis=0)[4:]
                line = f"{name:30}{clients:8}{rate:12.0f}{middle:8.1f}{late:8.1f}{each:8.2f}{answers:9.0f}{wrong:7.0f}"
                print(line, flush=True)


if __name__ == "__main__":
    main()
