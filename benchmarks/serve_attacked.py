"""How long a small request to `fer serve` waits, and what memory the server takes, while others send the worst.

    python benchmarks/serve_attacked.py [--seconds 15]

One client asks for one picture after another; four connections of another send, without a pause, what the name of the
row says. The champion is `bench_serve.register_demo`'s.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import socket
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
from bench_serve import register_demo, server
from PIL import Image
from serve_load import Client

from fer_experiments.serving import loading


def request(body: bytes) -> bytes:
    """A POST to /invocations."""
    head = "POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def pictures(count: int, width: int, height: int, mode: str, form: str = "PNG") -> bytes:
    """A body of so many pictures."""
    Image.new(mode, (width, height)).save(file := io.BytesIO(), form)
    return json.dumps({"inputs": [base64.b64encode(file.getvalue()).decode()] * count}).encode()


def numbers(count: int) -> bytes:
    """A body of so many images as lists."""
    return json.dumps({"inputs": np.random.default_rng(0).integers(0, 256, (count, 48, 48)).tolist()}).encode()


def photographs(count: int) -> bytes:
    """A body of so many of 12 megapixels, in which faces are looked for."""
    Image.linear_gradient("L").resize((4000, 3000)).save(file := io.BytesIO(), "PNG")
    return json.dumps({"inputs": [base64.b64encode(file.getvalue()).decode()] * count, "find_faces": True}).encode()


ATTACKS = {
    "nothing": lambda: b"",
    "5 pictures of 12.5 megapixels": lambda: pictures(5, 3500, 3500, "L"),
    "100 of 64 megapixels, one bit": lambda: pictures(100, 8000, 8000, "1"),
    "1,024 pictures of 48x48": lambda: pictures(1024, 48, 48, "L"),
    "1,024 images as lists, 9 MB": lambda: numbers(1024),
    "280,000 pictures P4 1 1": lambda: pictures(280_000, 1, 1, "1", "PPM"),
    "3 of 12 megapixels, find_faces": lambda: photographs(3),
    "28 MB of base64 with spaces": lambda: json.dumps({"inputs": ["aa " * ((28 << 20) // 3)]}).encode(),
    "30 MB that are no JSON": lambda: b"[" * (30 << 20),
}


def attack(port: int, content: bytes, ended: threading.Event, answers: Counter[str]) -> None:
    """Sends the request again and again, on a new connection where the old one was closed."""
    while not ended.is_set():
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            while not ended.is_set():
                connection.sendall(content)
                if not (got := connection.recv(1 << 16)):
                    break
                answers[got.split(b" ")[1].decode()] += 1
                if b"connection: close" in got.lower():
                    break


def resident(process: int) -> float:
    """MB."""
    return int(Path(f"/proc/{process}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


def main() -> None:
    """Prints a line for each attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = register_demo(Path(folder))
        size = loading.load_model(config, "champion")[1].size
        Image.fromarray(np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)).save(
            file := io.BytesIO(), "PNG"
        )
        small = request(json.dumps({"inputs": [base64.b64encode(file.getvalue()).decode()]}).encode())
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.seconds:.0f} s each")
        print(f"{'sent':32}{'p50 ms':>8}{'p99 ms':>8}{'most':>8}{'answers':>9}{'MB more':>9}  answers to the attack")
        for name, make in ATTACKS.items():
            with server("ours", config) as (connection, process):
                port = connection.port
                for _ in range(20):
                    ask(Client(port), small)
                before, most = resident(process), 0.0
                ended, answers = threading.Event(), Counter[str]()
                content = make()
                arguments = (port, request(content), ended, answers)
                attackers = [threading.Thread(target=attack, args=arguments) for _ in range(4 if content else 0)]
                for attacker in attackers:
                    attacker.start()
                taken, until = [], time.perf_counter() + options.seconds
                client = Client(port)
                while time.perf_counter() < until:
                    taken.append(1000 * ask(client, small))
                    most = max(most, resident(process))
                    time.sleep(0.01)
                ended.set()
            for attacker in attackers:
                attacker.join()
            middle, late = np.percentile(taken, [50, 99])
            line = f"{name:32}{middle:8.1f}{late:8.1f}{max(taken):8.1f}{len(taken):9}{most - before:9.0f}"
            print(f"{line}  {dict(answers)}", flush=True)


def ask(client: Client, content: bytes) -> float:
    """Seconds until the answer is there.

    Raises:
        RuntimeError: another than 200.
    """
    client.ask(0, content)
    while (answer := client.answer()) is None:
        pass
    if b" 200 " not in answer[0]:
        raise RuntimeError(answer)
    return time.perf_counter() - client.sent


if __name__ == "__main__":
    main()
