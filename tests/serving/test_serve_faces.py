"""Faces in the photographs of a request to the served model: as predict finds them, within bounds, and no one waits."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asked_server import LARGE, asking, encoded
from forked import PATIENCE
from photographs import GRAY, PLACES, found_faces, photograph
from PIL import Image
from tiny_champion import CLASSES, SIZE

from fer_experiments.config import Config
from fer_experiments.serving import bodies, finding
from fer_experiments.serving import serve as room
from fer_experiments.serving.finding import Face, Found
from fer_experiments.serving.predict import predict

FIND = {"find_faces": True}


@pytest.fixture(scope="module")
def served(registered: Config) -> room.ServedModel:
    return room._load(registered, "champion", frozenset({"localhost"}))[1]


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """Of two faces, of none, of one gray level, and of one face."""
    drawn = found_faces()
    noise = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    flat = np.full((60, 80), GRAY, np.uint8)
    found = [photograph(drawn, PLACES), noise, flat, photograph(drawn[:1], PLACES[:1])]
    return [encoded(Image.fromarray(picture), "PNG") for picture in found]


async def ask(served: room.ServedModel, body: Any, path: str = "/invocations") -> tuple[int, Any]:
    """Status and content of what it answers; body: None for a GET."""

    async def receive() -> dict[str, Any]:
        return parts.pop() if parts else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    sent: list[Any] = []
    parts = [{"type": "http.request", "body": json.dumps(body).encode()}]
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "path": path, "method": "GET" if body is None else "POST", "query_string": b""}
    await served(scope | {"headers": headers, "root_path": "", "scheme": "http"}, receive, send)
    content = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(content) if content.startswith(b"{") else content


def answer(served: room.ServedModel, body: Any) -> tuple[int, Any]:
    return asyncio.run(ask(served, body))


def test_faces_and_labels_are_those_of_predict(
    served: room.ServedModel, pictures: list[bytes], registered: Config, tmp_path: Path
):
    names = [str(tmp_path / f"{number}.png") for number in range(len(pictures))]
    for name, content in zip(names, pictures, strict=True):
        Path(name).write_bytes(content)
    lines: list[str] = []
    assert predict(registered, names, "json", lines.append, find_faces=True) == 0
    rows = json.loads("\n".join(lines))
    status, said = answer(served, asking(*pictures) | FIND)
    assert status == 200 and list(said) == ["predictions"]
    assert [len(one["faces"]) for one in said["predictions"]] == [2, 0, 0, 1]
    got = [(name, face) for name, one in zip(names, said["predictions"], strict=True) for face in one["faces"]]
    for row, (name, face) in zip(rows, got, strict=True):
        assert list(face) == [*Face._fields, "label", *(f"probability_{name}" for name in CLASSES)]
        assert (row["file"], row["label"]) == (name, face["label"])
        assert row["face"] == {key: face[key] for key in Face._fields}
        probabilities = [face[f"probability_{name}"] for name in CLASSES]
        assert list(row["probabilities"].values()) == pytest.approx(probabilities, abs=1e-6)
    assert rows[0]["probabilities"] != rows[1]["probabilities"]


def test_a_picture_without_faces_has_an_empty_list_and_says_why(served: room.ServedModel, pictures: list[bytes]):
    status, said = answer(served, asking(*pictures[1:3]) | FIND)
    assert status == 200 and said["predictions"] == [
        {"faces": [], "note": "no face found"},
        {"faces": [], "note": "constant, one gray level throughout: no face"},
    ]
    assert "single gray level is no face" in served.about["constant"]


def test_what_is_not_asked_for_is_answered_as_before(served: room.ServedModel, pictures: list[bytes]):
    plain = answer(served, asking(*pictures))
    assert plain[0] == 200 and [next(iter(one)) for one in plain[1]["predictions"]] == ["label"] * len(pictures)
    assert answer(served, asking(*pictures) | {"find_faces": False}) == plain


def test_a_model_that_abstains_is_uncertain_about_faces_too(
    served: room.ServedModel, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(served.classifier, "threshold", 1.1)
    monkeypatch.setattr(served.classifier, "uncertain", "uncertain")
    (said,) = answer(served, asking(pictures[0]) | FIND)[1]["predictions"]
    assert [face["label"] for face in said["faces"]] == ["uncertain"] * 2


def test_the_faces_of_a_request_are_asked_as_one_batch(
    served: room.ServedModel, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
):
    asked: list[int] = []
    own = served.batches.ask
    monkeypatch.setattr(served.batches, "ask", lambda pixels: asked.append(len(pixels)) or own(pixels))
    assert answer(served, asking(*pictures) | FIND)[0] == 200
    assert asked == [3]


@pytest.mark.parametrize("content", ["a photograph", "a pixel"])
def test_others_are_answered_while_faces_are_looked_for(
    served: room.ServedModel, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch, content: str
):
    begun, go_on = threading.Event(), threading.Event()

    def look(gray: np.ndarray, size: tuple[int, int]) -> Found:
        begun.set()
        assert go_on.wait(PATIENCE)
        return finding.look(gray, size)

    async def both() -> list[tuple[int, Any]]:
        picture = pictures[0] if content == "a photograph" else encoded(Image.new("L", (1, 1)), "PNG")
        waiting = asyncio.create_task(ask(served, asking(picture) | FIND))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        others = [await ask(served, None, "/health"), await ask(served, {"inputs": np.zeros((1, *SIZE), int).tolist()})]
        assert not waiting.done()
        go_on.set()
        return [*others, await waiting]

    monkeypatch.setattr(bodies, "look", look)
    assert [status for status, _ in asyncio.run(both())] == [200] * 3


def test_searching_counts_among_what_a_request_may_take():
    body = asking(*[LARGE] * 4)
    assert len(bodies.read_body(json.dumps(body).encode(), SIZE).images) == 4
    with pytest.raises(
        bodies.Refusal, match=r"the pictures take 1\.2 times what a request may: ask for fewer"
    ) as refused:
        bodies.read_body(json.dumps(body | FIND).encode(), SIZE)
    assert refused.value.status == 413


def test_more_faces_than_a_request_may_have_images_are_refused(
    served: room.ServedModel, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bodies, "IMAGES", 2)
    assert answer(served, asking(pictures[0], pictures[1]) | FIND)[0] == 200
    status, said = answer(served, asking(pictures[3], pictures[0]) | FIND)
    assert status == 413 and said["error"].startswith(
        "3 faces are found by image 1, more than 2: ask for fewer at once"
    )


def test_without_the_detector_the_extra_is_named_in_a_line_and_the_rest_is_answered(
    served: room.ServedModel, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "dlib", None)
    told = {"error": "find_faces: dlib is not installed; pip install dlib-bin (the extra faces)"}
    assert answer(served, asking(pictures[0]) | FIND) == (501, told)
    assert answer(served, asking(pictures[0]))[0] == 200


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": np.zeros((1, *SIZE), int).tolist()} | FIND, "find_faces looks in pictures: send inputs as base64"),
        (asking(LARGE) | {"find_faces": 1}, "find_faces is 1, neither true nor false"),
        (asking(LARGE) | {"find_faces": None}, "find_faces is null, neither true nor false"),
        (FIND, r'nothing else but "find_faces"; it has the keys ["find_faces"]'),
        (asking(LARGE) | {"params": FIND}, r'nothing else but "find_faces"; it has the keys ["inputs", "params"]'),
        (asking(b"no picture") | FIND, "image 0: cannot be read as a picture"),
        (asking(LARGE[:200]) | FIND, "image 0: cannot be read as a picture"),
    ],
)
def test_mistake_is_named_in_a_line(served: room.ServedModel, body: Any, said: str):
    status, told = answer(served, body)
    assert status == 400 and said in told["error"] and "\n" not in told["error"] and len(told["error"]) < 600
    assert '"find_faces": true' in told["error"]
