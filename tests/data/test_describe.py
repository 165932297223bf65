from __future__ import annotations

from pathlib import Path

from face_files import csv_text
from test_near_twins import faces_of

from fer_experiments.config import DataConfig
from fer_experiments.data import load_dataset
from fer_experiments.data.describe import describe
from fer_experiments.data.faces import EMOTIONS


def test_the_text_has_counts_cleaning_and_fingerprints(faces_csv: Path) -> None:
    classes = {"negative": ["angry", "fear", "sad"], "positive": ["happy"]}
    dataset = load_dataset(DataConfig(name="test", task="happy", path=str(faces_csv), classes=classes))
    text = describe(dataset)
    lines = [line.split() for line in text.splitlines()]
    assert ["split", "negative", "positive", "total"] in lines
    assert ["train", "9", "3", "12"] in lines
    assert ["-", "redundant", "copies", "0", "0", "0", "0"] in lines
    assert ["kept", "21", "21", "21", "63"] in lines
    assert dataset.fingerprint in text
    assert dataset.images_fingerprint in text
    assert max(map(len, text.splitlines())) <= 120


def near_twins_told(path: Path, usages: tuple[str, ...]) -> list[str]:
    """The lines on near twins of one photograph under two names, among others that have none."""
    numbers = [0, *range(60)]
    faces = faces_of(*((number, EMOTIONS[row % 7], usages[row % len(usages)]) for row, number in enumerate(numbers)))
    path.write_text(csv_text(faces))
    lines = describe(load_dataset(DataConfig(name="t", task="t", path=str(path), split="stratified"))).splitlines()
    start = next(row for row, line in enumerate(lines) if line.startswith("Near twins"))
    return lines[start : start + 3]


def test_one_group_is_told_as_one_and_data_without_parts_of_its_own_have_no_twins_across_them(tmp_path: Path) -> None:
    _, groups, after = near_twins_told(tmp_path / "faces.csv", ("Training",))
    assert groups == "  2 images in 1 group, the largest of 2; 1 group with more than one label"
    assert "PrivateTest" not in after
    _, groups, after = near_twins_told(tmp_path / "faces.csv", ("Training", "PrivateTest"))
    assert groups.endswith("1 group with more than one label;")
    assert after.startswith("  twins in Training of 1 PrivateTest and 0 PublicTest images")
