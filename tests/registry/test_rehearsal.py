"""`fer serve` on a version that is not the champion yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
from tiny_champion import SIZE

from fer_experiments import tracking
from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.registry.rehearsal import rehearse
from fer_experiments.tracking import models
from fer_experiments.tracking.classifier import FaceClassifier

IMAGES = np.random.default_rng(0).integers(0, 256, (8, *SIZE), dtype=np.uint8)


def test_what_it_serves_is_compared_with_what_was_tested(registered: Config, classifier: FaceClassifier):
    version = models.find_version(tracking.connect(registered), "fer-demo", "champion")
    assert version is not None
    before = psutil.Process().children(recursive=True)
    rehearse(registered, registered.data, version, classifier, IMAGES)
    other = FaceClassifier()
    other.classes, other.threshold, other.uncertain = classifier.classes, 0.0, ""
    other.probabilities = lambda images: np.full((len(images), 3), 1 / 3, "float32")  # type: ignore[method-assign]
    with pytest.raises(UserError, match="models:/fer-demo/1, as it is served, and the cached features disagree"):
        rehearse(registered, registered.data, version, other, IMAGES)
    assert psutil.Process().children(recursive=True) == before


def test_what_cannot_be_served_is_said_in_its_own_words(registered: Config, classifier: FaceClassifier, tmp_path: Path):
    version = models.Version("fer-demo", 7, "", "", 0)
    with pytest.raises(UserError, match=r"models:/fer-demo/7 cannot be served \(fer serve: fer-demo has no version 7"):
        rehearse(registered, registered.data, version, classifier, IMAGES)
