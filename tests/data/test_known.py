"""What a backbone has seen is recognised by its pixels, whatever its source is called."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from face_files import csv_text, png, random_faces, write_folder
from PIL import Image

from fer_experiments.backbones.networks import check_not_seen, check_part_not_seen, seen_near_twins
from fer_experiments.config import DataConfig
from fer_experiments.config.compose import compose
from fer_experiments.data import Faces, known, load_dataset
from fer_experiments.data.known import known_images
from fer_experiments.data.readers import read_faces
from fer_experiments.errors import UserError

PART = "fer2013/Training"
POCKET = compose(["backbone=pocket"]).backbone


@pytest.fixture(scope="module")
def real(fer2013_zip: Path) -> Faces:
    """The first 30 angry and sad faces of each of FER2013's folders, which are Training and the two tests."""
    faces = []
    with zipfile.ZipFile(fer2013_zip) as archive:
        for emotion in ("angry", "sad"):
            for folder in ("train", "test"):
                names = sorted(n for n in archive.namelist() if n.startswith(f"{folder}/{emotion}/"))
                for name in names[:30]:
                    usage = name.rpartition("/")[2].partition("_")[0]
                    faces.append((np.asarray(Image.open(io.BytesIO(archive.read(name)))), emotion, usage, name))
    images, emotion, usage, ids = zip(*faces, strict=True)
    return Faces(np.stack(images), np.array(emotion), np.array(usage), np.array(ids))


def test_fer2013_s_training_images_are_known_and_no_others(real: Faces) -> None:
    marked = known_images(PART, real.images)
    assert marked[real.usage != "Training"].sum() == 0
    assert marked[real.usage == "Training"].sum() >= 50  # copies of a test image are not
    assert not known_images(PART, random_faces().images).any()
    assert not known_images(PART, real.images[:, :40]).any()
    assert not known_images("mine/Training", real.images).any()
    np.testing.assert_array_equal(known_images("fer2013/", real.images), marked)  # of all its parts that ship
    of_both = SimpleNamespace(near_training=np.ones(len(marked), bool), val=np.arange(7), source="mine")
    for source, usage, count in [("mine", real.usage, 7), ("mine", np.full(len(marked), ""), 0)]:
        dataset: Any = SimpleNamespace(**vars(of_both) | {"source": source, "images": real.images, "usage": usage})
        assert seen_near_twins(POCKET, dataset) == count
    assert known_images(PART, real.images[:0]).shape == (0,)


@pytest.mark.parametrize("form", ["folder", "csv"])
def test_training_images_under_another_name_are_refused(real: Faces, tmp_path: Path, form: str) -> None:
    seen = real.take(real.usage == "Training")
    seen = Faces(seen.images, seen.emotion, np.full(len(seen), ""), seen.ids)
    if form == "csv":
        path = tmp_path / "mine.csv"
        path.write_text(csv_text(seen, ("emotion", "pixels")))
    else:
        files = {f"{seen.emotion[row]}/{row}.png": png(seen.images[row]) for row in range(len(seen))}
        path = write_folder(tmp_path / "mine", files)
    data = DataConfig(name="mine", task="mine", source="mine", path=str(path), split="stratified")
    with pytest.raises(UserError, match=r"was trained on fer2013/Training, and \d+ of the \d+ validation images are"):
        check_not_seen(POCKET, load_dataset(data))


def test_the_test_split_is_recognised_too_and_images_of_the_tests_are_not_refused(real: Faces) -> None:
    new = real.usage != "Training"
    check_part_not_seen(POCKET, "mine", real.images[new], np.full(new.sum(), ""), "test")
    with pytest.raises(UserError, match=r"of the 120 test images are from there"):
        check_part_not_seen(POCKET, "mine", real.images, np.full(len(real), ""), "test")


def test_what_ships_is_what_fer2013_s_training_part_holds(fer2013_zip: Path) -> None:
    shipped = np.load(known.ASSETS / "fer2013-Training.npy")
    faces = read_faces(fer2013_zip)
    digests, training = known._short(faces.images), faces.usage == "Training"
    # A copy across the parts is none of Training's: cleaning leaves it to evaluation.
    assert np.array_equal(shipped, np.setdiff1d(digests[training], digests[~training]))
    assert len(shipped) == 26_942
