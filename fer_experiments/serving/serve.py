"""`fer serve`: the registered model over HTTP, asked and answering as MLflow's scoring server does.

/ping, /health and /version are MLflow's own. /invocations is ours: MLflow's handler (3.17) cuts the fraction off a
float without a word, answers deep nesting with 500, takes no pictures and a body of any size, and is slower
(docs/serving.md has the figures).
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.serving.loading import find_model, loading
from fer_experiments.terminal import say
from fer_experiments.tracking import models

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from fer_experiments.tracking.classifier import FaceClassifier
    from fer_experiments.tracking.models import Version

LIMIT = 32 << 20  # bytes of a body
HELD = 8 * LIMIT  # bytes of all bodies that wait for their turn; beyond it only those up to SMALL are taken
SMALL = 1 << 20
DRAINED = 8 * LIMIT  # bytes that are read and forgotten: most clients read no answer before they have sent everything
SECONDS = 60  # that a body may take to arrive
CLOSING = 3  # seconds that requests in flight have when the server is ended
BATCH = 64  # images between which other requests have their turn
KEYS = ("inputs", "instances")
MLFLOW = ("/ping", "/health", "/version")


class Refusal(Exception):
    """A request that cannot be answered: an HTTP status of 4xx, and a line for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def serve(
    config: Config,
    host: str = "127.0.0.1",
    port: int = 5001,
    echo: Callable[[str], None] = say,
    version: str = "champion",
) -> None:
    """Serves the registered model until it is interrupted; the one that is loaded, also when the alias moves.

    host, port: where to listen; port 0 takes a free one, which the line that is echoed tells. Nothing asks for a
    password.

    Raises:
        UserError: a port in use, an address that is not this machine's, no such model.
    """
    with _listen(host, port) as listening:  # before the seconds that it takes to load a model
        import uvicorn

        served, app = _load(config, version)
        address = f"[{host}]" if ":" in host else host
        echo(f"serving {served.uri} ({version}) at http://{address}:{listening.getsockname()[1]}; Ctrl-C ends it")
        sys.stdout.flush()
        options = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=CLOSING
        )
        uvicorn.Server(options).run(sockets=[listening])  # hands the signal that ended it on to who handled it before


def _load(config: Config, which: str) -> tuple[Version, ServedModel]:
    """The model behind HTTP, called once so that the first client does not wait for TensorFlow's graph."""
    version, folder = find_model(config, which)
    with loading(config, version, folder):
        classifier, app = models.load_scoring(folder)
    classifier.probabilities(np.zeros((1, *classifier.size), "uint8"))
    return version, ServedModel(classifier, version, which, app)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
        # asyncio does so only for sockets it made itself; without it an answer may wait 40 ms for the client's ACK.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None) or 0  # negative: the resolver's, whose text is in the error
        reason = os.strerror(number) if number > 0 else str(error)
        raise UserError(
            f"cannot listen on {host} port {port} ({reason}): end what listens there, or choose another host= or port="
        ) from error


class ServedModel:
    """An ASGI application around MLflow's scoring server.

    classifier: what answers, in one thread: TensorFlow does not promise that a model may be called by several at once,
    and uses all cores for each call. app: as scoring_server.init makes it.
    """

    def __init__(self, classifier: FaceClassifier, version: Version, alias: str, app: FastAPI) -> None:
        self.classifier = classifier
        self.app = app
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.held = 0  # bytes of the bodies that have arrived so far and are not read yet
        height, width = classifier.size
        self.expected = (
            f'expected {{"inputs": [...]}} with uint8 pixels [n, {height}, {width}] as nested lists of whole numbers '
            "from 0 to 255, or with n base64 strings of PNG or JPEG pictures"
        )
        self.about = {
            "model": version.name,
            "version": version.number,
            "alias": alias,
            "classes": classifier.classes,
            "size": [height, width],
            "ask": f"POST /invocations with Content-Type application/json; {self.expected}",
            "limit": f"{LIMIT >> 20} MB",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import Response

        if scope["path"] in MLFLOW and scope["method"] == "GET":
            await self.app(scope, receive, send)
            return
        status, headers = 200, {}
        try:
            answer = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        except Refusal as refusal:
            status, answer = refusal.status, {"error": str(refusal)}
            if status == 405:
                headers["Allow"] = "POST" if scope["path"] == "/invocations" else "GET"
        except Exception:
            logging.getLogger("uvicorn.error").exception("%s %s", scope["method"], scope["path"])
            status, answer = 500, {"error": "the server has failed; its log says how"}
        # ASCII: half a surrogate pair, out of a name that the client chose, has no UTF-8.
        await Response(json.dumps(answer), status, headers, "application/json")(scope, receive, send)

    async def _answer(self, request: Request) -> dict[str, Any]:
        path, method = request.url.path, request.method
        if path == "/" and method in ("GET", "HEAD"):
            return self.about
        if path == "/invocations" and method == "POST":
            return await self._invocations(request)
        if path in ("/", "/invocations", *MLFLOW):
            raise Refusal(405, f"{path} does not take {method}; {self.about['ask']}")
        raise Refusal(404, f"{path[:100]}: no such path; there are /, /invocations, {', '.join(MLFLOW)}")

    async def _invocations(self, request: Request) -> dict[str, Any]:
        _check_content_type(request)
        turn = asyncio.get_running_loop().run_in_executor
        async with self._body(request) as body:
            try:
                pixels = await turn(self.thread, read_pixels, body, self.classifier.size)
            except Refusal as refusal:
                raise Refusal(refusal.status, f"{refusal}; {self.expected}") from refusal
        parts = [
            await turn(self.thread, self.classifier.probabilities, pixels[start : start + BATCH])
            for start in range(0, len(pixels), BATCH)
        ]
        return {"predictions": predictions(np.concatenate(parts), self.classifier.classes)}

    @asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytearray]:
        """The body; whatever its length is said to be, no more than LIMIT of it is held, and HELD of all together."""
        too_large = Refusal(413, f"the body is larger than {LIMIT >> 20} MB: ask for fewer images at once")
        too_many = Refusal(429, "too many large bodies at once: ask again in a moment")
        waits = "expect" in request.headers  # curl asks before it sends much
        if waits and int(request.headers.get("content-length", "0")) > LIMIT:
            raise too_large
        body, length = bytearray(), 0
        refusal: Refusal | None = None
        try:
            try:
                async with asyncio.timeout(SECONDS):
                    async for part in request.stream():
                        length += len(part)
                        if length > LIMIT:
                            refusal = too_large
                        elif length > SMALL and self.held + len(part) > HELD:
                            refusal = too_many
                        if refusal is None:
                            self.held += len(part)
                            body += part
                        elif length > DRAINED or waits:
                            raise refusal
                        else:
                            self.held -= len(body)
                            body.clear()
            except TimeoutError as error:
                raise Refusal(408, f"the body has not arrived within {SECONDS} s") from error
            if refusal is not None:
                raise refusal
            yield body
        finally:
            self.held -= len(body)


