"""Attacks by connections: too many, silent ones, and what is sent in pieces without end."""

from __future__ import annotations

import http.client
import json
import select
import sys

import pytest
from asked_server import ADDRESS, FACE, HEAVY, Served
from forked import PATIENCE

from fer_experiments.serving import connections

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
COUNT = 1000
SOCKETS = 24 << 20  # bytes: more than the system's buffers of a connection hold, and a third of what is sent


@pytest.mark.parametrize("header", ["x: y\r\n" * 40_000, f"x: {'y' * 100_000}\r\n"])
def test_endless_headers_are_refused(served, header):
    with served.connect() as client:
        try:
            client.sendall(f"GET / HTTP/1.1\r\nHost: localhost\r\n{header}\r\n".encode())
            assert client.recv(100).startswith(b"HTTP/1.1 400")
        except ConnectionError:
            pass  # it hung up before it had all of them
    assert served.ask()[0] == 200


def test_body_in_very_many_chunks_is_refused(served):
    with served.connect() as client:
        client.sendall(b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        said = b""
        try:
            client.sendall(b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 300_000)
            said = client.recv(100)
        except ConnectionError:
            pass
    assert said == b"" or said.startswith(b"HTTP/1.1 400")
    assert served.ask()[0] == 200


def test_chunks_of_a_usual_size_are_taken(served):
    connection = http.client.HTTPConnection(ADDRESS, served.port, timeout=PATIENCE)
    body = json.dumps(FACE).encode()
    parts = [body[start : start + 100] for start in range(0, len(body), 100)]
    connection.request("POST", "/invocations", iter(parts), {"Content-Type": "application/json"}, encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize("order", [0, 1])
def test_content_length_together_with_transfer_encoding_gets_one_answer(served, order):
    lines = [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"][:: -1 if order else 1]
    smuggled = b"0\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with served.connect() as client:
        head = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(head + b"".join(lines) + b"\r\n" + smuggled)
        said = b""
        while part := client.recv(1 << 16):
            said += part
    assert said.startswith(b"HTTP/1.1 400") and said.count(b"HTTP/1.1") == 1


@linux
def test_requests_that_wait_for_the_answers_to_others_wait_in_the_socket(served):
    """A client that sends one request after another and takes answers as they come, whichever it is."""
    content = b'{"inputs": ["' + b"a" * 80_000 + b'"]}'
    head = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(content) + content
    most, sent, said, waiting = 0, 0, b"", b""
    with served.connect() as client:
        while said.count(b"HTTP/1.1 400") < COUNT:
            writable = [client] if sent < COUNT or waiting else []
            ready, free, _ = select.select([client], writable, [], PATIENCE)
            assert ready or free, "it has stopped"
            if ready:
                said += client.recv(1 << 16)
            if free:
                if not waiting:
                    sent, waiting = sent + 1, request
                waiting = waiting[client.send(waiting) :]
            most = max(most, sent - said.count(b"HTTP/1.1 400"))
    assert most * len(request) < SOCKETS, "they are held by the server"
    assert served.ask()[0] == 200


@linux
def test_silent_connections_leave_room_and_end_and_sigterm_ends_what_is_read(registered):
    served = Served(registered, files=256)
    silent = [served.connect() for _ in range(400)]
    slow = served.connect()
    slow.sendall(b"GET / HTTP/1.1\r\nHost: loc")
    for _ in range(5):
        assert served.ask()[0] == 200
    for client in (silent[-1], slow):
        assert client.recv(1) == b"", "a connection may stay silent"  # within SILENT seconds, and PATIENCE at the most
    heavy = [served.send(HEAVY) for _ in range(60)]
    assert served.ask()[0] == 200
    assert served.end() == 143
    assert served.command.stderr == ""
    for client in [*silent, slow, *heavy]:
        client.close()
    assert connections.CLOSING == 3  # as the docs say
