"""A version before it is the champion, through the real thing: `fer serve` in a process of its own, asked over HTTP."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments.config import Config, DataConfig, without_password
from fer_experiments.config.commands import model_words, override, place
from fer_experiments.errors import UserError, first_line
from fer_experiments.executors import forks
from fer_experiments.tracking.models import Version
from fer_experiments.training.whole import compare

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from fer_experiments.tracking.classifier import FaceClassifier

SAME = 2e-4  # of probabilities: what `fer serve` allows OpenVINO (1e-4), and the rounding of another process
PATIENCE = 600  # seconds for an answer: a hang, not a slow machine


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
    compare(what, got, expected, SAME, other="what was tested", remedy="see `fer doctor`")
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
    words = ["serve", *model_words(data), f"version={version.number}", "port=0", *where]
    forks.prepare()
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as errors:
        reader, writer = forks.context.Pipe(duplex=False)
        # Passwords come through multiprocessing's pipe: other users read command lines, and some environments.
        process = forks.start(_serve, words, writer, errors.name, environment=dict(os.environ))
        writer.close()
        try:
            with reader, os.fdopen(os.dup(reader.fileno()), encoding="utf-8") as said:
                found = re.search(r" at http://127\.0\.0\.1:(\d+);", said.readline())
                if found is None:
                    raise HTTPException("it has not started")
                yield int(found[1])
        except (HTTPException, OSError, ValueError) as error:
            last = (errors.read().strip().splitlines() or [first_line(error, named=True)])[-1]
            last = last.replace(uri, without_password(uri)) if uri else last
            raise UserError(f"{version.uri} cannot be served ({last[:300]})") from error
        finally:
            process.terminate()
            process.join()


def _serve(words: list[str], out: Connection, errors: str) -> None:
    """The command, as a process of its own; it ends with whoever has started it, also where that is killed."""
    os.dup2(out.fileno(), 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_APPEND), 2)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    forks.end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    sys.argv = ["fer", *words]
    runpy.run_module("fer_experiments.cli", run_name="__main__")


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
