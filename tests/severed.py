"""A server whose client is cut off in the middle."""

from __future__ import annotations

import select
import socket
import threading


class Severed:
    """A TCP proxy that cuts the client off before the first answer to runs/create: the run is there, its id is not."""

    def __init__(self, port):
        self.target, self.cut = port, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.relay, args=(client,), daemon=True).start()

    def relay(self, client):
        with client, socket.create_connection(("127.0.0.1", self.target)) as server:
            creates = False
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 16)
                    creates |= b"/runs/create" in data
                    if not data or (ready is server and creates and not self.cut):
                        self.cut |= creates
                        return
                    (server if ready is client else client).sendall(data)
