import io

import numpy as np
import pandas as pd
import pytest

from fer_experiments.evaluation import curves, faces, figures
from fer_experiments.search import sweep_figures
from fer_experiments.search.sweep_figures import _Scale

SEVEN = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def texts(figure):
    """Everything written on a figure, after really drawing it."""
    from matplotlib.text import Text

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


def trials(n, failed=()):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "head.l2": 10 ** random.uniform(-6, -1, n),
            "head.dense_widths": [[[128, 64], [64]][i % 2] for i in range(n)],
            "head.normalize": np.arange(n) % 3 == 0,
            "data.limit": [None] * n,
            "final/val_accuracy": random.uniform(0.9, 0.95, n),
        }
    )
    frame.loc[list(failed), "final/val_accuracy"] = np.nan
    return frame


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


@pytest.mark.parametrize(("direction", "best"), [("max", "best: trial 3, 0.9000"), ("min", "best: trial 1, 0.5000")])
def test_the_best_trial_and_the_failed_ones_are_marked(direction, best):
    written = texts(sweep_figures.objective_over_trials([None, 0.5, float("nan"), 0.9, 0.7], direction))
    assert {best, "failed (2)", "final/val_accuracy over 5 trials"} <= set(written)


@pytest.mark.parametrize("scores", [[0.5], [None, None]])
def test_objective_over_very_few_trials(scores):
    assert texts(sweep_figures.objective_over_trials(scores))


@pytest.mark.parametrize("n", [1, 2, 200])
def test_parallel_coordinates_name_every_hyperparameter(n):
    written = texts(sweep_figures.parallel_coordinates(trials(n), "final/val_accuracy"))
    assert {"head.\ndense_widths", "head.\nnormalize", "data.\nlimit", "[128, 64]", "absent"} <= set(written)
    assert any(t.startswith("head.\nl2") for t in written)


def test_parallel_coordinates_mark_failed_trials():
    written = texts(sweep_figures.parallel_coordinates(trials(9, failed=[0, 4]), "final/val_accuracy"))
    assert any("2 failed (dashed)" in t for t in written)
    assert texts(sweep_figures.parallel_coordinates(trials(2, failed=[0, 1]), "final/val_accuracy"))


def test_numbers_over_decades_lie_on_a_logarithmic_axis():
    scale = _Scale(pd.Series([1e-6, 1e-4, 1e-2]))
    assert scale.log
    np.testing.assert_allclose(scale.positions, [0, 0.5, 1])
    linear = _Scale(pd.Series([0.0, 0.1, 0.4, np.nan]))
    assert not linear.log
    np.testing.assert_allclose(linear.positions, [0, 0.25, 1, np.nan])


def test_categories_are_ordered_by_the_numbers_in_them():
    scale = _Scale(pd.Series([[128, 64], [64], [256]], dtype=object))
    assert [text for _, text in scale.ticks] == ["[64]", "[128, 64]", "[256]"]


def test_a_hyperparameter_that_never_varied_lies_in_the_middle():
    assert list(_Scale(pd.Series([0.3, 0.3])).positions) == [0.5, 0.5]


def test_importances_are_bars_with_shares():
    table = pd.DataFrame({"name": ["head.l2", "head.dropout"], "importance": [0.8, 0.2], "std": [0.1, 0.1]})
    assert {"head.l2", "80%", "20%"} <= set(texts(sweep_figures.importances(table)))


def test_importances_of_too_few_trials_say_so():
    assert "too few trials" in texts(sweep_figures.importances(pd.DataFrame({"name": [], "importance": [], "std": []})))


@pytest.mark.parametrize("shape", [(11, 48, 48), (3, 64, 40, 3)])
def test_a_face_sheet_has_a_title_over_every_face(shape):
    titles = [f"happy\n({i})" for i in range(shape[0])]
    images = np.random.default_rng(0).integers(256, size=shape).astype("uint8")
    assert set(titles) <= set(texts(faces.face_sheet(images, titles, columns=4)))


def test_no_global_state_of_matplotlib_is_touched():
    from matplotlib import pyplot

    figures = [curves.learning_curves(history(3)), sweep_figures.objective_over_trials([0.5])]
    assert all(texts(figure) for figure in figures)
    assert pyplot.get_fignums() == []
