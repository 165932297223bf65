"""`fer serve` on a version that is not the champion yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tiny_champion import SIZE

from fer_experiments import tracking
from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.registry import rehearsal
from fer_experiments.registry.rehearsal import check_answers, rehearse
from fer_experiments.tracking import models
from fer_experiments.tracking.classifier import FaceClassifier

IMAGES = np.random.default_rng(0).integers(0, 256, (8, *SIZE), dtype=np.uint8)


@pytest.fixture
def answers(classifier: FaceClassifier) -> list[dict[str, Any]]:
    """As a server gives them."""
    return classifier.table(classifier.probabilities(IMAGES)).to_dict("records")


def test_a_version_is_served_asked_and_ended(registered: Config, classifier: FaceClassifier):
    version = models.find_version(tracking.connect(registered), "fer-demo", "champion")
    assert version is not None
    before = psutil.Process().children(recursive=True)
    rehearse(registered, registered.data, version, classifier, IMAGES)
    assert psutil.Process().children(recursive=True) == before


def test_no_password_is_in_the_servers_command_line_or_first_environment(
    registered: Config, classifier: FaceClassifier, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter-2-hunter")
    seen: list[str] = []
    ask = rehearsal._ask

    def look(port: int, images: np.ndarray) -> list[dict[str, Any]]:
        (server,) = (child for child in psutil.Process().children() if rehearsal.PROGRAM in child.cmdline())
        seen.append(Path(f"/proc/{server.pid}/environ").read_text() + " ".join(server.cmdline()))
        return ask(port, images)

    monkeypatch.setattr(rehearsal, "_ask", look)
    version = models.find_version(tracking.connect(registered), "fer-demo", "champion")
    assert version is not None
    rehearse(registered, registered.data, version, classifier, IMAGES)
    assert "KERAS_BACKEND" in seen[0] and "hunter-2-hunter" not in seen[0]


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
