"""The served model in a process of its own, and how to ask it over real HTTP."""

from __future__ import annotations

import http.client
import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tiny_champion import CLASSES

from fer_experiments.config import Config, to_dict

# As the command line does: a config, and a SIGTERM that becomes exit code 143.
START = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
from fer_experiments.config import from_dict
from fer_experiments.serving import serve
serve.SECONDS = 3600  # a body that waits here may wait however slow the machine is
try:
    serve.serve(from_dict(json.loads(sys.argv[1])), port=0)
except KeyboardInterrupt:
    sys.exit(130)
"""


class Server:
    """A serving process, questions to it, and the file of what it says on standard error."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def ask(self, body: Any = None, method: str = "POST", path: str = "/invocations", **headers: str) -> Any:
        """Status and content of an answer; lists and objects are sent as JSON."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        sent = {"Content-Type": "application/json"} | {key.replace("_", "-"): value for key, value in headers.items()}
        try:
            connection.request(method, path, content, sent)
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, json.loads(text) if text.startswith(("{", "[")) else text
        finally:
            connection.close()

    def probabilities(self, body: Any) -> np.ndarray:
        status, answer = self.ask(body)
        assert status == 200, answer
        return np.array([[row[f"probability_{name}"] for name in CLASSES] for row in answer["predictions"]])


@contextmanager
def serving(config: Config) -> Iterator[Server]:
    command = [sys.executable, "-c", START, json.dumps(to_dict(config))]
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout
        try:
            ready, _, _ = select.select([process.stdout], [], [], 300)
            line = process.stdout.readline() if ready else ""
            told = "serving models:/fer-demo/1 (champion) at http://127.0.0.1:"
            assert told in line, Path(log.name).read_text()
            yield Server(process, int(line.split("127.0.0.1:")[1].split(";")[0]), Path(log.name))
        finally:
            process.kill()
            process.wait()
