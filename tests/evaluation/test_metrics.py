import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from fer_experiments.evaluation import metrics, slices


@st.composite
def results(draw):
    """Labels and probabilities of 2 to 7 classes, with ties, absent classes and classes that are never predicted."""
    classes, n = draw(st.integers(2, 7)), draw(st.integers(1, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = random.integers(draw(st.integers(1, classes)), size=n)
    scores = random.integers(1, draw(st.sampled_from([3, 1000])), size=(n, classes)).astype("float64")
    return labels, scores / scores.sum(axis=1, keepdims=True)


def by_definition(labels, probabilities):
    """Every metric as scikit-learn has it; the calibration error, which it has not, bin by bin."""
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    exact = probabilities / probabilities.sum(axis=1, keepdims=True, dtype="float64")  # sklearn warns of float32
    options = (
        {"average": "binary", "pos_label": 1} if classes == 2 else {"average": "macro", "labels": list(range(classes))}
    )
    columns = [c for c in ([1] if classes == 2 else range(classes)) if np.any(labels == c)]
    both = [c for c in columns if not np.all(labels == c)]
    confidence, right = probabilities.max(axis=1).astype("float64"), predicted == labels
    error = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    brier = {"labels": list(range(classes))} if classes > 2 else {"pos_label": 1}
    scores = exact if classes > 2 else exact[:, 1]
    return {
        "accuracy": sk.accuracy_score(labels, predicted),
        "precision": sk.precision_score(labels, predicted, zero_division=0, **options),
        "recall": sk.recall_score(labels, predicted, zero_division=0, **options),
        "f1": sk.f1_score(labels, predicted, zero_division=0, **options),
        "roc_auc": np.mean([sk.roc_auc_score(labels == c, probabilities[:, c]) for c in both]) if both else np.nan,
        "average_precision": np.mean([sk.average_precision_score(labels == c, probabilities[:, c]) for c in columns])
        if columns
        else np.nan,
        "log_loss": sk.log_loss(labels, exact, labels=list(range(classes))),
        "brier_score": sk.brier_score_loss(labels, scores, **brier),
        "expected_calibration_error": error,
    }


@settings(deadline=None)
@given(results())
def test_every_metric_is_that_of_sklearn(result):
    got, wanted = metrics.scores(*result), by_definition(*result)
    assert list(got) == list(wanted)
    for name, value in wanted.items():
        assert got[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name


@settings(deadline=None)
@given(results())
def test_a_resample_is_as_if_its_images_were_there_so_often(result):
    labels, probabilities = result
    rows = np.random.default_rng(0).integers(len(labels), size=(3, len(labels)))
    counts = np.array([np.bincount(chosen, minlength=len(labels)) for chosen in rows], "float64")
    drawn = metrics.Drawn(metrics.Result(labels, probabilities), counts)
    for i, chosen in enumerate(rows):
        for name, value in metrics.scores(labels[chosen], probabilities[chosen]).items():
            assert metrics.METRICS[name](drawn)[i] == pytest.approx(value, abs=1e-12, nan_ok=True), name


def test_a_fit_records_six_of_them():
    labels, probabilities = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]])
    got, known = metrics.classification_metrics(labels, probabilities), metrics.scores(labels, probabilities)
    assert list(got) == ["accuracy", "precision", "recall", "f1", "roc_auc", "loss"]
    assert got == {metrics.recorded_as(name): known[name] for name in metrics.OF_A_FIT}
    assert [metrics.direction(name) for name in ("accuracy", "log_loss")] == ["max", "min"]


@settings(deadline=None)
@given(results())
def test_confusion_is_that_of_sklearn(result):
    labels, probabilities = result
    expected = sk.confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(probabilities.shape[1]))
    np.testing.assert_array_equal(metrics.confusion(labels, probabilities), expected)


def test_the_papers_confusion_matrix_gives_the_papers_metrics():
    labels = np.repeat([0, 0, 1, 1], [1384, 316, 383, 1317])
    predicted = np.repeat([0, 1, 0, 1], [1384, 316, 383, 1317])
    got = metrics.classification_metrics(labels, np.eye(2)[predicted])
    rounded = {name: round(got[name], 4) for name in ("accuracy", "precision", "recall", "f1")}
    assert rounded == {"accuracy": 0.7944, "precision": 0.8065, "recall": 0.7747, "f1": 0.7903}


def test_metrics_of_many_classes_take_little_memory():
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(100, size=1500), random.dirichlet(np.ones(100), size=1500)
    tracemalloc.start()
    try:
        got = metrics.scores(labels, probabilities)
        matrix = metrics.confusion(labels, probabilities)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50e6
    assert got["accuracy"] == pytest.approx(matrix.trace() / 1500)
    predicted = probabilities.argmax(axis=1)
    assert got["f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro", zero_division=0))


