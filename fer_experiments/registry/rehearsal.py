"""A version before it is the champion, through the real thing: `fer serve` in a process of its own, asked over HTTP."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments.config import Config, DataConfig
from fer_experiments.config.commands import model_words, place
from fer_experiments.errors import UserError, first_line
from fer_experiments.tracking.models import Version
from fer_experiments.training.whole import compare

if TYPE_CHECKING:
    from fer_experiments.tracking.classifier import FaceClassifier

SAME = 2e-4  # of probabilities: what `fer serve` allows OpenVINO (1e-4), and the rounding of another process
PATIENCE = 600  # seconds for an answer: a hang, not a slow machine

# The command, which ends with whoever has started it, also where that is killed: its standard input ends then.
PROGRAM = """
import os, signal, sys, threading
def end_with_it():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end_with_it, daemon=True).start()
from fer_experiments.cli import main
sys.exit(main(sys.argv[1:]))
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
    compare(what, got, classifier.probabilities(images), SAME, least=len(images))
    if [answer["label"] for answer in answers] != (expected := classifier.labels(got)):
        raise UserError(f"{what} gives other labels than {', '.join(expected)}; not promoted")


@contextmanager
def _serving(config: Config, data: DataConfig, version: Version) -> Iterator[int]:
    """The port of 127.0.0.1 at which `fer serve` answers while the block lasts.

    Raises:
        UserError: it does not start, or it fails in the block; with the last line that it says.
    """
    words = ["serve", *model_words(data), f"version={version.number}", "port=0", *place(config)]
    # -P: as the command, it imports nothing out of the working folder.
    command = [sys.executable, "-P", "-c", PROGRAM, *words]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            found = re.search(r" at http://127\.0\.0\.1:(\d+);", process.stdout.readline())
            if found is None:
                raise HTTPException("it has not started")
            yield int(found[1])
        except (HTTPException, OSError, ValueError) as error:
            errors.seek(0)
            said = (errors.read().strip().splitlines() or [first_line(error, named=True)])[-1]
            raise UserError(f"{version.uri} cannot be served ({said[:300]})") from error
        finally:
            process.stdin.close()


def _ask(port: int, images: np.ndarray) -> list[dict[str, Any]]:
    """The predictions for images [n, h, w], a record each."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        body = json.dumps({"inputs": images.tolist()})
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read().decode()
        if response.status != 200:
            raise HTTPException(f"{response.status}: {answer}")
        predictions: list[dict[str, Any]] = json.loads(answer)["predictions"]
        return predictions
    finally:
        connection.close()
