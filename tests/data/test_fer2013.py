"""The real FER2013, read once."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from face_files import write_folder, write_zip

from fer_experiments.config import DataConfig
from fer_experiments.data import Faces, load_dataset, open_test_split
from fer_experiments.data.cleaning import STEPS, canonical_order, clean_rows, identical_groups, pixel_digests
from fer_experiments.data.near_twins import find_twins
from fer_experiments.data.readers import read_faces
from fer_experiments.data.splits import split_rows

FEW = 80  # of each Usage, for the CSV forms


@pytest.fixture(scope="module")
def real(fer2013_zip: Path) -> tuple[Faces, np.ndarray]:
    """All faces in canonical order, and their groups of identical pixels."""
    faces, digests = canonical_order(read_faces(fer2013_zip))
    return faces, identical_groups(digests)


@pytest.fixture(scope="module")
def few(fer2013_zip: Path) -> dict[str, bytes]:
    """The first files of each Usage, as the tool that writes the CSV picks them."""
    with zipfile.ZipFile(fer2013_zip) as archive:
        names = sorted(archive.namelist(), key=lambda name: name.rpartition("/")[2])
        chosen = [
            name
            for usage in ("Training", "PublicTest", "PrivateTest")
            for name in [name for name in names if f"/{usage}_" in name][:FEW]
        ]
        return {name: archive.read(name) for name in chosen}


def test_cleaning_finds_what_is_known_of_fer2013(real: tuple[Faces, np.ndarray]) -> None:
    rows, report = clean_rows(*real, STEPS[:3])
    assert report["found"] == 35_887
    assert report["found_by_usage"] == {"PrivateTest": 3589, "PublicTest": 3589, "Training": 28_709}
    assert report["constant_images"] == 12
    assert report["duplicates"] == {
        "redundant_copies": 1853,
        "groups": 1516,
        "groups_across_splits": 557,
        "conflicting_groups": 57,
        "private_test_with_twin_in_training": 288,
        "public_test_with_twin_in_training": 280,
    }
    assert report["kept"] == len(rows) == 33_977
    assert {step: sum(counts.values()) for step, counts in report["removed"].items()} == {
        "constant": 12,
        "conflicting": 148,
        "duplicates": 1750,
    }
    assert clean_rows(*real, ())[1]["duplicates"] == report["duplicates"]


def test_near_twins_of_the_evaluation_splits_are_those_of_the_whole_data(real: tuple[Faces, np.ndarray]) -> None:
    """A pair depends on its two images alone, so that these are the counts that `fer data` gives for all of FER2013."""
    faces, groups = real
    rows = np.flatnonzero(faces.usage != "Training")
    faces, groups = faces.take(rows), groups[rows]
    twins = find_twins(faces.images, pixel_digests(faces.images), groups)
    between = Counter(tuple(sorted(pair)) for pair in faces.usage[twins.rows].tolist())
    assert between == {
        ("PrivateTest", "PrivateTest"): 130,
        ("PrivateTest", "PublicTest"): 260,
        ("PublicTest", "PublicTest"): 111,
    }


def test_the_paper_s_8500_happy_faces_are_there_after_cleaning(real: tuple[Faces, np.ndarray]) -> None:
    faces, groups = real
    rows, _ = clean_rows(faces, groups, STEPS[:3])
    rows = rows[np.isin(faces.emotion[rows], ["angry", "fear", "sad", "happy"])]
    labels = (faces.emotion[rows] == "happy").astype(np.int64)
    assert labels.sum() == 8794
    cfg = DataConfig(name="paper", task="happy", split="stratified", balance="undersample", per_class=8500)
    parts = split_rows(faces.take(rows), labels, groups[rows], ("negative", "positive"), cfg)
    assert {part: np.bincount(labels[parts[part]]).tolist() for part in parts} == {
        "train": [5100, 5100],
        "val": [1700, 1700],
        "test": [1700, 1700],
    }


@pytest.mark.parametrize("flags", [[], ["--icml"]], ids=["fer2013.csv", "icml_face_data.csv"])
def test_the_csv_made_from_the_zip_gives_the_same_dataset(
    shared: Path, fer2013_zip: Path, few: dict[str, bytes], tmp_path: Path, flags: list[str]
) -> None:
    table = tmp_path / "made.csv"
    tool = shared / "tools" / "make_fer2013_csv.py"
    subprocess.run([sys.executable, tool, fer2013_zip, table, "--limit", str(FEW), *flags], check=True)
    cfg = DataConfig(name="few", task="happy", classes={"negative": ["angry", "fear", "sad"], "positive": ["happy"]})
    forms = [table, write_zip(tmp_path / "few.zip", few), write_folder(tmp_path / "few", few)]
    csv, *others = (replace(cfg, path=str(path)) for path in forms)
    expected, expected_test = load_dataset(csv), open_test_split(csv)
    for other in others:
        dataset, test = load_dataset(other), open_test_split(other)
        assert dataset.fingerprint == expected.fingerprint
        assert np.array_equal(dataset.images, expected.images)
        assert np.array_equal(dataset.labels, expected.labels)
        assert np.array_equal(test.images, expected_test.images)
