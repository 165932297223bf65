"""Attacks on the served model: what one client sends costs no other its answer."""

from __future__ import annotations

import asyncio
import base64
import gc
import http.client
import json
import os
import stat
import struct
import sys
import threading
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from asked_server import ADDRESS, FACE, HEAVY, LARGE, answer, answered, asking, encoded
from forked import PATIENCE
from PIL import Image
from tiny_champion import CLASSES, SIZE

from fer_experiments.serving import bodies, turns
from fer_experiments.serving import serve as room
from fer_experiments.serving.bodies import Refusal, read_body
from fer_experiments.serving.fast import Answering
from fer_experiments.serving.serve import _check_head
from fer_experiments.serving.turns import Batches, Turns

MEMORY = 512 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


SMALL = encoded(Image.new("L", (48, 48)), "PNG")
TEXT = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 20)))
SCANS = encoded(Image.new("L", (2000, 2000), 9), "JPEG", progressive=True)
PARTS = encoded(Image.new("L", (48, 48)), "JPEG")
EXIF = b"\xff\xe1" + struct.pack(">H", 60002) + b"Exif\0\0" + bytes(59994)
BOMBS = {
    "100 pictures of 64 million pixels": asking(*[encoded(Image.new("1", (8000, 8000)), "PNG")] * 100),
    "many large pictures": asking(*[LARGE] * 9),
    "280,000 pictures of a pixel": {"inputs": [base64.b64encode(b"P4 1 1 \0").decode()] * 280_000},
    "280,000 pictures that are allowed": {"inputs": [base64.b64encode(SMALL).decode()] * 280_000},
    "empty lists": b'{"inputs": [' + b"[]," * (8 << 20) + b"[]]}",
    "objects": b'{"inputs": [' + b'{"":0},' * (4 << 20) + b"{}]}",
    "names": b"{" + b",".join(b'"%d":1' % i for i in range(1 << 20)) + b"}",
    "texts": b'{"inputs": [' + b'"ab",' * (6 << 20) + b'"ab"]}',
    "whole numbers": b'{"inputs": [' + b"1000," * (6 << 20) + b"1]}",
    "long numbers": b'{"inputs": [' + (b"9" * 4000 + b",") * 8000 + b"1]}",
    "a wide letter": b'{"inputs": ["' + b"a" * (30 << 20) + b'\\ud83d\\ude00"]}',
    "a wide letter as it is": b'{"inputs": ["' + b"a" * (30 << 20) + '\N{GRINNING FACE}"]}'.encode(),
    "scans without end": asking(SCANS[:-2] + SCANS[SCANS.rindex(b"\xff\xda") : -2] * 1000 + SCANS[-2:]),
    "profiles that inflate": asking(SMALL[:33] + TEXT * 1000 + SMALL[33:]),
    "chunks": asking(SMALL[:33] + chunk(b"tEXt", b"a\0") * 100_000 + SMALL[33:]),
    "empty chunks of pixels": asking(SMALL[:33] + chunk(b"IDAT", b"") * 100_000 + SMALL[33:]),
    "segments": asking(PARTS[:2] + b"\xff\xfe\0\2" * 100_000 + PARTS[2:]),
    "bytes between segments": asking(PARTS[:2] + bytes(1 << 20) + PARTS[2:]),
    "tables put together": asking(PARTS[:2] + EXIF * 20 + PARTS[2:]),
    "EPS that would start Ghostscript": asking(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"),
    "GIF": asking(encoded(Image.new("L", (48, 48)), "GIF")),
    "TIFF": asking(encoded(Image.new("L", (48, 48)), "TIFF")),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_in_a_line(served, name):
    before = served.memory() if sys.platform == "linux" else 0
    status, said = served.ask(BOMBS[name])
    assert status in (400, 413) and list(said) == ["error"] and len(said["error"]) < 600
    assert served.ask()[0] == 200
    if before:
        assert served.memory() - before < MEMORY


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_named_formats_are_read(served, form):
    assert served.ask(asking(encoded(Image.new("RGB", (60, 50), (200, 30, 30)), form)))[0] == 200


def test_no_program_is_started(registered, tmp_path, monkeypatch):
    stub = tmp_path / "gs"
    stub.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for content in (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        b"\xc5\xd0\xd3\xc6" + bytes(99),
    ):
        with pytest.raises(Refusal):
            bodies.decode(read_body(json.dumps(asking(content)).encode(), SIZE).images, SIZE)
    assert not (tmp_path / "started").exists()


@linux
def test_small_request_is_answered_between_the_pictures_of_many_large_ones(served):
    before = served.memory()
    large = [served.send(HEAVY) for _ in range(8)]
    try:
        for _ in range(3):
            assert served.ask()[0] == 200
            assert served.ask(asking(SMALL))[0] == 200
        assert not all(answered(client) for client in large), "it waited for all of them"
        for client in large[:6]:
            client.close()  # and nobody works for them any more
        assert [answer(client)[0] for client in large[6:]] == [200] * 2
    finally:
        for client in large:
            client.close()
    assert served.memory() - before < MEMORY


def test_work_ends_with_its_client():
    done: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def work(name: str) -> None:
        done.append(name)
        begun.set()
        assert go_on.wait(PATIENCE)

    async def ask() -> None:
        threads = Turns()
        first, gone, last, small = (
            asyncio.create_task(threads.take(units, work, name))
            for units, name in ((10**6, "first"), (10**6, "gone"), (10**7, "last"), (10**5, "small"))
        )
        await asyncio.to_thread(begun.wait, PATIENCE)
        gone.cancel()
        go_on.set()
        await asyncio.gather(first, last, small)

    asyncio.run(ask())
    assert done == ["first", "small", "last"]


def test_what_waits_is_asked_as_one_batch_and_gone_clients_are_left_out():
    asked: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        asked.append(len(pixels))
        begun.set()
        assert go_on.wait(PATIENCE)
        return pixels[:, 0, :1].astype("float32")

    def faces(first: int, last: int) -> np.ndarray:
        return np.broadcast_to(np.arange(first, last, dtype="uint8")[:, None, None], (last - first, *SIZE))

    async def ask() -> list[np.ndarray]:
        batches = Batches(probabilities)
        batches.each = 1e-9
        first = asyncio.create_task(batches.ask(faces(0, 1)))
        await asyncio.to_thread(begun.wait, PATIENCE)
        waiting = [asyncio.create_task(batches.ask(faces(*b))) for b in ((1, 101), (101, 104), (104, 105), (105, 110))]
        gone = asyncio.create_task(batches.ask(faces(110, 130)))
        await asyncio.sleep(0)
        gone.cancel()
        batches.each = 1e-9
        go_on.set()
        return await asyncio.gather(first, *waiting)

    answers = asyncio.run(ask())
    assert asked[0] == 1 and sum(asked) == 110 and max(asked) <= turns.BATCH
    np.testing.assert_array_equal(np.concatenate(answers)[:, 0], np.arange(110))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((h, 200) for h in ("localhost", "LOCALHOST:80", "localhost.", "127.0.0.1:5001", "10.1.2.3", "[::1]:80")),
        *((host, 403) for host in ("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil")),
        *((host, 403) for host in ("evil", "localhost@evil.example", "evil.example@localhost", "evil/localhost", "")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/ping", "/invocations"])
def test_names_of_other_sites_get_403(served, host, status, path):
    connection = http.client.HTTPConnection(ADDRESS, served.port, timeout=PATIENCE)
    connection.request("POST" if path == "/invocations" else "GET", path, json.dumps(FACE),
                       {"Host": host, "Content-Type": "application/json"})  # fmt: skip
    assert connection.getresponse().status == status
    connection.close()


def test_host_that_is_allowed_is_taken():
    from starlette.requests import Request

    request = Request({"type": "http", "headers": [(b"host", b"faces.example:443")]})
    _check_head(request, frozenset({"faces.example"}))
    with pytest.raises(Refusal, match="allowed_hosts="):
        _check_head(request, frozenset({"localhost"}))


@pytest.mark.parametrize("value", [True, False])
def test_true_and_false_are_no_pixels(served, value):
    images = np.zeros((2, *SIZE), int).tolist()
    images[1][2][3] = value
    status, said = served.ask({"inputs": images})
    assert status == 400 and f"image 1, row 2, column 3 is {str(value).lower()}" in said["error"]


def test_requests_have_as_many_images_as_a_network_of_any_size_can_hold():
    assert bodies.most_images((48, 48)) == bodies.IMAGES and bodies.most_images((299, 299)) < 50
    assert bodies.most_images((10_000, 10_000)) == 1


def test_body_that_does_not_arrive_is_given_up(monkeypatch):
    async def ask() -> list[Any]:
        async def receive() -> dict[str, Any]:
            if not asked:
                asked.append(True)
                return {"type": "http.request", "body": b"{", "more_body": True}
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        asked, sent = [], []
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "path": "/invocations", "method": "POST", "headers": headers, "query_string": b""}
        await served(scope, receive, send)
        return sent

    monkeypatch.setattr(room, "SECONDS", 0.01)
    about = SimpleNamespace(size=SIZE, classes=CLASSES, threshold=0.0, name="fer-demo", number=1, probabilities=None)
    served = room.ServedModel(about, Answering("keras", [], (0, 0), None), about, "champion", None, frozenset())
    start, body = asyncio.run(ask())
    assert start["status"] == 408 and b"has not arrived within" in body["body"] and served.held == 0


def test_a_refused_body_is_let_go_of_at_once(classifier):
    """What refers to each other in a circle stays until Python looks for such, 30 MB of each request."""

    async def ask() -> None:
        async def receive() -> dict[str, Any]:
            return parts.pop() if parts else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        sent: list[Any] = []
        parts = [{"type": "http.request", "body": b"[" * 100_000}]
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "path": "/invocations", "method": "POST", "headers": headers, "query_string": b""}
        await served(scope, receive, send)
        assert sent[0]["status"] == 400

    about = SimpleNamespace(size=SIZE, classes=CLASSES, threshold=0.0, name="fer-demo", number=1)
    served = room.ServedModel(about, Answering("keras", [], (0, 0), None), about, "champion", None, frozenset())
    asyncio.run(ask())
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        asyncio.run(ask())
        gc.collect()
        assert not [kept for kept in gc.garbage if isinstance(kept, room.Refusal)]
    finally:
        gc.set_debug(0)
        gc.enable()
        gc.garbage.clear()
