"""Augmentations: what each may change, and by how much."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fer_experiments.config import PixelsConfig
from fer_experiments.training.augment import augment, mixed

RECIPE = PixelsConfig()
OFF = {"shift": 0.0, "rotation": 0.0, "zoom": 0.0, "gamma": 0.0, "erasing": 0.0}
NOTHING = replace(RECIPE, **OFF, flip=False)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 48, 48), dtype=np.uint8)


def test_augmentation_keeps_range_and_is_repeatable(images: np.ndarray) -> None:
    first, second = (augment(images, RECIPE, np.random.default_rng(3)) for _ in range(2))
    assert first.dtype == np.float32
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 255
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, images)


def test_with_all_else_off_an_image_is_itself_or_its_mirror(images: np.ndarray) -> None:
    seen = set()
    for image, changed in zip(images, augment(images, replace(RECIPE, **OFF), np.random.default_rng(0)), strict=True):
        mirrored = not np.allclose(changed, image, atol=1e-2)
        np.testing.assert_allclose(changed, image[:, ::-1] if mirrored else image, atol=1e-2)
        seen.add(mirrored)
    assert seen == {True, False}


def test_a_shift_moves_the_image_by_at_most_that_share(images: np.ndarray) -> None:
    spot = np.zeros_like(images)
    spot[:, 24, 24] = 255
    moved = augment(spot, replace(RECIPE, **{**OFF, "shift": 0.1}), np.random.default_rng(0))
    rows, columns = np.nonzero(moved.max(axis=0) > 1)
    assert max(abs(rows - 23.5).max(), abs(columns - 23.5).max()) <= 4.8 + 1.5


def test_erasing_fills_one_rectangle_of_at_most_that_share(images: np.ndarray) -> None:
    config = replace(RECIPE, **{**OFF, "erasing": 0.25})
    erased = augment(images, config, np.random.default_rng(0))
    kept = augment(images, replace(config, erasing=0.0), np.random.default_rng(0))
    changed = (erased != kept).mean(axis=(1, 2))
    assert (changed > 0).any()
    assert changed.max() <= 0.25 * 1.2


def test_erasing_is_as_likely_on_either_side() -> None:
    faces = np.zeros((20_000, 8, 8), np.uint8)
    changed = augment(faces, replace(RECIPE, **{**OFF, "erasing": 0.3}), np.random.default_rng(0)) > 0
    for share in (changed.mean(axis=(0, 1)), changed.mean(axis=(0, 2))):
        np.testing.assert_allclose(share, share[::-1], atol=0.01)
        assert share.min() > 0


def test_without_a_flip_no_image_is_mirrored(images: np.ndarray) -> None:
    np.testing.assert_allclose(augment(images, NOTHING, np.random.default_rng(0)), images, atol=1e-2)


def test_a_shear_moves_each_row_by_its_distance_from_the_middle() -> None:
    image = np.zeros((8, 49, 49), np.uint8)
    image[:, :, 24] = 255  # an upright line
    sheared = augment(image, replace(NOTHING, shear=20.0), np.random.default_rng(0))
    places = (sheared * np.arange(49)).sum(axis=2) / sheared.sum(axis=2)
    slopes = np.diff(places, axis=1)
    np.testing.assert_allclose(slopes, np.repeat(slopes.mean(axis=1, keepdims=True), 48, axis=1), atol=2e-2)
    assert np.abs(slopes).max() <= np.tan(np.deg2rad(20)) + 2e-2
    assert np.ptp(slopes.mean(axis=1)) > 0.1
    np.testing.assert_allclose(places[:, 24], 24, atol=1e-3)


def test_beyond_an_edge_is_the_edge_or_the_mirror_image(images: np.ndarray) -> None:
    changed = [
        augment(images, replace(NOTHING, shift=0.3, fill=fill), np.random.default_rng(1))
        for fill in ("nearest", "reflect")
    ]
    beyond = np.all(np.diff(changed[0], axis=2) == 0, axis=1)  # columns that repeat the edge
    assert beyond.any() and not np.all(np.diff(changed[1], axis=2) == 0, axis=1).any()
    moved = np.abs(changed[0] - changed[1]).max(axis=(1, 2)) > 1
    assert moved.any()
    inside = np.abs(changed[0] - changed[1]) < 1e-3
    assert inside[:, 20:28, 20:28].all()


def test_mixed_images_and_targets_are_mixed_by_the_same_share() -> None:
    images = np.zeros((64, 2, 2), np.float32)
    images[::2] = 1
    targets = np.eye(2, dtype=np.float32)[np.arange(64) % 2]
    blended, shares = mixed(images, targets, 0.4, np.random.default_rng(0))
    assert blended.dtype == shares.dtype == np.float32
    np.testing.assert_allclose(blended[:, 0, 0], shares[:, 0], atol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert ((shares[:, 0] > 0.01) & (shares[:, 0] < 0.99)).sum() > 5
