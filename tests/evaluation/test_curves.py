import numpy as np
import pytest
from test_figures import SEVEN, results, texts

from fer_experiments.evaluation import curves, figures, metrics, slices
from fer_experiments.evaluation.bootstrap import wilson


def test_precision_recall_curve_of_two_classes_is_that_of_the_positive_one():
    labels, probabilities = results(2)
    figure = curves.precision_recall_curve(labels, probabilities, ("negative", "happy"))
    area = metrics.scores(labels, probabilities)["average_precision"]
    assert {f"happy: {area:.4f}", f"chance: {labels.mean():.4f}"} <= set(texts(figure))
    recall, precision = figure.axes[0].lines[0].get_data()
    assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(area)  # the steps enclose what is written


def test_precision_recall_curves_of_seven_classes_say_which_is_absent():
    labels, probabilities = results(7)
    labels[labels == 1] = 0
    written = texts(curves.precision_recall_curve(labels, probabilities, SEVEN))
    assert "disgust: not in these images" in written
    assert any("200 images, mean average precision 0." in text for text in written)


@pytest.mark.parametrize("classes", [2, 7])
def test_calibration_shows_the_error_and_every_image(classes):
    labels, probabilities = results(classes)
    figure = curves.calibration_curve(labels, probabilities)
    scores = metrics.scores(labels, probabilities)
    error, accuracy = scores["expected_calibration_error"], scores["accuracy"]
    mean = probabilities.max(axis=1).mean()
    wanted = {f"Calibration: 200 images, expected error {error:.4f} (15 bins)"}
    assert wanted | {f"accuracy {accuracy:.4f}", f"mean {mean:.4f}"} <= set(texts(figure))
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == pytest.approx(1)


def test_the_intervals_of_shares_are_wilsons():
    # Newcombe (1998), table I: 81 of 263 and 0 of 20.
    low, high = wilson(np.array([81 / 263, 0.0]), np.array([263, 20]))
    np.testing.assert_allclose(low, [0.2553, 0], atol=5e-5)
    np.testing.assert_allclose(high, [0.3662, 0.1611], atol=5e-5)


def test_the_calibration_of_one_image_is_drawn():
    assert texts(curves.calibration_curve(np.array([0]), np.array([[0.0, 1.0]])))


def test_errors_by_emotion_show_what_each_is_taken_for():
    emotions = np.array(["angry"] * 4 + ["sad"] * 5 + ["happy"] * 10)
    labels = np.repeat([0, 1], [9, 10])
    predicted = labels.copy()
    predicted[[0, 4, 5]] = 1
    table = slices.emotion_errors(emotions, labels, np.eye(2)[predicted], ("negative", "positive"))
    written = texts(figures.emotion_errors(table))
    assert {"angry (4)", "sad (5)", "happy (10)", "25.0%", "40.0%", "100.0%"} <= set(written)
    assert "What each emotion is taken for: 19 images" in written


def test_errors_of_seven_emotions_and_of_none_are_drawn():
    labels, probabilities = results(7)
    table = slices.emotion_errors(np.array(SEVEN)[labels], labels, probabilities, SEVEN)
    assert set(SEVEN) <= set(texts(figures.emotion_errors(table)))
    perfect = slices.emotion_errors(np.array(SEVEN)[labels], labels, np.eye(7)[labels], SEVEN)
    assert texts(figures.emotion_errors(perfect)).count("100.0%") == 7