def predictions(probabilities: np.ndarray, classes: list[str]) -> list[dict[str, Any]]:
    """The records of `FaceClassifier.table`, without the time that a data frame takes."""
    names = [f"probability_{name}" for name in classes]
    best = probabilities.argmax(axis=1)
    return [
        {"label": classes[i], **dict(zip(names, row, strict=True))}
        for i, row in zip(best, probabilities.tolist(), strict=True)
    ]


def _check_content_type(request: Request) -> None:
    kind, *parameters = (part.strip().lower() for part in request.headers.get("content-type", "").split(";"))
    if kind != "application/json" or any(p not in ("", "charset=utf-8", 'charset="utf-8"') for p in parameters):
        given = request.headers.get("content-type", "none")[:100]
        raise Refusal(415, f"Content-Type is {given}; it must be application/json, in UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "Content-Encoding: send the body uncompressed")


def read_pixels(body: bytes | bytearray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [n, height, width] of a request's body.

    Raises:
        Refusal: anything else, naming the first thing that is wrong.
    """
    try:
        content = json.loads(body.decode("utf-8-sig"))
    except RecursionError as error:
        raise Refusal(400, "the body is nested too deeply") from error
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON ({error})") from error
    if not isinstance(content, dict) or len(content) != 1 or (key := next(iter(content))) not in KEYS:
        given = (
            f"has the keys {json.dumps(list(content))[:100]}" if isinstance(content, dict) else f"is {_shown(content)}"
        )
        raise Refusal(400, f'the body must be an object with "inputs" or "instances" and nothing else; it {given}')
    images = content[key]
    if not isinstance(images, list) or not images:
        raise Refusal(400, f"{key} is {_shown(images)}, not a list of images")
    texts = sum(isinstance(image, str) for image in images)
    if texts not in (0, len(images)):
        raise Refusal(400, f"{key} has {texts} base64 strings among {len(images)} images; send all in one form")
    pixels = b"".join((_picture if texts else _pixels)(image, number, size) for number, image in enumerate(images))
    return np.frombuffer(pixels, "uint8").reshape(-1, *size)


def _picture(text: str, number: int, size: tuple[int, int]) -> bytes:
    from fer_experiments.data.images import read_picture

    encoded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        content = base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError as error:
        raise Refusal(400, f"image {number} is text that is not base64 ({error})") from error
    try:
        return read_picture(content, f"image {number}", size).tobytes()
    except UserError as error:
        raise Refusal(400, str(error)) from error


def _pixels(image: Any, number: int, size: tuple[int, int]) -> bytes:
    """Of nested lists. bytes() of a list of Python ints is faster than numpy, and takes nothing but 0 to 255."""
    height, width = size
    if not isinstance(image, list) or len(image) != height:
        raise Refusal(400, f"image {number} is {_shown(image)}, not {height} rows")
    rows = []
    for y, row in enumerate(image):
        if not isinstance(row, list) or len(row) != width:
            raise Refusal(400, f"image {number}, row {y} is {_shown(row)}, not {width} numbers")
        try:
            rows.append(bytes(row))
        except (TypeError, ValueError):
            x = next(x for x, value in enumerate(row) if not (isinstance(value, int) and 0 <= value <= 255))
            raise Refusal(400, f"image {number}, row {y}, column {x} is {_shown(row[x])}") from None
    return b"".join(rows)


def _shown(value: Any) -> str:
    """A client's value in a few words of one line."""
    if isinstance(value, list | dict):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}" if value else "an empty list"
    return json.dumps(value[:40] if isinstance(value, str) else value)
