import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from fer_experiments.evaluation import curves, faces, figures
from fer_experiments.evaluation.style import png

SEVEN = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def texts(figure):
    """Everything written on a figure, after really drawing it."""
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def history(epochs, first=0):
    loss = np.abs(np.arange(epochs) - 3) / 10 + 0.2
    columns = {"train/loss": loss, "train/accuracy": 1 - loss, "val/loss": loss, "val/accuracy": 1 - loss}
    return pd.DataFrame(columns, index=pd.RangeIndex(first, first + epochs, name="epoch"))


def results(classes, n=200):
    random = np.random.default_rng(0)
    labels = random.integers(classes, size=n)
    scores = random.random((n, classes)) + np.eye(classes)[labels] / 2
    return labels, scores / scores.sum(axis=1, keepdims=True)


def test_the_best_epoch_is_marked_with_its_values():
    assert {"best epoch 3: 0.2000", "best epoch 3: 0.8000"} <= set(texts(curves.learning_curves(history(10))))
    assert "best epoch 5: 0.4000" in texts(curves.learning_curves(history(10), best_epoch=5))


def test_a_history_may_start_late_and_last_one_epoch():
    assert "best epoch 4: 0.5000" in texts(curves.learning_curves(history(1, first=4)))


def test_a_history_may_lack_validation():
    assert "validation" not in texts(curves.learning_curves(history(3)[["train/loss", "train/accuracy"]]))


def test_confusion_matrix_shows_counts_and_shares_of_the_true_class():
    written = texts(figures.confusion_matrix(np.array([[1384, 316], [383, 1317]]), ("negative", "happy")))
    assert {"1,384\n81.4%", "316\n18.6%", "383\n22.5%", "1,317\n77.5%"} <= set(written)
    assert "Confusion matrix: 3,400 images, accuracy 79.44%" in written
    assert "negative\n(1,700)" in written


def test_confusion_matrix_of_seven_classes_with_an_absent_one():
    matrix = np.diag([5, 0, 3, 2, 1, 4, 6])
    assert "disgust\n(0)" in texts(figures.confusion_matrix(matrix, SEVEN))


def test_a_confusion_matrix_of_very_many_classes_is_a_picture_of_bounded_size():
    names = [f"class {number}" for number in range(300)]
    picture = png(figures.confusion_matrix(np.eye(300, dtype=int), names))
    assert max(Image.open(io.BytesIO(picture)).size) < 4000


@pytest.mark.parametrize("names", [SEVEN[:2], SEVEN, ["w" * 60] * 2, ["W" * 60] * 7, ["a name of many words"] * 50])
def test_the_texts_around_a_confusion_matrix_lie_within_the_picture(names):
    figure = figures.confusion_matrix(np.full((len(names), len(names)), 1234), names)
    png(figure)
    written = [*figure.texts, *(text for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for text in of(axis))]
    assert len([text for text in written if text.get_text()]) > 2 * len(names)
    for text in filter(Text.get_text, written):
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text


def of(axis):
    return [axis.label, *axis.get_ticklabels()]


def test_classes_called_like_formulas_are_drawn_as_they_stand():
    names, (labels, probabilities) = ("$x^$", "a$b$c"), results(2)
    drawn = [
        figures.confusion_matrix(np.eye(2, dtype=int), names),
        curves.roc_curve(labels, probabilities, names),
        curves.precision_recall_curve(labels, probabilities, names),
        faces.face_sheet(np.zeros((2, 48, 48), np.uint8), names),
    ]
    for figure in drawn:
        assert png(figure).startswith(b"\x89PNG")
        signs = [text for text in figure.findobj(Text) if "$" in text.get_text()]
        assert signs and not any(text.get_parse_math() for text in signs)


def test_roc_curve_of_two_classes_is_that_of_the_positive_one():
    labels, probabilities = results(2)
    legend = [t for t in texts(curves.roc_curve(labels, probabilities, ("negative", "happy"))) if "AUC" in t]
    assert len(legend) == 2
    assert legend[0].startswith("happy: AUC 0.9")


def test_roc_curves_of_seven_classes_say_which_is_absent():
    labels, probabilities = results(7)
    labels[labels == 1] = 0
    written = texts(curves.roc_curve(labels, probabilities, SEVEN))
    assert "disgust: not in these images" in written
    assert sum("AUC" in t for t in written) == 6 + 1 + 1  # classes, chance, the mean in the title


@pytest.mark.parametrize("shape", [(11, 48, 48), (3, 64, 40, 3)])
def test_a_face_sheet_has_a_title_over_every_face(shape):
    titles = [f"happy\n({i})" for i in range(shape[0])]
    images = np.random.default_rng(0).integers(256, size=shape).astype("uint8")
    assert set(titles) <= set(texts(faces.face_sheet(images, titles, columns=4)))


def test_no_global_state_of_matplotlib_is_touched():
    from matplotlib import pyplot

    figures = [curves.learning_curves(history(3)), curves.calibration_curve(*results(2))]
    assert all(texts(figure) for figure in figures)
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("classes", [2, 7])
def test_a_picture_that_is_drawn_once_is_what_matplotlib_saves(classes):
    labels, probabilities = results(classes)
    matrix, names = np.eye(classes, dtype=int), SEVEN[:classes]
    draw = [
        lambda: curves.learning_curves(history(3)),
        lambda: figures.confusion_matrix(matrix, names),
        lambda: curves.roc_curve(labels, probabilities, names),
        lambda: curves.calibration_curve(labels, probabilities),
    ]
    for figure in draw:
        saved = io.BytesIO()
        figure().savefig(saved, format="png")
        ours, theirs = (np.asarray(Image.open(file).convert("RGB")) for file in (io.BytesIO(png(figure())), saved))
        np.testing.assert_array_equal(ours, theirs)
