"""The served model over real HTTP, in a process of its own."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from asked_server import Served
from PIL import Image
from serving_process import Server, serving
from tiny_champion import CLASSES, SIZE

from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.serving import loading, turns
from fer_experiments.serving import serve as room
from fer_experiments.serving.predict import predict

FACES = np.random.default_rng(0).integers(0, 256, (5, *SIZE), dtype=np.uint8)


@pytest.fixture(scope="module")
def server(registered: Config) -> Iterator[Server]:
    with serving(registered) as server:
        yield server
        assert server.process.poll() is None, "a request ended the server"


def encoded(pixels: np.ndarray, form: str = "PNG", prefix: str = "") -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return prefix + base64.b64encode(file.getvalue()).decode()


def test_nested_lists_and_pictures_get_what_predict_says(server, registered, tmp_path):
    names = []
    for number, face in enumerate(FACES):
        names.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(face).save(names[-1])
    lines: list[str] = []
    predict(registered, names, "json", lines.append)
    rows = json.loads("\n".join(lines))
    expected = [[row["probabilities"][name] for name in CLASSES] for row in rows]
    for body in (
        {"inputs": FACES.tolist()},
        {"instances": FACES.tolist()},
        {"inputs": [encoded(face) for face in FACES]},
        {"instances": [encoded(face, "PNG", "data:image/png;base64,") for face in FACES]},
    ):
        np.testing.assert_allclose(server.probabilities(body), expected, atol=1e-5)
    answer = server.ask({"inputs": FACES.tolist()})[1]["predictions"]
    assert [row["label"] for row in answer] == [row["label"] for row in rows]


def test_answer_is_mlflows_own(server, registered):
    folder = loading.find_model(registered, "champion")[1]
    table = mlflow.pyfunc.load_model(str(folder)).predict(FACES)
    answer = server.ask({"inputs": FACES.tolist()})[1]
    assert list(answer) == ["predictions"]
    assert [list(row) for row in answer["predictions"]] == [list(table.columns)] * len(FACES)
    for got, expected in zip(answer["predictions"], table.to_dict("records"), strict=True):
        assert got["label"] == expected["label"]
        assert got == pytest.approx(expected, abs=1e-6)


def test_jpeg_in_colour_of_another_size_is_taken(server, classifier):
    from fer_experiments.data.images import read_picture

    text = encoded(np.random.default_rng(1).integers(0, 256, (50, 30, 3), dtype=np.uint8), "JPEG")
    expected = classifier.probabilities(read_picture(base64.b64decode(text), "jpeg", SIZE)[None])
    np.testing.assert_allclose(server.probabilities({"inputs": [f"{text[:76]}\n{text[76:]}"]}), expected, atol=1e-5)


def test_parallel_requests_get_their_own_answers(server, classifier):
    images = np.random.default_rng(2).integers(0, 256, (200, *SIZE), dtype=np.uint8)
    expected = classifier.probabilities(images)
    bounds = [(start, start + 1 + start % 7) for start in range(0, 190, 3)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda b: server.probabilities({"inputs": images[b[0] : b[1]].tolist()}), bounds))
    for (start, stop), answer in zip(bounds, got, strict=True):
        np.testing.assert_allclose(answer, expected[start:stop], atol=1e-5)


def test_more_images_than_a_batch_keep_their_order(server, classifier):
    images = np.random.default_rng(3).integers(0, 256, (2 * turns.BATCH + 1, *SIZE), dtype=np.uint8)
    expected = classifier.probabilities(images)
    np.testing.assert_allclose(server.probabilities({"inputs": images.tolist()}), expected, atol=1e-5)


def test_root_tells_what_is_served_and_the_rest_is_mlflows(server):
    status, about = server.ask(method="GET", path="/")
    assert status == 200 and "POST /invocations" in about["ask"]
    assert (about["model"], about["version"], about["alias"]) == ("fer-demo", 1, "champion")
    assert (about["classes"], about["size"]) == (CLASSES, list(SIZE))
    assert server.ask(method="GET", path="/ping")[0] == server.ask(method="GET", path="/health")[0] == 200
    assert server.ask(method="GET", path="/version") == (200, mlflow.__version__)


def changed(value: Any) -> dict[str, Any]:
    """A request whose second image has this value in row 2, column 3."""
    images = FACES[:2].tolist()
    images[1][2][3] = value
    return {"inputs": images}


HEIGHT, WIDTH = SIZE
WRONG = {
    "no JSON": (b"pixels", "not JSON"),
    "no UTF-8": (b"\xff\xfe", "not JSON"),
    "nothing": (b"", "not JSON"),
    "a list": ([1], "a list of 1"),
    "no keys": ({}, r"the keys \[\]"),
    "another key": ({"pixels": []}, r'the keys \["pixels"\]'),
    "half a surrogate as key": (b'{"\\ud800": 1}', "d800"),
    "two keys": ({"inputs": [], "instances": []}, "nothing else"),
    "a frame": ({"dataframe_split": {"data": [[1]]}}, "dataframe_split"),
    "empty": ({"inputs": []}, "an empty list"),
    "null": ({"inputs": None}, "null"),
    "text": ({"inputs": "abc"}, '"abc"'),
    "one image alone": ({"inputs": FACES[0].tolist()}, f"image 0 is a list of {WIDTH}, not {HEIGHT} rows"),
    "transposed": ({"inputs": FACES.transpose(0, 2, 1).tolist()}, f"image 0 is a list of {WIDTH}"),
    "a channel": ({"inputs": FACES[..., None].tolist()}, "row 0, column 0 is a list of 1"),
    "ragged": ({"inputs": [[[1, 2], [3]]]}, "image 0 is a list of 2"),
    "a short row": ({"inputs": [[[1] * WIDTH] * (HEIGHT - 1) + [[1]]]}, f"row {HEIGHT - 1} is a list of 1"),
    "a number as row": ({"inputs": [[5] * HEIGHT]}, "row 0 is 5"),
    "an object": ({"inputs": [{"a": 1}]}, "image 0 is an object"),
    "a fraction": (changed(0.5), "image 1, row 2, column 3 is 0.5"),
    "a float": (changed(7.0), "column 3 is 7.0"),
    "NaN": (changed(float("nan")), "column 3 is NaN"),
    "too large": (changed(256), "column 3 is 256"),
    "far too large": (changed(10**100), "column 3 is 1"),
    "negative": (changed(-1), "column 3 is -1"),
    "text as number": (changed("7"), 'column 3 is "7"'),
    "null as number": (changed(None), "column 3 is null"),
    "deep": (b'{"inputs": ' + b"[" * 100_000, "nested too deeply"),
    "no base64": ({"inputs": ["?"]}, "image 0 is text that is not base64"),
    "no picture": ({"inputs": ["aGVsbG8="]}, "image 0: cannot be read as a picture"),
    "half a picture": ({"inputs": [encoded(FACES[0])[:80]]}, "image 0: cannot be read as a picture"),
    "empty text": ({"inputs": [""]}, "the file is empty"),
    "both forms": ({"inputs": [encoded(FACES[0]), FACES[1].tolist()]}, "1 base64 strings among 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_mistake_of_a_client_is_named_in_a_line(server, name):
    body, message = WRONG[name]
    status, answer = server.ask(body)
    assert status == 400 and list(answer) == ["error"]
    assert "\n" not in answer["error"] and "Traceback" not in answer["error"] and len(answer["error"]) < 600
    assert f"uint8 pixels [n, {HEIGHT}, {WIDTH}]" in answer["error"]
    assert re.search(message, answer["error"])
    assert server.probabilities({"inputs": FACES[:1].tolist()}).shape == (1, 3)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Type": "text/csv"}, 415),
        ({"Content_Type": "application/json; charset=latin-1"}, 415),
        ({"Content_Encoding": "gzip"}, 415),
        ({"Content_Type": "Application/JSON; charset=UTF-8"}, 200),
    ],
)
def test_other_content_types_are_refused(server, headers, status):
    got, answer = server.ask({"inputs": FACES.tolist()}, **headers)
    assert got == status and ("error" in answer) == (status != 200)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/invocations", 405),
        ("PUT", "/", 405),
        ("POST", "/ping", 405),
        ("GET", "/docs", 404),
        ("POST", "/x", 404),
    ],
)
def test_other_paths_and_methods_are_refused(server, method, path, status):
    got, answer = server.ask(method=method, path=path)
    assert got == status and list(answer) == ["error"]


def memory(server: Server) -> int:
    """The most bytes that the process has held."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10


