"""Slices of a split: which images are in which."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from fer_experiments.evaluation.slices import QUALITIES, contrast, sharpness, slice_names, slices

IMAGES = np.random.default_rng(0).integers(256, size=(42, 9, 11)).astype("uint8")
EMOTIONS = np.array(["sad", "fear", "very happy"] * 14)
NEAR = np.arange(42) < 5


def test_every_slice_is_named_before_it_is_made():
    assert list(slices(IMAGES, EMOTIONS, NEAR)) == slice_names(EMOTIONS, twins=True)
    assert list(slices(IMAGES, EMOTIONS, None)) == slice_names(EMOTIONS, twins=False)
    assert "emotion_very happy" in slice_names(EMOTIONS, twins=False)


@pytest.mark.parametrize("quality", QUALITIES)
def test_quarters_are_of_one_size_in_rising_order_and_leave_none_out(quality: str):
    of = slices(IMAGES, EMOTIONS, None)
    quarters = [of[f"{quality}_q{n}"] for n in range(1, 5)]
    assert [len(rows) for rows in quarters] in ([11, 10, 11, 10], [11, 11, 10, 10])
    assert sorted(np.concatenate(quarters).tolist()) == list(range(42))
    values = [QUALITIES[quality](IMAGES[rows]) for rows in quarters]
    assert all(lower.max() <= higher.min() for lower, higher in pairwise(values))


def test_equal_images_are_parted_all_the_same():
    assert [
        len(rows) for name, rows in slices(np.zeros((8, 4, 4), np.uint8), EMOTIONS[:8], None).items() if "_q" in name
    ] == [2] * 12


def test_an_edge_is_sharp_and_a_slope_is_not():
    slope = np.tile(np.arange(0, 200, 10), (20, 1)).astype("uint8")
    edge = np.where(np.arange(20) < 10, 0, 190)[None].repeat(20, axis=0).astype("uint8")
    assert sharpness(slope[None])[0] == 0 < sharpness(edge[None])[0]
    assert contrast(edge[None])[0] == 95


def test_near_twins_are_a_slice_and_a_slice_without_images_is_none():
    of = slices(IMAGES, EMOTIONS, NEAR)
    assert of["near_twin"].tolist() == [0, 1, 2, 3, 4] and len(of["no_near_twin"]) == 37
    assert "near_twin" not in slices(IMAGES, EMOTIONS, np.zeros(42, bool))
