"""`fer serve` on a version that is not the champion yet."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tiny_champion import SIZE

from fer_experiments import tracking
from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.executors import forks
from fer_experiments.registry.rehearsal import check_answers, rehearse
from fer_experiments.tracking import models
from fer_experiments.tracking.classifier import FaceClassifier

IMAGES = np.random.default_rng(0).integers(0, 256, (8, *SIZE), dtype=np.uint8)


@pytest.fixture
def answers(classifier: FaceClassifier) -> list[dict[str, Any]]:
    """As a server gives them."""
    return classifier.table(classifier.probabilities(IMAGES)).to_dict("records")


def test_a_version_is_served_asked_and_ended(
    registered: Config, classifier: FaceClassifier, monkeypatch: pytest.MonkeyPatch
):
    version = models.find_version(tracking.connect(registered), "fer-demo", "champion")
    assert version is not None
    forks.prepare()
    before, sent, request = psutil.Process().children(recursive=True), list[str](), HTTPConnection.request

    def noted(own: HTTPConnection, method: str, path: str, body: str, headers: dict[str, str]) -> None:
        sent.append(body)
        request(own, method, path, body, headers)

    monkeypatch.setattr(HTTPConnection, "request", noted)
    rehearse(registered, registered.data, version, classifier, IMAGES)
    assert psutil.Process().children(recursive=True) == before
    assert [len(json.loads(body)["inputs"]) for body in sent] == [1] * len(IMAGES), "large images exceed a request"


def _asking_for_a_password(listening: socket.socket, heard: list[bytes], seen: list[str]) -> None:
    """A PostgreSQL that asks for a password, looks at who gave it, and ends that process."""
    client, _ = listening.accept()
    with client:
        if client.recv(8)[4:] == (80877103).to_bytes(4):  # may it be TLS?
            client.sendall(b"N")
        client.recv(1000)
        client.sendall(b"R" + (8).to_bytes(4) + (3).to_bytes(4))  # the password in clear
        heard.append(client.recv(1000))
        server = psutil.Process(_connected_to(listening))
        seen.append(Path(f"/proc/{server.pid}/environ").read_text() + " ".join(server.cmdline()))
        server.kill()


def _connected_to(listening: socket.socket) -> int:
    """The process that has connected."""
    port = listening.getsockname()[1]
    (pid,) = {each.pid for each in psutil.net_connections("tcp4") if each.raddr and each.raddr[1] == port} - {None}
    assert pid is not None and pid != psutil.Process().pid
    return pid


def test_passwords_reach_the_server_by_neither_its_command_line_nor_its_first_environment(
    registered: Config, classifier: FaceClassifier, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("psycopg2")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter-2-of-a-server")
    heard, seen = list[bytes](), list[str]()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_asking_for_a_password, args=(listening, heard, seen), daemon=True)
        thread.start()
        uri = f"postgresql+psycopg2://me:hunter-2${{x}}@127.0.0.1:{listening.getsockname()[1]}/db"
        config = replace(registered, tracking=replace(registered.tracking, uri=uri))
        with pytest.raises(UserError, match="models:/fer-demo/7 cannot be served") as refused:
            rehearse(config, config.data, models.Version("fer-demo", 7, "", "", 0), classifier, IMAGES)
        thread.join(10)
    assert heard and b"hunter-2${x}" in heard[0]
    assert "KERAS_BACKEND" in seen[0] and "hunter-2" not in seen[0] + str(refused.value)


def test_what_cannot_be_served_is_said_in_its_own_words(registered: Config, classifier: FaceClassifier):
    version = models.Version("fer-demo", 7, "", "", 0)
    with pytest.raises(UserError, match=r"models:/fer-demo/7 cannot be served \(fer serve: fer-demo has no version 7"):
        rehearse(registered, registered.data, version, classifier, IMAGES)


def test_what_was_tested_is_let_pass(answers: list[dict[str, Any]], classifier: FaceClassifier):
    check_answers("it", answers, classifier, IMAGES)


def test_another_probability_another_label_and_another_class_are_refused(
    answers: list[dict[str, Any]], classifier: FaceClassifier
):
    changed = [{**answers[0], "probability_sad": answers[0]["probability_sad"] + 0.001}, *answers[1:]]
    unnamed = [{key: value for key, value in row.items() if key != "probability_sad"} for row in answers]
    for wrong in (changed, unnamed):
        with pytest.raises(UserError, match="it and what was tested disagree by up to"):
            check_answers("it", wrong, classifier, IMAGES)
    with pytest.raises(UserError, match="it gives other labels than"):
        check_answers("it", [{**answers[0], "label": models.UNCERTAIN}, *answers[1:]], classifier, IMAGES)
