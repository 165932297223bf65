"""What a view of a picture shows: by its definition, and the same wherever it is computed."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import keras
import numpy as np
import pytest

from fer_experiments.backbones.views import shown
from fer_experiments.config import VIEWS
from fer_experiments.features.engines.openvino import compiled, converted

FACES = np.random.default_rng(0).integers(0, 256, (8, 12, 10), dtype=np.uint8)


def defined(picture: np.ndarray, view: str) -> np.ndarray:
    """By exact fractions, a pixel at a time."""
    window = VIEWS[view]

    def between(number: int, side: int, start: int) -> tuple[int, int, Fraction]:
        place = Fraction(start, 16) * side + (number + Fraction(1, 2)) * Fraction(window.part, 8) - Fraction(1, 2)
        place = min(max(place, Fraction(0)), Fraction(side - 1))
        return int(place), min(int(place) + 1, side - 1), place - int(place)

    height, width = picture.shape
    out = np.empty_like(picture)
    for row, column in np.ndindex(height, width):
        top, bottom, down = between(row, height, window.top)
        left, right, across = between(column, width, window.left)
        upper, lower = (picture[y, left] * (1 - across) + picture[y, right] * across for y in (top, bottom))
        out[row, column] = round(upper * (1 - down) + lower * down)
    return out[:, ::-1] if window.mirrored else out


@pytest.mark.parametrize("shape", [(12, 10), (9, 31), (1, 3)])
def test_a_window_is_sampled_between_centres_and_rounded(shape: tuple[int, int]):
    picture = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    for view in VIEWS:
        got = np.asarray(shown(picture[None], view))
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got[0], defined(picture, view), err_msg=view)


def test_of_48_pixels_a_shift_moves_three_and_repeats_the_edge():
    face = np.random.default_rng(2).integers(0, 256, (1, 48, 48), dtype=np.uint8)
    wider = np.pad(face, ((0, 0), (3, 3), (3, 3)), mode="edge")
    moved = {"shift1": wider[:, 3:-3, :-6], "shift2": wider[:, 3:-3, 6:], "shift3": wider[:, :-6, 3:-3]}
    for view, wanted in (moved | {"shift4": wider[:, 6:, 3:-3]}).items():
        np.testing.assert_array_equal(shown(face, view), wanted)
    np.testing.assert_array_equal(shown(face, "shift1_flip"), moved["shift1"][:, :, ::-1])


def test_crops_are_the_corners_and_the_middle():
    ramp = np.broadcast_to(np.arange(16, dtype=np.uint8) * 16, (1, 16, 16))
    # 7/8 of 16 pixels are 14: samples are 7/8 of a pixel apart, the first 1/16 of one before a centre
    first, last = (
        [int(np.asarray(shown(faces, f"crop{i}"))[0, end, end]) for i in range(1, 6)]
        for faces, end in ((ramp, 0), (ramp.swapaxes(1, 2), -1))
    )
    assert first == [0, 31, 0, 31, 15]  # the columns where they begin
    assert last == [209, 209, 240, 240, 225]  # the rows where they end


def test_the_picture_itself_stays_the_array_that_it_is():
    assert shown(FACES, "original") is FACES
    np.testing.assert_array_equal(shown(FACES, "flip"), FACES[:, :, ::-1])


def test_a_saved_model_and_openvino_come_to_the_same_pixels(tmp_path: Path):
    wanted = np.concatenate([np.asarray(shown(FACES, view)) for view in VIEWS])
    pixels = keras.Input(FACES.shape[1:], dtype="uint8")
    keras.Model(pixels, keras.ops.concatenate([shown(pixels, view) for view in VIEWS])).save(tmp_path / "views.keras")
    loaded = keras.models.load_model(tmp_path / "views.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(loaded(FACES), wanted)
    as_float = keras.Model(loaded.inputs, keras.ops.cast(loaded.outputs[0], "float32"))
    for precision in ("float32", "bfloat16"):
        request = compiled(converted(as_float, None), precision, "LATENCY").create_infer_request()
        np.testing.assert_array_equal(request.infer([FACES])[0], wanted)
