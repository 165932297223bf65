"""Corruptions: what each does to pictures, and that it does it again."""

from __future__ import annotations

import numpy as np
import pytest

from fer_experiments.evaluation.corruptions import CORRUPTIONS, KINDS, STRENGTHS, corrupt

KIND = {kind: [name for name, (of, _) in CORRUPTIONS.items() if of == kind] for kind in KINDS}


def faces(count: int = 20, height: int = 48, width: int = 40) -> np.ndarray:
    """Pictures of two blobs and a square each, no two alike."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    made = np.zeros((count, height, width))
    for image in made:
        for level, size in ((120, 15), (100, 90)):
            top, left = random.uniform(0.25, 0.75, 2) * (height, width)
            image += level * np.exp(-((y - top) ** 2 + (x - left) ** 2) / size)
    made[:, 8:20, 10:22] += 25  # an edge
    return (made + 20).astype("uint8")


def change(images: np.ndarray, name: str) -> float:
    return float(np.abs(corrupt(images, name) - images.astype(float)).mean())


def test_eight_kinds_of_five_strengths_and_one_mirror():
    assert len(CORRUPTIONS) == 8 * STRENGTHS + 1
    assert KIND["noise"] == [f"noise_{n}" for n in range(1, 6)] and KIND["mirror"] == ["mirror"]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_pictures_stay_pictures_and_repeat_with_their_seed(name: str):
    images = faces()
    before = images.copy()
    made = corrupt(images, name)
    assert made.dtype == np.uint8 and made.shape == images.shape and (images == before).all()
    assert (corrupt(images, name) == made).all() and not (made == images).all()
    if CORRUPTIONS[name][0] in ("noise", "brightness", "rotation", "occlusion"):
        assert not (corrupt(images, name, seed=1) == made).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mirror"])
def test_each_strength_changes_more_than_the_one_before(kind: str):
    images = faces()
    changes = [change(images, name) for name in KIND[kind]]
    assert changes == sorted(changes) and changes[-1] > 1.5 * changes[0]


def test_mirroring_twice_gives_the_picture_back():
    assert (corrupt(corrupt(faces(), "mirror"), "mirror") == faces()).all()


def test_half_of_the_pictures_become_darker_and_half_brighter():
    levels = corrupt(np.full((6, 8, 8), 128, np.uint8), "brightness_2")[:, 0, 0]
    assert sorted(levels.tolist()) == [78] * 3 + [178] * 3


def test_what_is_hidden_is_a_rectangle_of_the_share_that_is_said():
    images = np.random.default_rng(0).integers(256, size=(20, 50, 50)).astype("uint8")
    hidden = corrupt(images, "occlusion_3") != images
    assert hidden.mean(axis=(1, 2)) == pytest.approx(0.2, abs=0.03)
    rows = [np.flatnonzero(one.any(axis=1)) for one in hidden]
    assert all(np.ptp(row) + 1 <= 22 for row in rows)


@pytest.mark.parametrize("shape", [(48, 48), (96, 20), (20, 96)])
def test_a_turned_picture_has_no_black_corners(shape: tuple[int, int]):
    assert (corrupt(np.full((2, *shape), 200, np.uint8), "rotation_5") == 200).all()
