"""Near twins of smooth random pictures, whose spectrum is that of photographs."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from face_files import csv_text, random_faces
from PIL import Image

from fer_experiments.config import DataConfig
from fer_experiments.data import load_dataset, near_twins, open_test_split
from fer_experiments.data.cleaning import STEPS, canonical_order, clean_rows, identical_groups, pixel_digests
from fer_experiments.data.demo import draw_faces
from fer_experiments.data.faces import EMOTIONS, Faces
from fer_experiments.data.near_twins import find_pairs, find_twins, merged
from fer_experiments.data.splits import SET_ASIDE

CUT = (12, 12, 84, 84)  # of a photograph of 96x96: what the face detector took


def photographs(count: int, seed: int = 0) -> list[Image.Image]:
    """Different pictures of 96x96."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.fftfreq(96)) + 1 / 96
    spectrum = np.fft.fft2(random.standard_normal((count, 96, 96))) * frequency**-1.2
    pixels = np.fft.ifft2(spectrum).real
    pixels = 128 + 50 * pixels / pixels.std((1, 2), keepdims=True)
    return [Image.fromarray(picture) for picture in np.clip(pixels, 0, 255).astype(np.uint8)]


def cut(picture: Image.Image, box: tuple[float, ...] = CUT, size: tuple[int, int] = (48, 48)) -> np.ndarray:
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=box))


def jpeg(picture: Image.Image) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(cut(picture)).save(buffer, "jpeg", quality=40)
    return np.asarray(Image.open(buffer))


def marked(picture: Image.Image, rows: slice, columns: slice) -> np.ndarray:
    """Under half-transparent letters: lines of two pixels, which no blur takes away."""
    image = cut(picture).copy()
    image[rows, columns] //= 2
    for line in range(2):
        image[rows, columns][line::4] += 127
    return image


CHANGES: dict[str, Callable[[Image.Image], np.ndarray]] = {
    "encoded again": jpeg,
    "cropped by a pixel": lambda p: cut(p, (14, 14, 84, 84)),
    "moved by two pixels": lambda p: cut(p, (15, 9, 87, 81)),
    "five percent larger": lambda p: cut(p, (13.8, 13.8, 82.2, 82.2)),
    "a fifth larger": lambda p: cut(p, (18, 20, 78, 80)),
    "a little wider": lambda p: cut(p, (9, 12, 87, 84)),
    "mirrored": lambda p: cut(p)[:, ::-1],
    "with a watermark in a corner": lambda p: marked(p, slice(34, 46), slice(28, 46)),
    "with a caption": lambda p: marked(p, slice(39, 48), slice(0, 48)),
    "brighter": lambda p: np.clip(cut(p).astype(int) + 30, 0, 255).astype(np.uint8),
    "of less contrast": lambda p: (60 + 0.4 * cut(p)).astype(np.uint8),
}


def pairs_of(images: np.ndarray, cache: Path | None = None) -> list[tuple[int, int]]:
    return [tuple(rows) for rows in find_pairs(images, pixel_digests(images), cache).rows.tolist()]


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_photograph_is_found_and_no_other(change: str) -> None:
    pictures = photographs(60)
    images = np.stack([*map(cut, pictures), *(CHANGES[change](picture) for picture in pictures[:20])])
    found = find_pairs(images, pixel_digests(images))
    assert found.rows.tolist() == [[row, 60 + row] for row in range(20)]
    assert found.mirrored.tolist() == [change == "mirrored"] * 20
    assert ((found.score >= near_twins.THRESHOLD) & (found.score <= 1)).all()


def test_different_photographs_are_no_twins() -> None:
    assert pairs_of(np.stack([cut(picture) for picture in photographs(1500, seed=1)])) == []


@pytest.mark.parametrize("size", [(100, 100), (40, 52), (17, 17)])
def test_images_may_be_of_any_size(size: tuple[int, int]) -> None:
    pictures = photographs(30)
    images = np.stack([cut(p, size=size) for p in pictures] + [cut(p, (14, 13, 85, 84), size) for p in pictures[:5]])
    assert pairs_of(images) == [(row, 30 + row) for row in range(5)]


