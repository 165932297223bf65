"""What was said of the sealed test split is compared image by image, wherever the images lay."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from face_files import Faces, csv_text, random_faces, tree, write_folder
from stores import config_in

from fer_experiments import tracking
from fer_experiments.config import DataConfig
from fer_experiments.config.compose import compose
from fer_experiments.data import TestSplit, open_test_split
from fer_experiments.registry.sealed import PROBABILITIES, Outcome
from fer_experiments.registry.weaknesses import rival_of
from fer_experiments.tracking import IMAGES, Store
from fer_experiments.tracking.models import Version

FACES = random_faces(per_cell=4)


class Champion(NamedTuple):
    """What a promoted model said of the test split of a CSV."""

    store: Store
    version: Version
    said: np.ndarray
    data: DataConfig


def written(path: Path, faces: Faces) -> Path:
    path.write_text(csv_text(faces))
    return path


def reversed_rows() -> Faces:
    return Faces(*(getattr(FACES, field.name)[::-1] for field in fields(Faces)[:4]))


@pytest.fixture
def champion(tmp_path: Path) -> Champion:
    path = written(tmp_path / "one.csv", FACES)
    data = compose(["data=fer2013_seven", f"data.path={path}"]).data
    test, store = open_test_split(data), tracking.connect(config_in(tmp_path / "mlruns"))
    said = np.random.default_rng(0).dirichlet(np.ones(len(test.classes)), len(test.labels))
    with tracking.start_run(store, "promotion", "champion", system_metrics=False) as run:
        run.set_tags({IMAGES["test"]: test.digest})
        columns = {f"probability_{name}": said[:, i] for i, name in enumerate(test.classes)}
        run.log_csv(pd.DataFrame({"id": test.ids, "label": test.labels, **columns}), PROBABILITIES)
    tags = {"fer.dataset": test.fingerprint}
    return Champion(store, Version("fer-test", 1, run.id, "", 0, tags), said, data)


def compared(champion: Champion, path: Path) -> tuple[TestSplit, np.ndarray | None, str]:
    """The test split of these data, and what is known of the champion on it."""
    test = open_test_split(replace(champion.data, path=str(path)))
    rival = rival_of(champion.store, champion.version, Outcome(test, np.empty(0), {}, {}, pd.DataFrame(), 1))
    assert rival is not None
    return test, rival.probabilities, rival.missing


@pytest.mark.parametrize("where", ["the same file", "rows in another order", "rows before them", "a folder"])
def test_the_same_images_are_compared_wherever_they_lie(champion: Champion, tmp_path: Path, where: str):
    faces = reversed_rows() if where == "rows in another order" else FACES
    if where == "rows before them":
        more = random_faces(per_cell=1, seed=1, usages=("Training",))
        faces = Faces(*(np.concatenate([getattr(each, f.name) for each in (more, FACES)]) for f in fields(Faces)[:4]))
    path = tmp_path / "folder" if where == "a folder" else written(tmp_path / "other.csv", faces)
    if where == "a folder":
        write_folder(path, tree(faces))
    test, probabilities, _ = compared(champion, path)
    assert test.digest == open_test_split(champion.data).digest
    np.testing.assert_allclose(probabilities, champion.said)


def test_other_images_are_not_compared_and_a_table_that_is_gone_is_said_to_be(champion: Champion, tmp_path: Path):
    other = written(tmp_path / "other.csv", random_faces(per_cell=4, seed=2))
    assert compared(champion, other)[1:] == (None, "it was tested on another test split")
    own = tmp_path / "one.csv"
    table = tracking.artifact_table(champion.store, champion.version.run_id, PROBABILITIES)
    assert table is not None
    run = tracking.Run(champion.store, champion.version.run_id)
    for damaged in (table.assign(label=(table["label"] + 1) % 7), table[1:], table.drop(columns="probability_sad")):
        run.log_csv(damaged, PROBABILITIES)
        assert compared(champion, own)[1:] == (None, "what it said of these images is not on record")


def test_what_an_earlier_version_recorded_is_found_by_id(champion: Champion, tmp_path: Path):
    """It recorded the fingerprint of the data alone."""
    from fer_experiments.tracking.store import client_of

    client_of(champion.store).delete_tag(champion.version.run_id, IMAGES["test"])
    np.testing.assert_allclose(compared(champion, tmp_path / "one.csv")[1], champion.said)
    other = written(tmp_path / "other.csv", reversed_rows())
    assert compared(champion, other)[1:] == (None, "what it said of these images is not on record")
