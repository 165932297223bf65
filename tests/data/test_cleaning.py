from __future__ import annotations

import json

import numpy as np
import pytest

from fer_experiments.data.cleaning import STEPS, canonical_order, clean_rows, clean_steps, identical_groups
from fer_experiments.data.faces import Faces
from fer_experiments.errors import UserError


def make(*rows: tuple[int, str, str]) -> Faces:
    """Faces of (image number, emotion, usage); number 0 is a constant image, the same number the same pixels."""
    images = np.stack([np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8) for number, _, _ in rows])
    images[[number == 0 for number, _, _ in rows]] = 128
    _, emotion, usage = (np.array(column) for column in zip(*rows, strict=True))
    return Faces(images, emotion, usage, np.array([f"{row}" for row in range(len(rows))]))


def clean(faces: Faces, steps: tuple[str, ...] = STEPS) -> tuple[Faces, dict]:
    faces, digests = canonical_order(faces)
    rows, report = clean_rows(faces, identical_groups(digests), steps)
    return faces.take(rows), report


def test_a_twin_of_a_test_image_leaves_training() -> None:
    kept, report = clean(make((1, "sad", "Training"), (1, "sad", "PrivateTest"), (2, "sad", "Training")))
    assert sorted(kept.ids) == ["1", "2"]
    assert report["removed"]["duplicates"] == {"Training": 1}


def test_private_test_keeps_the_copy_before_public_test_and_public_test_before_training() -> None:
    rows = [(1, "sad", "Training"), (1, "sad", "PublicTest"), (1, "sad", "PrivateTest")]
    assert clean(make(*rows))[0].usage.tolist() == ["PrivateTest"]
    assert clean(make(*rows[:2]))[0].usage.tolist() == ["PublicTest"]


def test_without_usage_the_first_id_stays() -> None:
    faces = make((1, "sad", ""), (1, "sad", ""), (1, "sad", ""))
    faces = Faces(faces.images, faces.emotion, faces.usage, np.array(["f10", "f9", "f11"]))
    assert clean(faces)[0].ids.tolist() == ["f9"]


def test_identical_images_with_conflicting_labels_all_go() -> None:
    kept, report = clean(
        make((1, "sad", "Training"), (1, "fear", "Training"), (1, "sad", "PublicTest"), (2, "sad", ""))
    )
    assert kept.ids.tolist() == ["3"]
    assert report["removed"]["conflicting"] == {"PublicTest": 1, "Training": 2}
    assert report["removed"]["duplicates"] == {}


def test_constant_images_go_and_are_counted_once() -> None:
    kept, report = clean(make((0, "sad", "Training"), (0, "happy", "Training"), (1, "sad", "Training")))
    assert kept.ids.tolist() == ["2"]
    assert report["removed"] == {"constant": {"Training": 2}, "conflicting": {}, "duplicates": {}, "near_twins": {}}


def test_what_is_not_cleaned_is_reported_all_the_same() -> None:
    faces = make((1, "sad", "Training"), (1, "sad", "PrivateTest"), (1, "fear", "PublicTest"), (0, "sad", "Training"))
    kept, report = clean(faces, ())
    assert len(kept) == report["kept"] == report["found"] == 4
    assert report["removed"] == {}
    assert report["constant_images"] == 1
    assert report["duplicates"] == {
        "redundant_copies": 2,
        "groups": 1,
        "groups_across_splits": 1,
        "conflicting_groups": 1,
        "private_test_with_twin_in_training": 1,
        "public_test_with_twin_in_training": 1,
    }


def test_single_steps_can_be_chosen() -> None:
    faces = make((1, "sad", "Training"), (1, "fear", "Training"), (0, "sad", "Training"))
    assert sorted(clean(faces, ("constant",))[0].ids) == ["0", "1"]
    assert sorted(clean(faces, ("conflicting",))[0].ids) == ["2"]
    assert len(clean(faces, ("duplicates",))[0]) == 2


def test_the_report_is_plain_json() -> None:
    report = clean(make((1, "sad", "Training"), (0, "sad", "")))[1]
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize(
    ("given", "steps"),
    [("all", STEPS), ("none", ()), ([], ()), (["duplicates", "constant"], ("constant", "duplicates"))],
)
def test_clean_is_all_none_or_a_list(given: str | list[str], steps: tuple[str, ...]) -> None:
    assert clean_steps(given) == steps


@pytest.mark.parametrize("given", ["some", ["constant", "twins"], 3, True, {"constant": False}])
def test_an_unknown_step_is_refused_with_the_options(given: object) -> None:
    with pytest.raises(
        UserError, match=r"data\.clean: .* all, none or a list out of constant, conflicting, duplicates"
    ):
        clean_steps(given)
