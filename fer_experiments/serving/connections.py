"""Connections to `fer serve`, within bounds: how many, how long one may say nothing, and into how many pieces cut.

uvicorn has no time limit for headers, logs a line of each malformed request, and asyncio one, with a traceback, of each
connection for which there is no file descriptor.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

SILENT = 10  # seconds until a request's headers must be there
CLOSING = 3  # seconds that requests in flight have when the server is ended
CONNECTIONS = 256
BURST = 16  # connections that are let in at once
QUEUE = 128  # that wait to be let in
SPARE = 64  # file descriptors for others, and for connections that are being closed
PIECE = 8 << 10  # bytes that are looked at in one go, and of headers
CUTS = 256  # pieces of a body that may be smaller than CUT bytes
CUT = 64
AHEAD = 64 << 10  # bytes that a client may send before earlier requests are answered
FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _Framing(h11.Connection):
    """HTTP, where a body in very many chunks is malformed: each of them takes as long as 64 KB in one piece."""

    cuts = length = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.cuts = self.length = 0
        elif isinstance(event, h11.Data):
            self.cuts += 1
            self.length += len(event.data)
            if self.cuts > CUTS + self.length // CUT:
                raise h11.RemoteProtocolError("too many chunks")
        return event


class _Flow(FlowControl):
    """What is read waits in the socket while as much as AHEAD waits here for the answer to an earlier request.

    uvicorn lets more be read for each request of which it wants to know whether its client is still there.
    """

    def __init__(self, transport: asyncio.Transport, connection: h11.Connection) -> None:
        super().__init__(transport)
        self._connection = connection

    def resume_reading(self) -> None:
        """Unless too much waits already."""
        if len(self._connection.trailing_data[0]) <= AHEAD:
            super().resume_reading()


class Connection(H11Protocol):
    """One connection."""

    most = CONNECTIONS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Framing(h11.SERVER, PIECE)
        self.since = self.loop.time()  # since when it has asked nothing

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Lets it in; when there are too many, in the place of one that is not being answered."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.conn)
        if len(self.connections) > self.most:
            others = [c for c in self.connections if isinstance(c, Connection) and c is not self and c.arriving]
            if others:
                min(others, key=lambda other: (not other.idle, other.since)).drop()
            else:
                transport.write(FULL)
                self.drop()

    @property
    def idle(self) -> bool:
        """Whether no request has come, or the last one is answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def arriving(self) -> bool:
        """Whether no request is there to be answered."""
        return self.idle or self.cycle.more_body

    def drop(self) -> None:
        """Ends it at once; what it asked sees its client gone."""
        self.connections.discard(self)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """In pieces, so that headers have a bound however fast they come."""
        for start in range(0, len(data), PIECE):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + PIECE])

    def on_response_complete(self) -> None:
        """The next request has its time from now."""
        self.since = self.loop.time()
        super().on_response_complete()
        self.flow.resume_reading()  # with the next request out of what waited

    def send_400_response(self, msg: str) -> None:
        """Unless an answer is on its way already."""
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.drop()

    def shutdown(self) -> None:
        """When the server is ended."""
        try:
            super().shutdown()
        except h11.LocalProtocolError:
            self.drop()


class Server(uvicorn.Server):
    """uvicorn with these connections."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        used = len(list(Path("/dev/fd").iterdir()))
        Connection.most = max(1, min(CONNECTIONS, limit - used - SPARE))
        await super().startup(sockets)
        for listening in sockets or []:
            listening.listen(QUEUE)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection) and connection.idle and now - connection.since > SILENT:
                connection.drop()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends what is not answered within CLOSING seconds as if its client had gone."""
        asyncio.get_running_loop().call_later(CLOSING, self._drop_all)
        await super().shutdown(sockets)

    def _drop_all(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.drop()
