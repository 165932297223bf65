"""`fer serve`: the registered model over HTTP, asked and answering as MLflow's scoring server does.

/ping, /health and /version are MLflow's own. /invocations is ours: MLflow's handler (3.17) cuts the fraction off a
float without a word, answers deep nesting with 500, takes no pictures and a body of any size, and is slower
(docs/serving.md has the figures).
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import json
import logging
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.serving.answers import answers
from fer_experiments.serving.bodies import Refusal, most_images
from fer_experiments.serving.fast import Answering, answering, kept_at
from fer_experiments.serving.finding import check_detector
from fer_experiments.serving.loading import find_model, loading
from fer_experiments.serving.turns import Batches, Turns
from fer_experiments.terminal import Echo, say
from fer_experiments.tracking import models

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from fer_experiments.tracking.classifier import FaceClassifier
    from fer_experiments.tracking.models import Version

LIMIT = 32 << 20  # bytes of a body
HELD = 4 * LIMIT  # bytes of all large requests that wait for their turn; those up to SMALL are always taken
SMALL = 256 << 10
DRAINED = 8 * LIMIT  # bytes that are read and forgotten: most clients read no answer before they have sent everything
SECONDS = 60  # that a body may take to arrive
DIGITS = 640  # of a number in JSON, the fewest that Python lets one choose: it takes their square to read one
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/?#\s]+)(:\d*)?", re.IGNORECASE)
MLFLOW = ("/ping", "/health", "/version")


def serve(
    config: Config,
    host: str = "127.0.0.1",
    port: int = 5001,
    echo: Echo = say,
    version: str = "champion",
    allowed_hosts: str = "",
) -> None:
    """Serves the registered model until it is interrupted; the one that is loaded, also when the alias moves.

    host, port: where to listen; port 0 takes a free one, which the line that is echoed tells. Nothing asks for a
    password. allowed_hosts: names besides this machine's by which it may be asked, with commas between them.

    Raises:
        UserError: a port in use, an address that is not this machine's, no such model.
    """
    with _listen(host, port) as listening:  # before the seconds that it takes to load a model
        import uvicorn

        from fer_experiments.serving.connections import BURST, Connection, Server

        names = ("localhost", host, socket.gethostname(), *allowed_hosts.split(","))
        served, app = _load(config, version, frozenset(name.strip().lower() for name in names) - {""})
        address = f"[{host}]" if ":" in host else host
        echo(f"serving {served.uri} ({version}) at http://{address}:{listening.getsockname()[1]}; Ctrl-C ends it")
        sys.stdout.flush()
        options = uvicorn.Config(
            app, http=Connection, ws="none", lifespan="off", backlog=BURST, log_level="error", access_log=False
        )
        gc.collect()
        gc.freeze()  # what the libraries have made is not looked through again while a client waits
        sys.set_int_max_str_digits(DIGITS)
        Server(options).run(sockets=[listening])  # hands the signal that ended it on to who handled it before


def _load(config: Config, which: str, names: frozenset[str]) -> tuple[Version, ServedModel]:
    """The model behind HTTP, as the fastest engine answers that says what it says."""
    version, folder = find_model(config, which)
    with loading(config, version, folder):
        classifier, app = models.load_scoring(folder)
    by = answering(classifier, kept_at(config, version))
    with suppress(UserError):
        check_detector()  # before anyone waits: while it is made, Python does nothing else
    return version, ServedModel(classifier, by, version, which, app, names)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
        # asyncio does so only for sockets it made itself; without it an answer may wait 40 ms for the client's ACK.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0  # negative: the resolver's, whose text is in the error
        reason = os.strerror(number) if number > 0 else str(error)
        raise UserError(
            f"cannot listen on {host} port {port} ({reason}): end what listens there, or choose another host= or port="
        ) from error


class ServedModel:
    """An ASGI application around MLflow's scoring server.

    classifier: what is served. by: what answers for it. app: as scoring_server.init makes it. names: by which it may
    be asked.
    """

    def __init__(
        self,
        classifier: FaceClassifier,
        by: Answering,
        version: Version,
        alias: str,
        app: FastAPI,
        names: frozenset[str],
    ) -> None:
        self.classifier = classifier
        self.app = app
        self.names = names
        self.turns = Turns()
        self.batches = Batches(by.probabilities)
        self.held = 0  # bytes of the large requests that have arrived so far and are not pixels yet
        height, width = classifier.size
        self.expected = (
            f'expected {{"inputs": [...]}} with uint8 pixels [n, {height}, {width}] as nested lists of whole numbers '
            f"from 0 to 255, or with n base64 strings of PNG, JPEG or WebP; n up to {most_images(classifier.size)}; "
            'each is a crop that one face fills, or with "find_faces": true beside them a photograph in base64'
        )
        self.about = {
            "model": version.name,
            "version": version.number,
            "alias": alias,
            "classes": classifier.classes,
            "uncertain_below": classifier.threshold,
            "size": [height, width],
            "ask": f"POST /invocations with Content-Type application/json; {self.expected}",
            "constant": "an image of a single gray level is no face, and its label says nothing",
            "limit": f"{LIMIT >> 20} MB",
            "engine": by.engine,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import Response

        request, status, headers = Request(scope, receive), 200, {}
        try:
            _check_head(request, self.names)
            if scope["path"] in MLFLOW and scope["method"] == "GET":
                await self.app(scope, receive, send)
                return
            answer = await self._answer(request)
        except ClientDisconnect:
            return
        except Refusal as refusal:
            status, answer = refusal.status, {"error": str(refusal)}
            if "transfer-encoding" in request.headers:
                headers["Connection"] = "close"  # whatever follows on it may be a part of this body
            if status == 405:
                headers["Allow"] = "POST" if scope["path"] == "/invocations" else "GET"
        except Exception:
            logging.getLogger("uvicorn.error").exception("%s %s", scope["method"], scope["path"])
            status, answer = 500, {"error": "the server has failed; its log says how"}
        # ASCII: half a surrogate pair, out of a name that the client chose, has no UTF-8.
        await Response(json.dumps(answer), status, headers, "application/json")(scope, receive, send)

    async def _answer(self, request: Request) -> dict[str, Any]:
        path, method = request.scope["path"], request.method
        if path == "/" and method in ("GET", "HEAD"):
            return self.about
        if path == "/invocations" and method == "POST":
            return await self._invocations(request)
        if path in ("/", "/invocations", *MLFLOW):
            raise Refusal(405, f"{path} does not take {method}; {self.about['ask']}")
        raise Refusal(404, f"{path[:100]}: no such path; there are /, /invocations, {', '.join(MLFLOW)}")

    async def _invocations(self, request: Request) -> dict[str, Any]:
        from starlette.requests import ClientDisconnect

        _check_content_type(request)
        async with self._body(request) as body:
            asked = asyncio.create_task(answers(body, self.classifier, self.turns, self.batches))
            gone = asyncio.create_task(_disconnect(request.receive))
            try:
                await asyncio.wait({asked, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not asked.done():
                    raise ClientDisconnect
                return {"predictions": asked.result()}
            except Refusal as refusal:
                if refusal.status == 501:
                    raise
                raise Refusal(refusal.status, f"{refusal}; {self.expected}") from refusal
            finally:
                asked.cancel()
                gone.cancel()
                del asked, gone  # a refusal, its frames and its task would keep each other, and the body

    @asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytearray]:
        """The body; whatever its length is said to be, no more than LIMIT of it is held, and HELD of all together."""
        too_large = Refusal(413, f"the body is larger than {LIMIT >> 20} MB: ask for fewer images at once")
        too_many = Refusal(429, "too many large bodies at once: ask again in a moment")
        waits = "expect" in request.headers  # curl asks before it sends much
        if waits and int(request.headers.get("content-length", "0")) > LIMIT:
            raise too_large
        body, length, held = bytearray(), 0, 0
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
                            held += len(part)
                            body += part
                        elif length > DRAINED or waits:
                            raise refusal
                        else:
                            self.held -= held
                            held = 0
                            body.clear()
            except TimeoutError as error:
                raise Refusal(408, f"the body has not arrived within {SECONDS} s") from error
            if refusal is not None:
                raise refusal
            yield body
        finally:
            self.held -= held
            body.clear()  # whoever still knows it


async def _disconnect(receive: Receive) -> None:
    """Waits until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _check_head(request: Request, names: frozenset[str]) -> None:
    """That it is asked by an address or a name it has, as no page of another site can, and can be read in one way."""
    host = request.headers.get("host")
    found = HOST.fullmatch(host) if host is not None else None
    name = found[1].lower().strip("[]").removesuffix(".") if found else ""
    if host is not None and name not in names and not _is_address(name):
        raise Refusal(403, f"Host is {host[:100]}: ask by address or as localhost, or serve with allowed_hosts=<name>")
    if "transfer-encoding" in request.headers and "content-length" in request.headers:
        raise Refusal(400, "Content-Length together with Transfer-Encoding: send one of them")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_content_type(request: Request) -> None:
    kind, *parameters = (part.strip().lower() for part in request.headers.get("content-type", "").split(";"))
    if kind != "application/json" or any(p not in ("", "charset=utf-8", 'charset="utf-8"') for p in parameters):
        given = request.headers.get("content-type", "none")[:100]
        raise Refusal(415, f"Content-Type is {given}; it must be application/json, in UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "Content-Encoding: send the body uncompressed")
