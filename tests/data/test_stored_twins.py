"""What was found of near twins, kept in a file that may be damaged by the time it is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_experiments.data.near_twins import Pairs, _store, _stored

IMAGES = 100


@pytest.fixture
def found() -> Pairs:
    random = np.random.default_rng(0)
    rows = np.sort([random.choice(IMAGES, 2, replace=False) for _ in range(20)], axis=1)
    return Pairs(rows, random.random(20, "float32"), random.random(20) > 0.5)


def test_a_file_with_any_byte_changed_gives_what_was_stored_or_nothing(tmp_path: Path, found: Pairs) -> None:
    random, path = np.random.default_rng(0), tmp_path / "found.npz"
    _store(path, found)
    whole = path.read_bytes()
    read = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] ^= random.integers(1, 256)
        path.write_bytes(damaged)
        if (got := _stored(path, IMAGES)) is not None:  # what was hit is a date, say
            read += 1
            for name, array in vars(found).items():
                np.testing.assert_array_equal(getattr(got, name), array)
    assert 0 < read < 400


@pytest.mark.parametrize(
    "change",
    [
        lambda found: replace(found, rows=-1 - found.rows),
        lambda found: replace(found, rows=found.rows + IMAGES),
        lambda found: replace(found, rows=found.rows[:, :1]),
        lambda found: replace(found, mirrored=found.mirrored[:-1]),
        lambda found: replace(found, score=found.score[:-1]),
        lambda found: replace(found, score=found.score[:, None]),
    ],
    ids=["below zero", "beyond the last", "of one image", "a side too few", "a score too few", "scores in a column"],
)
def test_pairs_that_cannot_be_are_found_anew(tmp_path: Path, found: Pairs, change) -> None:
    path = tmp_path / "found.npz"
    _store(path, found)
    assert _stored(path, IMAGES) is not None
    _store(path, change(found))
    assert _stored(path, IMAGES) is None
