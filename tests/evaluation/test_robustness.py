"""Accuracy on slices and corruptions, alone and beside another model's."""

from __future__ import annotations

import numpy as np
import pytest
from test_figures import texts

from fer_experiments.evaluation.corruptions import CORRUPTIONS
from fer_experiments.evaluation.robustness import (
    UNCHANGED,
    corruptions_figure,
    measured,
    parts_table,
    slices_figure,
)

LABELS = np.array([0, 1] * 100)


def answers(wrong: int, first: int = 0) -> np.ndarray:
    """Probabilities that are wrong about so many images from `first` on."""
    sure = np.eye(2)[LABELS]
    sure[first : first + wrong] = sure[first : first + wrong, ::-1]
    return sure


def test_alone_a_part_has_an_accuracy_with_its_interval():
    part = measured("emotion_sad", LABELS, answers(20))
    assert (part.images, part.accuracy.value, part.worse, part.champion) == (200, 0.9, None, None)
    assert part.accuracy.low == pytest.approx(0.86, abs=0.02) and part.accuracy.high == pytest.approx(0.94, abs=0.02)
    assert list(parts_table([part])) == ["name", "images", "accuracy", "accuracy_low", "accuracy_high"]


def test_beside_the_champion_it_is_worse_by_so_much():
    part = measured("emotion_sad", LABELS, answers(30), answers(10, first=100))
    assert part.worse is not None and part.p_value is not None and part.champion == pytest.approx(0.95)
    assert part.worse.value == pytest.approx(0.1) and 0.03 < part.worse.low < 0.1 < part.worse.high < 0.17
    assert part.p_value == pytest.approx(0.0022, abs=1e-4)  # 30 against 10, McNemar's exact
    better = measured("x", LABELS, answers(10), answers(30))
    assert better.worse is not None and better.worse.value == pytest.approx(-0.1) and better.worse.high < 0


def test_a_table_has_a_row_a_part():
    parts = [measured(name, LABELS, answers(wrong), answers(5)) for name, wrong in (("a", 4), ("b", 40))]
    table = parts_table(parts)
    assert table["name"].tolist() == ["a", "b"] and table["champion"].tolist() == pytest.approx([0.975, 0.975])
    assert table["worse"].tolist() == pytest.approx([-0.005, 0.175])


@pytest.mark.parametrize("champion", [None, answers(8)])
def test_slices_are_drawn_with_their_images_and_the_champion(champion: np.ndarray | None):
    drawn = texts(slices_figure([measured("near_twin", LABELS, answers(9), champion)], 0.955))
    assert {"near_twin (200)", "all images: 0.9550", "this model"} <= set(drawn)
    assert ("the champion" in drawn) == (champion is not None)


@pytest.mark.parametrize("champion", [None, answers(8)])
def test_every_kind_of_corruption_has_its_curve(champion: np.ndarray | None):
    parts = [measured(name, LABELS, answers(9), champion, resamples=20) for name in (UNCHANGED, *CORRUPTIONS)]
    drawn = texts(corruptions_figure(parts))
    assert {"low resolution", "mirror", "occlusion", "Accuracy on 200 test images, corrupted"} <= set(drawn)
    assert ("the champion" in drawn) == (champion is not None)
