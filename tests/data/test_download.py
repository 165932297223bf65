from __future__ import annotations

import os
from pathlib import Path

import pytest

from fer_experiments.data.download import URL, download_fer2013, verify_fer2013
from fer_experiments.errors import UserError


def test_the_known_zip_is_told_by_its_checksum(fer2013_zip: Path) -> None:
    assert "35,887 images, sha256 as expected" in verify_fer2013(fer2013_zip)


def test_part_of_fer2013_is_refused_by_its_counts(faces_csv: Path) -> None:
    with pytest.raises(UserError, match="not the whole of FER2013: PrivateTest 21, PublicTest 21, Training 21"):
        verify_fer2013(faces_csv)


def test_without_kaggle_the_way_by_hand_is_named_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # a port where nobody answers
    monkeypatch.setenv("KAGGLEHUB_CACHE", os.fspath(tmp_path / "cache"))
    with pytest.raises(UserError) as caught:
        download_fer2013(tmp_path / "data" / "fer2013.zip")
    assert URL in str(caught.value)
    assert str(tmp_path / "data" / "fer2013.zip") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()
