"""Faces that were read once are mapped from the cache, as long as what they were read from is the same."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_experiments.config import DataConfig
from fer_experiments.data import dataset, demo, load_dataset
from fer_experiments.errors import UserError

CLASSES = ("angry", "happy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in CLASSES:
        place = tmp_path / "faces" / name
        place.mkdir(parents=True)
        for number in range(12):
            Image.fromarray(random.integers(0, 256, (16, 16), dtype=np.uint8)).save(place / f"{name}{number}.png")
    return tmp_path / "faces"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths that were really read."""
    read, seen = dataset.read_faces, []

    def counted(path, naming):  # type: ignore[no-untyped-def]
        seen.append(path)
        return read(path, naming)

    monkeypatch.setattr(dataset, "read_faces", counted)
    return seen


DEMO = DataConfig(name="demo", task="demo", source="demo", clean="none")
OWN = DataConfig(name="own", task="own", source="own", split="stratified", fractions=[0.8, 0.1, 0.1], clean="none")


def load(path: Path, **changes: object) -> dataset.Dataset:
    return load_dataset(replace(OWN, path=str(path), **changes), cache=path.parent / "cache")  # type: ignore[arg-type]


def test_a_second_load_maps_what_the_first_one_read(folder: Path, reads: list[Path]):
    one, other = load(folder), load(folder)
    assert reads == [folder]
    assert (one.fingerprint, one.images_fingerprint) == (other.fingerprint, other.images_fingerprint)
    for name in ("images", "labels", "emotions", "ids", "usage", "train", "val"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert load_dataset(replace(OWN, path=str(folder))).fingerprint == one.fingerprint
    assert not isinstance(other.images, np.memmap)


def test_a_picture_that_changed_is_read_again_though_its_size_and_time_are_the_same(folder: Path, reads: list[Path]):
    before = load(folder)
    picture = folder / "angry" / "angry3.png"
    times = (picture.stat().st_atime_ns, picture.stat().st_mtime_ns)
    content = bytearray(picture.read_bytes())
    Image.fromarray(255 - np.asarray(Image.open(picture))).save(picture)
    picture.write_bytes(picture.read_bytes().ljust(len(content), b"\0"))
    os.utime(picture, ns=times)
    after = load(folder)
    assert len(reads) == 2 and after.fingerprint != before.fingerprint


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "moved"])
def test_a_folder_that_changed_is_read_again(folder: Path, reads: list[Path], change: str):
    before = load(folder)
    victim = folder / "happy" / "happy0.png"
    if change == "added":
        Image.fromarray(np.full((16, 16), 9, np.uint8)).save(victim.with_name("new.png"))
    elif change == "removed":
        victim.unlink()
    elif change == "renamed":
        victim.rename(victim.with_name("other.png"))
    else:
        victim.rename(folder / "angry" / "happy0.png")
    after = load(folder)
    assert (len(reads) == 2 and (len(after.ids), *after.ids) != (len(before.ids), *before.ids)) or change == "moved"


def test_what_would_be_refused_now_is_refused(folder: Path):
    load(folder)
    (folder / "sad").mkdir()
    with pytest.raises(UserError, match="class folder sad holds no image"):
        load(folder)
    with pytest.raises(UserError, match="class folder sad holds no image"):
        load(folder)


def test_what_labels_mean_is_part_of_what_is_kept(folder: Path, reads: list[Path]):
    assert load(folder).classes == ("angry", "happy")
    assert load(folder, emotions={"angry": "sad"}).classes == ("happy", "sad")
    assert len(reads) == 2


@pytest.mark.parametrize("damage", ["cut", "gone", "unfinished", "of other lengths"])
def test_what_is_damaged_is_read_again(folder: Path, reads: list[Path], damage: str):
    before = load(folder)
    (kept,) = (folder.parent / "cache" / "faces").iterdir()
    images = kept / "images.npy"
    if damage == "cut":
        images.write_bytes(images.read_bytes()[:-100])
    elif damage == "gone":
        images.unlink()
    elif damage == "unfinished":
        (kept / "converted.json").unlink()
    else:
        np.save(images, np.load(images)[:-1])
    assert load(folder).fingerprint == before.fingerprint and len(reads) == 2
    assert load(folder).fingerprint == before.fingerprint and len(reads) == 2, "and is whole again"


def test_a_cache_that_cannot_be_written_keeps_nothing(folder: Path, reads: list[Path]):
    before = load(folder)
    shutil.rmtree(folder.parent / "cache")
    (folder.parent / "cache").write_text("a file")
    assert [load(folder).fingerprint for _ in range(2)] == [before.fingerprint] * 2
    assert len(reads) == 3


@pytest.mark.parametrize("last", ["images.npy", "digests.npy", "converted.json"])
def test_a_disk_that_is_full_before_the_end_keeps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, last: str):
    replaced = Path.replace

    def full(path: Path, target: Path) -> Path:
        if target.name == last:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replaced(path, target)

    monkeypatch.setattr(Path, "replace", full)
    load(folder)
    assert not list((folder.parent / "cache" / "faces").iterdir())


def test_drawn_faces_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    draw, drawn = demo.draw_faces, []
    monkeypatch.setattr(demo, "draw_faces", lambda size, seed: drawn.append((size, seed)) or draw(size, seed))
    config = replace(DEMO, demo_size=600)
    one, other = (load_dataset(config, cache=tmp_path) for _ in range(2))
    assert drawn == [(600, 0)] and one.fingerprint == other.fingerprint == load_dataset(config).fingerprint
    for changes in ({"demo_size": 610}, {"seed": 1}):
        assert load_dataset(replace(config, **changes), cache=tmp_path).fingerprint != one.fingerprint  # type: ignore[arg-type]
    assert drawn == [(600, 0), (600, 0), (610, 0), (600, 1)]


def test_faces_are_drawn_again_by_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = replace(DEMO, demo_size=600)
    before = load_dataset(config, cache=tmp_path / "cache")
    program = tmp_path / "demo.py"
    shutil.copy(demo.__file__, program)
    monkeypatch.setattr(demo, "__file__", str(program))
    monkeypatch.setattr(demo, "draw_faces", lambda size, seed, draw=demo.draw_faces: draw(size, 7))
    assert load_dataset(config, cache=tmp_path / "cache").fingerprint != before.fingerprint


def test_real_faces_are_read_once(fer2013_zip: Path, tmp_path: Path, reads: list[Path]):
    config = DataConfig(name="fer2013", task="seven", path=str(fer2013_zip), clean=["duplicates"])
    one, other = (load_dataset(config, cache=tmp_path) for _ in range(2))
    assert len(reads) == 1 and one.fingerprint == other.fingerprint == load_dataset(config).fingerprint
