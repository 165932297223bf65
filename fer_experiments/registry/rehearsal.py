"""A version before it is the champion, through the real thing: `fer serve` in a process of its own, asked over HTTP."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments.ambient import SECRET, open_environment
from fer_experiments.config import Config, DataConfig, without_password
from fer_experiments.config.commands import model_words, override, place
from fer_experiments.errors import UserError, first_line
from fer_experiments.tracking.models import Version
from fer_experiments.training.whole import compare

if TYPE_CHECKING:
    from fer_experiments.tracking.classifier import FaceClassifier

SAME = 2e-4  # of probabilities: what `fer serve` allows OpenVINO (1e-4), and the rounding of another process
PATIENCE = 600  # seconds for an answer: a hang, not a slow machine

# The command, which ends with whoever has started it, also where that is killed: its standard input ends then. What it
# is told comes that way too: passwords are in no command line, and in no environment that other users can read.
PROGRAM = """
import json, os, signal, sys, threading
told = json.loads(sys.stdin.buffer.raw.readline())
os.environ.update(told["secrets"])
def end_with_it():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end_with_it, daemon=True).start()
from fer_experiments.cli import main
sys.exit(main(told["words"]))
"""


def rehearse(
    config: Config, data: DataConfig, version: Version, classifier: FaceClassifier, images: np.ndarray
) -> None:
    """Serves a version, and asks it about images uint8 [n, h, w].

    Args:
        config: says where the registry is. data: of the model.
        classifier: what was tested, and the version must say.

    Raises:
        UserError: it cannot be served, or says something else.
    """
    with _serving(config, data, version) as port:
        answers = _ask(port, images)
    check_answers(f"{version.uri}, as it is served,", answers, classifier, images)


def check_answers(what: str, answers: list[dict[str, Any]], classifier: FaceClassifier, images: np.ndarray) -> None:
    """That records of `FaceClassifier.table`, which `what` has given, are those of the classifier.

    Raises:
        UserError: another probability or label.
    """
    names = [f"probability_{name}" for name in classifier.classes]
    got = np.array([[answer.get(name, np.nan) for name in names] for answer in answers], "float32")
    expected = classifier.probabilities(images)
    compare(what, got, expected, SAME, least=len(images), other="what was tested", remedy="see `fer doctor`")
    if [answer["label"] for answer in answers] != (labels := classifier.labels(got)):
        raise UserError(f"{what} gives other labels than {', '.join(labels)}; not promoted")


@contextmanager
def _serving(config: Config, data: DataConfig, version: Version) -> Iterator[int]:
    """The port of 127.0.0.1 at which `fer serve` answers while the block lasts.

    Raises:
        UserError: it does not start, or it fails in the block; with the last line that it says.
    """
    uri = config.tracking.uri or ""
    where = [override("tracking.uri", uri) if word.startswith("tracking.uri=") else word for word in place(config)]
    told = {
        "words": ["serve", *model_words(data), f"version={version.number}", "port=0", *where],
        "secrets": {name: os.environ[name] for name in SECRET if name in os.environ},
    }
    # -P: as the command, it imports nothing out of the working folder.
    command = [sys.executable, "-P", "-c", PROGRAM]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=open_environment()) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(told) + "\n")
            process.stdin.flush()
            found = re.search(r" at http://127\.0\.0\.1:(\d+);", process.stdout.readline())
            if found is None:
                raise HTTPException("it has not started")
            yield int(found[1])
        except (HTTPException, OSError, ValueError) as error:
            errors.seek(0)
            said = (errors.read().strip().splitlines() or [first_line(error, named=True)])[-1]
            said = said.replace(uri, without_password(uri)) if uri else said
            raise UserError(f"{version.uri} cannot be served ({said[:300]})") from error
        finally:
            process.stdin.close()


def _ask(port: int, images: np.ndarray) -> list[dict[str, Any]]:
    """The predictions for images [n, h, w], a record each; one a request, as there is a limit to what it may hold."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    predictions: list[dict[str, Any]] = []
    try:
        for image in images:
            body = json.dumps({"inputs": [image.tolist()]})
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read().decode()
            if response.status != 200:
                raise HTTPException(f"{response.status}: {answer}")
            predictions += json.loads(answer)["predictions"]
        return predictions
    finally:
        connection.close()
