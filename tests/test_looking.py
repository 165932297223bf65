"""Verbs that only look need no right to write: store, artifacts and cache are on a read-only mount."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from read_only_mount import fer_read_only

from fer_experiments.config import Config, mlruns_dir
from fer_experiments.config.commands import override
from fer_experiments.serving import loading
from fer_experiments.tracking import models


@pytest.fixture
def moved(registered: Config, tmp_path: Path) -> tuple[Path, Path, list[str]]:
    """A copy of the registry and an empty cache, in folders with odd names, and the overrides that say where."""
    mlruns = shutil.copytree(mlruns_dir(registered), tmp_path / "a b?#" / "mlruns")
    (tmp_path / "cache").mkdir()
    return mlruns, tmp_path / "cache", [override("paths.mlruns", str(mlruns)), f"paths.cache={tmp_path / 'cache'}"]


def test_a_picture_is_told_where_nothing_may_be_written(
    registered: Config, moved: tuple[Path, Path, list[str]], tmp_path: Path
):
    """By the files in the new place, as those in the old one are out of sight."""
    mlruns, cache, where = moved
    Image.fromarray(np.zeros((20, 20), "uint8")).save(tmp_path / "face.png")
    before = sorted(mlruns.rglob("*"))
    asked = ["predict", tmp_path / "face.png", "data=demo", "--csv", *where]
    done = fer_read_only([mlruns, cache], *asked, hidden=mlruns_dir(registered))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith(f"{tmp_path / 'face.png'},")
    assert sorted(mlruns.rglob("*")) == before


def test_the_data_are_shown_where_nothing_may_be_written(moved: tuple[Path, Path, list[str]]):
    mlruns, cache, where = moved
    done = fer_read_only([mlruns, cache], "data", "data=demo", "data.demo_size=300", *where)
    assert done.returncode == 0, done.stderr
    assert "fingerprint" in done.stdout
    assert f"sample faces: not written, {cache / 'data'}: Read-only file system" in done.stdout


def test_doctor_says_what_may_only_be_read(moved: tuple[Path, Path, list[str]]):
    mlruns, cache, where = moved
    done = fer_read_only([mlruns, cache], "doctor", *where)
    assert done.returncode == 0, done.stderr
    assert "2 experiments, 1 runs, may be looked at only" in done.stdout
    assert f"- {mlruns}: cannot be written (Read-only file system); " in done.stdout


def test_who_records_is_told_the_folder_in_a_line(moved: tuple[Path, Path, list[str]]):
    mlruns, cache, where = moved
    for verb in (["train", "data=demo", "backbone=pocket", "head=linear", "training.smoke=true"], ["rollback"]):
        done = fer_read_only([mlruns, cache], *verb, *where)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert f"{mlruns}: cannot be written (Read-only file system); " in done.stderr


def test_a_downloaded_model_needs_no_cache(registered: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As of a server, whose files are elsewhere."""
    monkeypatch.setattr(models, "is_here", lambda store, version: False)
    (tmp_path / "cache").write_text("a file where a folder should be")
    version, folder = loading.find_model(
        Config(registered.data, tracking=registered.tracking, paths=type(registered.paths)(
            str(mlruns_dir(registered)), str(tmp_path / "cache")
        )), "champion",
    )  # fmt: skip
    assert version.number == 1 and (folder / "MLmodel").is_file()