def test_large_body_is_refused_and_not_held(server):
    before = memory(server) if sys.platform == "linux" else 0
    piece = b" " * (1 << 20)
    length = 5 * room.LIMIT
    for headers in ({"Content-Length": str(length)}, {"Transfer-Encoding": "chunked"}):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
        body = (piece for _ in range(length // len(piece)))
        headers = {"Content-Type": "application/json"} | headers
        connection.request("POST", "/invocations", body, headers, encode_chunked="Transfer-Encoding" in headers)
        answer = connection.getresponse()
        assert answer.status == 413 and "larger than 32 MB" in json.loads(answer.read())["error"]
        connection.close()
    if before:
        assert memory(server) - before < 3 * room.LIMIT


def unread(port: int) -> int:
    """Bytes that have arrived for a server, or are on their way to it, and that it has not read."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    of_it = [row[4].split(":") for row in rows if f":{port:04X}" in (row[1][-5:], row[2][-5:])]
    return sum(int(sent, 16) + int(arrived, 16) for sent, arrived in of_it)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_many_large_bodies_at_once_are_refused_and_small_ones_answered(server):
    half_sent = []
    head = "POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
    large = {"inputs": FACES.tolist(), "more": " " * 2 * room.SMALL}
    try:
        for _ in range(room.HELD // room.LIMIT):
            half_sent.append(socket.create_connection(("127.0.0.1", server.port), timeout=300))
            half_sent[-1].sendall(f"{head}{room.LIMIT}\r\n\r\n".encode() + b" " * (room.LIMIT - 1))
        while unread(server.port):
            time.sleep(0.01)
        assert server.ask({"inputs": FACES.tolist()})[0] == 200  # and what it has read before is held by now
        told = server.ask(large)
        assert told[0] == 429 and "ask again" in told[1]["error"]
        assert server.ask({"inputs": FACES.tolist()})[0] == 200
    finally:
        for client in half_sent:
            client.close()
    while (told := server.ask(large))[0] != 400:  # it has not seen all of them go yet
        assert told[0] == 429


@pytest.mark.parametrize("length", ["10", "1000000", "99999999999999999999", "-1", "x"])
def test_content_length_that_lies_hurts_nobody(server, length):
    body = json.dumps({"inputs": FACES.tolist()}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=300) as client:
        head = "POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
        client.shutdown(socket.SHUT_WR)
        answer = client.recv(1000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert server.ask({"inputs": FACES.tolist()})[0] == 200
    assert "Traceback" not in server.log.read_text()


def test_huge_picture_in_few_bytes_is_refused(server):
    bomb = encoded(np.zeros((9000, 9000), "uint8"))
    status, answer = server.ask({"inputs": [bomb]})
    assert status == 400 and "cannot be read as a picture" in answer["error"] and len(bomb) < 200_000


def test_port_in_use_is_said_before_a_model_is_looked_for(server, tmp_path):
    with pytest.raises(UserError, match=rf"cannot listen on 127.0.0.1 port {server.port} .*port="):
        room.serve(Config(), port=server.port)
    for host, port in (
        ("192.0.2.1", 0),
        ("no.such.host.invalid", 0),
        ("faces..example", 0),
        ("a" * 70, 0),
        ("127.0.0.1", 99999),
    ):
        with pytest.raises(UserError, match="cannot listen on"):
            room.serve(Config(), host, port)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_ends_it_quietly_whoever_is_connected(registered, number, code):
    served = Served(registered)
    assert served.ask()[0] == 200
    # A client that keeps its connection, and one that never ends its request.
    waiting = [served.connect() for _ in range(2)]
    head = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    waiting[1].sendall(head + b"Content-Length: 9\r\n\r\n")
    assert served.ask()[0] == 200  # who came before has been let in
    os.kill(served.command.pid, number)
    ended, errors = served.command.wait(), served.command.stderr
    assert ended == code and "Traceback" not in errors, errors
    for client in waiting:
        client.close()
