"""`fer ui`: MLflow's UI over the store, for its owner's browser and nobody else on the machine."""

from __future__ import annotations

import base64
import os
import secrets
import socket
import sys
from typing import TYPE_CHECKING, Any

from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.quiet import silenced
from fer_experiments.terminal import Echo, say
from fer_experiments.tracking.store import Store, connect_existing

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

USER, HOST = "owner", "127.0.0.1"


def show(config: Config, port: int = 5000, echo: Echo = say) -> None:
    """Answers until Ctrl-C, to whoever has the password that this process draws and prints.

    Raises:
        UserError: nothing is recorded there yet, a server's store, or a port that cannot be listened on.
    """
    import uvicorn

    store = connect_existing(config)
    if store.uri.startswith("http"):
        raise UserError(f"{store}: shows itself in a browser, to its own users")
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        raise UserError(f"{HOST} port {port}: {error.strerror}; end what listens there, or say port=0") from error
    with listening:
        address, password = f"{HOST}:{listening.getsockname()[1]}", secrets.token_urlsafe(24)
        app = OnlyOwner(_mlflow(store), address, password)
        echo(f"MLflow's UI over {store}, for your browser alone:")
        echo(f"  http://{USER}:{password}@{address}/enter\nCtrl-C ends it")
        sys.stdout.flush()
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def _mlflow(store: Store) -> ASGIApp:
    """MLflow's own application, as `mlflow ui` starts it, without the artifacts of other programs."""
    from mlflow.server import constants

    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: store.uri,
        constants.REGISTRY_STORE_URI_ENV_VAR: store.uri,
        constants.ARTIFACT_ROOT_ENV_VAR: (store.mlruns / "artifacts").as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # workers for LLM judges
    }
    with silenced():  # a warning of Starlette's about MLflow
        from mlflow.server.fastapi_app import app

    return app


class OnlyOwner:
    """Passes on what has the password, and comes from no page of another address.

    A browser keeps a password to the port that asked for it; a cookie it would send to every port of the machine.
    """

    def __init__(self, app: ASGIApp, address: str, password: str) -> None:
        self.app, self.own = app, f"http://{address}"
        self.expected = b"Basic " + base64.b64encode(f"{USER}:{password}".encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not secrets.compare_digest(headers.get(b"authorization", b""), self.expected):
            challenge = [(b"www-authenticate", b'Basic realm="fer ui"')]
            await _answer(send, scope, 401, challenge, b"Open the address that `fer ui` has printed.\n")
        elif headers.get(b"origin", self.own.encode()) != self.own.encode():
            await _answer(send, scope, 403, [], b"Not from another page.\n")
        elif (
            scope["type"] == "http" and scope["path"] == "/enter"
        ):  # a page with a password in its address may not fetch
            await _answer(send, scope, 303, [(b"location", f"{self.own}/".encode())], b"")
        else:
            await self.app(scope, receive, send)


async def _answer(send: Send, scope: Scope, status: int, headers: list[Any], body: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [*headers, (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
