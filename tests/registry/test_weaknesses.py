"""What a promotion finds out about slices and corruptions, beside a champion that is asked on the same pictures."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_champion import CLASSES, SIZE

from fer_experiments import tracking
from fer_experiments.config import Config, PromoteConfig
from fer_experiments.data import TestSplit
from fer_experiments.evaluation.bootstrap import evaluate
from fer_experiments.evaluation.corruptions import CORRUPTIONS, corrupt
from fer_experiments.evaluation.robustness import UNCHANGED, Part
from fer_experiments.registry.gate import Rival
from fer_experiments.registry.sealed import PROBABILITIES, Outcome
from fer_experiments.registry.weaknesses import find_weaknesses, rival_of
from fer_experiments.tracking import models

IMAGES = np.random.default_rng(0).integers(256, size=(60, *SIZE)).astype("uint8")
LABELS = np.arange(60) % 3
EMOTIONS = np.array(CLASSES)[LABELS]
ASKED = 20


def bright(pictures: np.ndarray) -> np.ndarray:
    """A model that looks at the brightness alone: probabilities [n, 3]."""
    return np.eye(3)[pictures.mean(axis=(1, 2)).astype(int) % 3]


def outcome() -> Outcome:
    """Of that model; the last 30 images have near twins in Training."""
    ids = np.array([str(number) for number in range(60)])
    test = TestSplit(IMAGES, LABELS, EMOTIONS, ids, ids, tuple(CLASSES), "f" * 64, np.arange(60) >= 30)
    said = bright(IMAGES)
    return Outcome(test, said, evaluate(LABELS, said, resamples=20), {}, pd.DataFrame(), 1)


def found(config: Config, rival: Rival | None, corruptions: int | None) -> tuple[list[Part], list[str], str]:
    """The parts, what was said, and the run's id."""
    said: list[str] = []
    promote = PromoteConfig("x", corruptions=corruptions, resamples=20)
    with tracking.start_run(tracking.connect(config), "promotion", "x", system_metrics=False) as run:
        return find_weaknesses(run, promote, outcome(), bright, rival, said.append), said, run.id


def csv(config: Config, run: str, name: str) -> pd.DataFrame:
    text = tracking.artifact_text(tracking.connect(config), run, f"metrics/{name}_test.csv")
    assert text is not None
    return pd.read_csv(io.StringIO(text))


@pytest.fixture(scope="module")
def beside(registered: Config, classifier: Any) -> tuple[list[Part], list[str], str]:
    version = models.find_version(tracking.connect(registered), "fer-demo", "champion")
    return found(registered, Rival("version 1", classifier.probabilities(IMAGES), version), ASKED)


def test_a_slice_is_measured_on_its_own_images(beside: tuple[list[Part], list[str], str], classifier: Any):
    parts = {part.name: part for part in beside[0]}
    assert len(parts) == 3 + 12 + 2 + 1 + len(CORRUPTIONS)
    sad = LABELS == 2
    assert parts["emotion_sad"].accuracy.value == np.mean(bright(IMAGES[sad]).argmax(axis=1) == 2)
    assert parts["near_twin"].images == parts["no_near_twin"].images == 30
    theirs = np.mean(classifier.probabilities(IMAGES[30:]).argmax(axis=1) == LABELS[30:])
    assert parts["near_twin"].champion == pytest.approx(theirs)


@pytest.mark.parametrize("name", ["noise_5", "mirror", "low_resolution_2"])
def test_both_models_are_asked_about_the_same_corrupted_pictures(
    beside: tuple[list[Part], list[str], str], classifier: Any, name: str
):
    parts = {part.name: part for part in beside[0]}
    rows = np.random.default_rng(0).permutation(60)[:ASKED]
    pictures = corrupt(IMAGES[rows], name)
    for model, accuracy in ((bright, parts[name].accuracy.value), (classifier.probabilities, parts[name].champion)):
        assert accuracy == pytest.approx(np.mean(model(pictures).argmax(axis=1) == LABELS[rows]))
    assert parts[UNCHANGED].accuracy.value == np.mean(bright(IMAGES[rows]).argmax(axis=1) == LABELS[rows])


@pytest.mark.parametrize(
    ("images", "dataset", "same"),
    [("the digest", "another", True), ("another", "f" * 64, False), (None, "f" * 64, True), (None, "another", False)],
)
def test_a_champion_is_compared_where_it_was_tested_on_the_same_images(
    registered: Config, images: str | None, dataset: str, same: bool
):
    """Whatever both were trained on; an older one is known by its whole dataset alone."""
    store, tested = tracking.connect(registered), outcome()
    tested = replace(tested, test=replace(tested.test, digest="the digest"))
    with tracking.start_run(store, "promotion", "champion", system_metrics=False) as run:
        run.set_tags({tracking.IMAGES["test"]: images} if images else {})
        columns = {f"probability_{name}": tested.probabilities[:, i] for i, name in enumerate(CLASSES)}
        run.log_csv(pd.DataFrame({"id": tested.test.ids, "label": LABELS, **columns}), PROBABILITIES)
    version = models.add_version(store, "fer-compared", run.id, {}, {"fer.dataset": dataset}, "")
    rival = rival_of(store, version, tested)
    assert rival is not None and (rival.probabilities is not None) == same
    assert rival_of(store, None, tested) is None


def test_tables_and_pictures_are_on_the_run(registered: Config, beside: tuple[list[Part], list[str], str]):
    parts, said, run = beside
    slices, corruptions = (csv(registered, run, name) for name in ("slices", "corruptions"))
    assert slices["name"].tolist() == [part.name for part in parts[:17]]
    assert corruptions["name"].tolist() == [UNCHANGED, *CORRUPTIONS]
    row = corruptions.set_index("name").loc["jpeg_4"]
    assert (row["kind"], row["strength"], row["images"]) == ("jpeg", 4, ASKED)
    assert {"accuracy_low", "accuracy_high", "champion", "worse_low", "worse_high", "p_value"} <= set(row.index)
    metric = tracking.Run(tracking.connect(registered), run).metrics["final/test_corrupted_accuracy"]
    assert metric == pytest.approx(np.mean([part.accuracy.value for part in parts[18:]]))
    told = "\n".join(said)
    assert f"{ASKED} of the test images corrupted, accuracy by strength (the champion):" in told
    assert "the weakest of 17 slices" in told and "  low_resolution  0." in told


@pytest.mark.parametrize("comparable", [False, True])
def test_a_champion_of_another_split_or_without_its_files_is_left_alone(registered: Config, comparable: bool):
    version = models.find_version(tracking.connect(registered), "fer-demo", "champion")
    assert version is not None
    gone = replace(version, source=f"{version.source}-gone")
    parts, said, _ = found(registered, Rival("version 1", bright(IMAGES) if comparable else None, gone), 5)
    by_name = {part.name: part for part in parts}
    assert by_name["noise_1"].worse is None
    assert (by_name["emotion_sad"].worse is not None) == comparable
    assert ("the champion is not asked about corrupted images" in "\n".join(said)) == comparable


def test_no_corruption_is_asked_for_where_the_config_says_so_and_all_images_where_it_says_that(registered: Config):
    parts, _, run = found(registered, None, 0)
    assert len(parts) == 17
    assert tracking.artifact_text(tracking.connect(registered), run, "metrics/corruptions_test.csv") is None
    assert {part.images for part in found(registered, None, None)[0][17:]} == {60}