def test_images_too_small_to_tell_photographs_apart_have_no_twins() -> None:
    for side in (1, 2, 8, near_twins.SMALLEST - 1):
        images = np.stack([cut(p, size=(side, side)) for p in photographs(20)])
        assert pairs_of(np.unique(np.concatenate([images, images // 2]), axis=0)) == []


def test_flat_images_have_no_twins() -> None:
    flat = np.repeat(np.arange(0, 250, 10, np.uint8), 48 * 48).reshape(-1, 48, 48).copy()
    flat[::2, 20, 20] += 1  # not constant to the last pixel
    assert pairs_of(flat) == []
    assert pairs_of(flat[:1]) == []


def test_the_order_of_the_images_changes_no_pair() -> None:
    pictures = photographs(80)
    images = np.stack([*map(cut, pictures), *(cut(p, (14, 15, 84, 86)) for p in pictures[:30])])
    found = {frozenset((images[a].tobytes(), images[b].tobytes())) for a, b in pairs_of(images)}
    assert len(found) == 30
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(images)
        assert {frozenset((shuffled[a].tobytes(), shuffled[b].tobytes())) for a, b in pairs_of(shuffled)} == found


def test_what_was_found_is_kept_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = photographs(30)
    images = np.stack([*map(cut, pictures), *(cut(p, (14, 15, 84, 86)) for p in pictures[:10])])
    expected = pairs_of(images)
    assert pairs_of(images, tmp_path) == expected
    (kept,) = (tmp_path / "near_twins").iterdir()
    monkeypatch.setattr(near_twins, "_compare", None)  # calling it would be a TypeError
    assert pairs_of(images, tmp_path) == expected
    assert [tuple(39 - row for row in reversed(pair)) for pair in pairs_of(images[::-1], tmp_path)][::-1] == sorted(
        expected, key=lambda pair: (pair[1], pair[0])
    )
    monkeypatch.undo()
    for damage in (b"", b"PK", kept.read_bytes()[:-100]):
        kept.write_bytes(damage)
        assert pairs_of(images, tmp_path) == expected
    assert pairs_of(images[:-1], tmp_path) == expected[:-1]
    assert len(list((tmp_path / "near_twins").iterdir())) == 2


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    images = np.stack([cut(photographs(1)[0]), cut(photographs(1)[0], (14, 14, 84, 84))])
    (tmp_path / "near_twins").write_text("a file where the folder should be")
    assert pairs_of(images, tmp_path) == [(0, 1)]


def test_groups_are_joined_along_chains() -> None:
    groups = merged(np.array([0, 1, 2, 3, 1, 4]), np.array([[0, 1], [3, 4]]))
    assert len(np.unique(groups)) == 3
    assert len({groups[row] for row in (0, 1, 3, 4)}) == 1


def faces_of(*rows: tuple[int, str, str]) -> Faces:
    """Faces of (photograph, emotion, usage), each cut otherwise: rows of one photograph are near twins."""
    pictures = photographs(1 + max(number for number, _, _ in rows))
    boxes = [(12 + dx, 12 + dy, 84 + dx, 84 + dy) for dx in range(3) for dy in range(3)]
    images = np.stack([cut(pictures[number], boxes[place % 9]) for place, (number, _, _) in enumerate(rows)])
    emotion, usage = (np.array([row[column] for row in rows]) for column in (1, 2))
    return Faces(images, emotion, usage, np.array([str(row) for row in range(len(rows))]))


def clean(faces: Faces, split: str = "official", steps: tuple[str, ...] = STEPS) -> tuple[list[str], dict]:
    faces, digests = canonical_order(faces)
    groups = identical_groups(digests)
    twins = find_twins(faces.images, digests, groups)
    rows, report = clean_rows(faces, groups, steps, twins, SET_ASIDE[split])
    return sorted(faces.ids[rows].tolist()), report


def test_a_near_twin_of_an_evaluation_image_leaves_training() -> None:
    for usage in ("PublicTest", "PrivateTest"):
        kept, report = clean(faces_of((0, "sad", "Training"), (0, "sad", usage), (1, "sad", "Training")))
        assert kept == ["1", "2"]
        assert report["removed"]["near_twins"] == {"Training": 1}


def test_private_test_s_near_twin_leaves_public_test() -> None:
    kept, report = clean(faces_of((0, "sad", "PublicTest"), (0, "sad", "PrivateTest"), (1, "sad", "PublicTest")))
    assert kept == ["1", "2"]
    assert report["removed"]["near_twins"] == {"PublicTest": 1}


@pytest.mark.parametrize("usage", ["Training", "PublicTest", "PrivateTest", ""])
def test_near_twins_of_one_part_stay_whatever_their_labels(usage: str) -> None:
    kept, report = clean(faces_of((0, "sad", usage), (0, "fear", usage), (1, "sad", usage)))
    assert kept == ["0", "1", "2"]
    assert report["near_twins"]["conflicting_groups"] == 1


def test_a_near_twin_of_an_image_that_was_itself_dropped_stays() -> None:
    faces = faces_of((0, "sad", "PrivateTest"), (0, "fear", "PrivateTest"), (0, "sad", "Training"))
    faces.images[1] = faces.images[0]  # identical, with another label: both go
    assert clean(faces)[0] == ["2"]


def test_only_what_the_split_sets_aside_takes_its_near_twins_out() -> None:
    faces = faces_of(
        (0, "sad", "Training"), (0, "sad", "PublicTest"), (1, "sad", "Training"), (1, "sad", "PrivateTest")
    )
    assert clean(faces, "official")[0] == ["1", "3"]
    assert clean(faces, "kfold")[0] == ["0", "1", "3"]
    assert clean(faces, "stratified")[0] == ["0", "1", "2", "3"]


def test_near_twins_that_are_not_cleaned_stay() -> None:
    faces = faces_of((0, "sad", "Training"), (0, "sad", "PublicTest"))
    assert clean(faces, steps=STEPS[:3])[0] == ["0", "1"]


def test_the_report_counts_pairs_of_different_pixels() -> None:
    rows = [(0, "sad", "Training"), (0, "sad", "Training"), (0, "sad", "PublicTest"), (0, "sad", "PrivateTest")]
    faces = faces_of(*rows, (1, "sad", "Training"), (1, "sad", "PublicTest"), (2, "sad", "Training"))
    faces.images[5] = faces.images[4]  # an exact copy is no near twin
    report = clean(faces)[1]["near_twins"]
    assert report["pairs"] == 6
    assert report["pairs_between"] == {
        "PrivateTest and PublicTest": 1,
        "PrivateTest and Training": 2,
        "PublicTest and Training": 2,
        "Training and Training": 1,
    }
    assert (report["groups"], report["images"], report["largest_group"]) == (1, 4, 4)
    assert report["private_test_with_twin_in_training"] == report["public_test_with_twin_in_training"] == 1
    assert report["public_test_with_twin_in_private_test"] == 1
    assert report["conflicting_groups"] == report["mirrored_pairs"] == 0


@pytest.fixture(scope="module")
def doubled(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Every photograph twice, cut otherwise."""
    rows = [(place // 2, EMOTIONS[place // 2 % 7], ("Training", "PublicTest")[place % 2]) for place in range(140)]
    rows += [(70 + place, EMOTIONS[place % 7], ("Training", "PrivateTest")[place // 7]) for place in range(14)]
    faces = faces_of(*rows)
    path = tmp_path_factory.mktemp("doubled") / "fer2013.csv"
    path.write_text(csv_text(faces))
    return DataConfig(name="test", task="test", path=str(path))


@pytest.mark.parametrize("split", ["stratified", "kfold"])
def test_no_draw_parts_near_twins(doubled: DataConfig, split: str) -> None:
    cfg = replace(doubled, split=split)
    dataset, test = load_dataset(cfg), open_test_split(cfg)
    parts = [dataset.images[dataset.train], dataset.images[dataset.val], test.images]
    assert sum(map(len, parts)) == 154
    part = np.repeat(np.arange(3), [len(images) for images in parts])
    found = np.array(pairs_of(np.concatenate(parts)))
    assert len(found) == 70
    assert np.array_equal(part[found[:, 0]], part[found[:, 1]])
    apart = load_dataset(replace(cfg, clean=list(STEPS[:3])))
    parts = [apart.images[apart.train], apart.images[apart.val]]
    found = np.array(pairs_of(np.concatenate(parts)))
    assert ((found[:, 0] < len(parts[0])) & (found[:, 1] >= len(parts[0]))).any()


def test_the_sample_of_pairs_shows_no_test_image(doubled: DataConfig) -> None:
    for split in ("official", "stratified"):
        cfg = replace(doubled, split=split)
        dataset, test = load_dataset(cfg), open_test_split(cfg)
        assert dataset.twins is not None
        assert len(dataset.twins.images) == len(dataset.twins.titles) > 10
        shown = {image.tobytes() for image in dataset.twins.images}
        assert not shown & {image.tobytes() for image in test.images}
    assert load_dataset(replace(doubled, clean="none")).twins is None


def test_a_pair_of_the_sample_is_called_mirrored_in_full(tmp_path: Path) -> None:
    faces = faces_of(*((place // 2, EMOTIONS[place // 2 % 2], "") for place in range(56)))
    faces.images[1::2] = faces.images[1::2, :, ::-1]
    (tmp_path / "f.csv").write_text(csv_text(faces, ("emotion", "pixels")))
    twins = load_dataset(DataConfig(name="t", task="t", path=str(tmp_path / "f.csv"), split="stratified")).twins
    assert twins is not None and all(title.endswith(" mirrored") for title in twins.titles[1::2])


def test_images_of_evaluation_whose_near_twin_left_training_are_marked(doubled: DataConfig) -> None:
    dataset = load_dataset(doubled)  # whose PublicTest is cut out of Training's photographs, all of it
    assert dataset.near_training is not None
    assert len(dataset.val) == 70 and dataset.near_training[dataset.val].all()
    assert not dataset.near_training[dataset.train].any()
    assert load_dataset(replace(doubled, clean=list(STEPS[:3]))).near_training is None


def test_drawn_faces_are_no_photographs_and_have_no_twins() -> None:
    cfg = DataConfig(name="demo", task="demo", source="demo", demo_size=400)
    dataset = load_dataset(cfg)
    assert dataset.cleaning["steps"] == list(STEPS[:3])
    assert dataset.cleaning["kept"] == len(np.unique(pixel_digests(draw_faces(400, 0).images), axis=0)) == 400


def test_datasets_cleaned_as_before_near_twins_keep_their_fingerprints(tmp_path: Path) -> None:
    faces = random_faces()
    path = tmp_path / "fer2013.csv"
    path.write_text(csv_text(faces.take(np.r_[np.arange(len(faces)), 0, 5])))
    cfg = DataConfig(name="test", task="test", path=str(path))
    before = {
        "official": "fd4f1a5b236e418554a41701d2a7444875e6e881bdfac62e113134ab3ac41344",
        "stratified": "8da32ecc483a9798d6055db714784eed88c79ed11c84592b03c42b9d17a35956",
        "kfold": "dae37a31ce64c2b6b8747855e74691a0ba703e8d8868d7bf3d1a130f43be2232",
    }
    for split, fingerprint in before.items():
        assert load_dataset(replace(cfg, split=split, clean=list(STEPS[:3]))).fingerprint == fingerprint
        assert load_dataset(replace(cfg, split=split)).fingerprint != fingerprint
    demo = load_dataset(DataConfig(name="demo", task="demo", source="demo", demo_size=400))
    assert demo.fingerprint == "e4f600159d6abd65613e2aef2775c9669486afd0bef693f5ac41e8c6d178be56"
