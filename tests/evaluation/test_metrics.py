import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from fer_experiments.evaluation import metrics


@st.composite
def results(draw):
    """Labels and probabilities of 2 to 7 classes, with ties, absent classes and classes that are never predicted."""
    classes, n = draw(st.integers(2, 7)), draw(st.integers(1, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = random.integers(draw(st.integers(1, classes)), size=n)
    scores = random.integers(1, draw(st.sampled_from([3, 1000])), size=(n, classes)).astype("float64")
    return labels, scores / scores.sum(axis=1, keepdims=True)


@settings(deadline=None)
@given(results())
def test_metrics_are_those_of_sklearn(result):
    labels, probabilities = result
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    got = metrics.classification_metrics(labels, probabilities)
    options = (
        {"average": "binary", "pos_label": 1} if classes == 2 else {"average": "macro", "labels": list(range(classes))}
    )
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "precision": sk.precision_score(labels, predicted, zero_division=0, **options),
        "recall": sk.recall_score(labels, predicted, zero_division=0, **options),
        "f1": sk.f1_score(labels, predicted, zero_division=0, **options),
        "loss": sk.log_loss(labels, probabilities, labels=list(range(classes))),
    }
    columns = [1] if classes == 2 else range(classes)
    areas = [
        sk.roc_auc_score(labels == c, probabilities[:, c]) for c in columns if 0 < np.sum(labels == c) < len(labels)
    ]
    expected["roc_auc"] = np.mean(areas) if areas else np.nan
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, nan_ok=True), name


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


def test_a_sure_mistake_costs_a_finite_loss():
    loss = metrics.cross_entropy(np.array([0]), np.array([[0.0, 1.0]], "float16"))
    assert loss == pytest.approx(-np.log(1e-7))


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        (np.array([0, 2]), np.full((2, 2), 0.5)),
        (np.array([-1]), np.full((1, 2), 0.5)),
        (np.array([0, 1]), np.full(2, 0.5)),
        (np.array([], int), np.empty((0, 2))),
    ],
)
def test_results_that_do_not_fit_are_refused(labels, probabilities):
    with pytest.raises(ValueError):
        metrics.classification_metrics(labels, probabilities)


def test_the_accuracys_interval_is_that_of_drawn_images():
    random = np.random.default_rng(1)
    labels = random.integers(2, size=500)
    probabilities = np.eye(2)[np.where(random.random(500) < 0.9, labels, 1 - labels)]
    exact = metrics.bootstrap_interval(labels, probabilities, resamples=20000)
    drawn = metrics.bootstrap_interval(labels, probabilities, lambda y, p: metrics.accuracy(y, p), resamples=4000)
    assert exact == pytest.approx(drawn, abs=0.004)
    assert exact[0] < metrics.accuracy(labels, probabilities) < exact[1]


def test_the_interval_of_any_metric_repeats_with_its_seed():
    labels = np.arange(200) % 2
    probabilities = np.eye(2)[(np.arange(200) * 7 % 10 > 2) * labels]
    results = [metrics.bootstrap_interval(labels, probabilities, metrics.cross_entropy, seed=s) for s in (3, 3, 4)]
    assert results[0] == results[1] != results[2]


def test_a_wider_level_is_a_wider_interval():
    labels = np.arange(300) % 3
    probabilities = np.eye(3)[np.where(np.arange(300) % 5, labels, 0)]
    wide, narrow = (metrics.bootstrap_interval(labels, probabilities, level=level) for level in (0.99, 0.8))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_average_precision_is_that_of_sklearn_with_ties():
    random = np.random.default_rng(0)
    for scores in (random.random(300), random.integers(4, size=300) / 4):
        positive = random.random(300) < 0.3
        wanted = sk.average_precision_score(positive, scores)
        assert metrics.average_precision(positive, scores) == pytest.approx(wanted)
        precision, recall, _ = sk.precision_recall_curve(positive, scores)
        points = metrics.pr_points(positive, scores)
        np.testing.assert_allclose(points, (recall[:-1][::-1], precision[:-1][::-1]))
    assert np.isnan(metrics.average_precision(np.zeros(5, bool), np.arange(5.0)))


@settings(deadline=None)
@given(results())
def test_brier_score_is_that_of_sklearn(result):
    labels, probabilities = result
    classes = probabilities.shape[1]
    if classes == 2:
        wanted = sk.brier_score_loss(labels, probabilities[:, 1], pos_label=1)
    else:
        wanted = sk.brier_score_loss(labels, probabilities, labels=list(range(classes)))
    assert metrics.brier_score(labels, probabilities) == pytest.approx(wanted)


def test_calibration_error_by_hand():
    # 0.9: two of four right, off by 0.4; 0.6: both right, off by 0.4; 2/3 lies in the bin that ends there.
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)
    labels = np.array([0, 0, 1, 1, 0, 0])
    assert metrics.expected_calibration_error(labels, probabilities) == pytest.approx(0.4)
    count, accuracy, confidence = metrics.calibration_bins(labels, probabilities)
    assert (count[13], accuracy[13], confidence[13]) == (4, 0.5, pytest.approx(0.9))
    assert (count[8], accuracy[8]) == (2, 1) and count.sum() == 6 and np.isnan(accuracy[0])
    assert metrics.confidence_bin(np.array([0.0, 0.5, 0.51, 1.0]), 2).tolist() == [0, 0, 1, 1]


def test_probabilities_that_mean_what_they_say_are_calibrated():
    random = np.random.default_rng(0)
    sure = random.uniform(0.5, 1, 50_000)
    labels = (random.random(50_000) > sure).astype(int)
    probabilities = np.stack([sure, 1 - sure], axis=1)
    assert metrics.expected_calibration_error(labels, probabilities) < 0.01
    assert metrics.expected_calibration_error(labels, probabilities**4 / (probabilities**4).sum(1)[:, None]) > 0.1


def test_mcnemar_counts_the_images_that_only_one_has_right():
    labels = np.zeros(100, int)
    first, second = (np.eye(2)[np.array(wrong)] for wrong in ([0] * 90 + [1] * 10, [1] * 2 + [0] * 98))
    got = metrics.mcnemar(labels, first, second)
    assert (got.only_first, got.only_second) == (2, 10)
    # Twice the binomial tail: (C(12,0) + C(12,1) + C(12,2)) / 2**12.
    assert got.p_value == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert metrics.mcnemar(labels, second, first).p_value == got.p_value
    assert metrics.mcnemar(labels, first, first) == metrics.McNemar(0, 0, 1.0)


def test_each_emotion_says_what_it_is_taken_for():
    emotions = np.array(["sad", "angry", "sad", "happy", "sad", "fear", "happy"])
    labels = np.array([0, 0, 0, 1, 0, 0, 1])
    predicted = np.array([1, 0, 0, 1, 0, 0, 0])
    table = metrics.emotion_errors(emotions, labels, np.eye(2)[predicted], ("negative", "positive"))
    assert table["emotion"].tolist() == ["angry", "fear", "sad", "happy"]
    assert table["class"].tolist() == ["negative"] * 3 + ["positive"]
    assert table["images"].tolist() == [1, 1, 3, 2]
    assert table["error_rate"].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert table["as positive"].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert table["as negative"].tolist() == pytest.approx([1, 1, 2 / 3, 1 / 2])