def test_a_sure_mistake_costs_a_finite_loss():
    loss = metrics.scores(np.array([0]), np.array([[0.0, 1.0]], "float16"))["log_loss"]
    assert loss == pytest.approx(-np.log(1e-7))


@pytest.mark.parametrize(
    ("labels", "probabilities", "said"),
    [
        (np.array([0, 2]), np.full((2, 2), 0.5), "labels from 0 to 2, but probabilities of 2 classes"),
        (np.array([-1]), np.full((1, 2), 0.5), "labels from -1 to -1, but"),
        (np.array([0, 1]), np.full(2, 0.5), r"probabilities \(2,\): expected \[n\] and \[n, k\]"),
        (np.array([0, 1, 1]), np.full((2, 2), 0.5), r"labels \(3,\) and probabilities \(2, 2\): expected"),
        (np.array([], int), np.empty((0, 2)), r"labels \(0,\) and .*, n > 0"),
    ],
)
def test_results_that_do_not_fit_are_refused(labels, probabilities, said):
    with pytest.raises(ValueError, match=said):
        metrics.classification_metrics(labels, probabilities)


@settings(deadline=None)
@given(results())
def test_curves_are_those_of_sklearn(result):
    labels, probabilities = result
    for c, curve in metrics.Drawn(metrics.Result(labels, probabilities)).curves.items():
        positive, scores = labels == c, probabilities[:, c]
        precision, recall = curve.precision()[0], curve.recall()[0]
        false, true = (rates[0] for rates in curve.roc())
        if not positive.any():
            assert np.isnan(recall).all() and np.isnan(true[-1]) and np.isnan(curve.average_precision()[0])
            continue
        wanted, steps, _ = sk.precision_recall_curve(positive, scores)
        np.testing.assert_allclose([precision, recall], [wanted[:-1][::-1], steps[:-1][::-1]])
        assert curve.average_precision()[0] == pytest.approx(sk.average_precision_score(positive, scores), abs=1e-12)
        if positive.all():
            assert np.isnan(false[-1]) and np.isnan(curve.roc_area()[0])
            continue
        np.testing.assert_allclose([false, true], sk.roc_curve(positive, scores, drop_intermediate=False)[:2])
        assert curve.roc_area()[0] == pytest.approx(sk.roc_auc_score(positive, scores), abs=1e-12)


def calibration_error(labels, probabilities):
    return metrics.scores(labels, probabilities)["expected_calibration_error"]


def test_calibration_error_by_hand():
    # 0.9: two of four right, off by 0.4; 0.6: both right, off by 0.4; 2/3 lies in the bin that ends there.
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)
    labels = np.array([0, 0, 1, 1, 0, 0])
    assert calibration_error(labels, probabilities) == pytest.approx(0.4)
    count, accuracy, confidence = metrics.calibration_bins(labels, probabilities)
    assert (count[13], accuracy[13], confidence[13]) == (4, 0.5, pytest.approx(0.9))
    assert (count[8], accuracy[8]) == (2, 1) and count.sum() == 6 and np.isnan(accuracy[0])
    assert metrics.confidence_bin(np.array([0.0, 1 / 15, 0.07, 1.0])).tolist() == [0, 0, 1, 14]


def test_probabilities_that_mean_what_they_say_are_calibrated():
    random = np.random.default_rng(0)
    sure = random.uniform(0.5, 1, 50_000)
    labels = (random.random(50_000) > sure).astype(int)
    probabilities = np.stack([sure, 1 - sure], axis=1)
    assert calibration_error(labels, probabilities) < 0.01
    assert calibration_error(labels, probabilities**4 / (probabilities**4).sum(1)[:, None]) > 0.1


def test_each_emotion_says_what_it_is_taken_for():
    emotions = np.array(["sad", "angry", "sad", "happy", "sad", "fear", "happy"])
    labels = np.array([0, 0, 0, 1, 0, 0, 1])
    predicted = np.array([1, 0, 0, 1, 0, 0, 0])
    table = slices.emotion_errors(emotions, labels, np.eye(2)[predicted], ("negative", "positive"))
    assert table["emotion"].tolist() == ["angry", "fear", "sad", "happy"]
    assert table["class"].tolist() == ["negative"] * 3 + ["positive"]
    assert table["images"].tolist() == [1, 1, 3, 2]
    assert table["error_rate"].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert table["as positive"].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert table["as negative"].tolist() == pytest.approx([1, 1, 2 / 3, 1 / 2])
