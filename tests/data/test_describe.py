from __future__ import annotations

from pathlib import Path

from fer_experiments.config import DataConfig
from fer_experiments.data import load_dataset
from fer_experiments.data.describe import describe


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
