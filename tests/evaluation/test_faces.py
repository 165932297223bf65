import warnings

import numpy as np
from test_figures import texts

from fer_experiments.evaluation import faces
from fer_experiments.evaluation.style import png

CLASSES = ("negative", "happy")


def sheet(probability_of_happy, labels, emotions, **options):
    p = np.array(probability_of_happy)
    images = np.zeros((len(p), 8, 8), np.uint8)
    return texts(
        faces.worst_mistakes(images, np.array(emotions), np.array(labels), np.stack([1 - p, p], 1), CLASSES, **options)
    )


def test_the_surest_mistakes_come_first_with_truth_and_prediction():
    written = sheet([0.8, 0.999, 0.3, 0.99, 0.1], [0, 0, 0, 1, 1], ["sad", "fear", "sad", "happy", "happy"])
    assert written == [
        "negative (fear)\nas happy 99.9 %",
        "happy\nas negative 90.0 %",
        "negative (sad)\nas happy 80.0 %",
    ]


def test_no_more_than_asked_for_are_shown():
    assert len(sheet([0.9] * 60, [0] * 60, ["sad"] * 60)) == 40
    assert len(sheet([0.9] * 60, [0] * 60, ["sad"] * 60, count=7)) == 7


def test_a_probability_is_never_rounded_up_to_certainty():
    assert sheet([0.9999], [0], ["sad"]) == ["negative (sad)\nas happy 99.9 %"]


def test_a_result_without_mistakes_says_so():
    assert sheet([0.9, 0.2], [1, 0], ["happy", "sad"]) == ["no mistake in 2 images"]


def test_a_class_that_the_font_cannot_write_is_no_warning():
    with warnings.catch_warnings(action="error"):
        assert png(faces.face_sheet(np.zeros((1, 48, 48), np.uint8), ["愤怒"])).startswith(b"\x89PNG")
