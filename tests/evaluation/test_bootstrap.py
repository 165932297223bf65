import numpy as np
import pytest
from hypothesis import given, settings
from sklearn import metrics as sk
from test_metrics import results

from fer_experiments.evaluation import bootstrap, metrics


def sure_and_unsure(classes, n, seed=0, noise=1.0):
    """Labels, and probabilities that are more often right than not."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=n)
    scores = np.exp(random.normal(size=(n, classes)) * noise + 2 * np.eye(classes)[labels])
    return labels, (scores / scores.sum(axis=1, keepdims=True)).astype("float32")


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


@settings(max_examples=40)
@given(results())
def test_every_metric_is_that_of_sklearn(result):
    labels, probabilities = result
    got = bootstrap.evaluate(labels, probabilities, resamples=2)
    wanted = by_definition(labels, probabilities)
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert got[name].value == pytest.approx(value, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize("classes", [2, 7])
def test_an_interval_is_the_quantiles_over_images_that_are_really_drawn(classes):
    labels, probabilities = sure_and_unsure(classes, 60)  # some resamples lack a class
    random = np.random.default_rng(5)
    rows = [random.integers(60, size=60) for _ in range(120)]  # as _resamples draws them: CHUNK rows, then the rest
    drawn = [by_definition(labels[chosen], probabilities[chosen]) for chosen in rows]
    for name, interval in bootstrap.evaluate(labels, probabilities, resamples=120, seed=5).items():
        wanted = np.nanquantile([each[name] for each in drawn], [0.025, 0.975])
        assert (interval.low, interval.high) == pytest.approx(tuple(wanted), abs=1e-6), name


def test_values_are_those_that_every_run_records():
    labels, probabilities = sure_and_unsure(7, 500)
    got = bootstrap.evaluate(labels, probabilities, resamples=2)
    for name, value in metrics.classification_metrics(labels, probabilities).items():
        assert got["log_loss" if name == "loss" else name].value == pytest.approx(value)


def test_the_true_accuracy_lies_in_95_of_100_intervals():
    hits = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        labels = random.integers(2, size=200)
        probabilities = np.eye(2)[np.where(random.random(200) < 0.9, labels, 1 - labels)]
        interval = bootstrap.evaluate(labels, probabilities, resamples=200, seed=seed)["accuracy"]
        hits += interval.low <= 0.9 <= interval.high
    assert 88 <= hits <= 99


def test_a_metric_without_a_meaning_has_no_interval():
    got = bootstrap.evaluate(np.ones(10, int), np.full((10, 2), 0.5), resamples=50)
    assert np.isnan([got["roc_auc"].value, got["roc_auc"].low, got["roc_auc"].high]).all()
    assert got["average_precision"].value == 1


def test_results_repeat_with_their_seed():
    labels, probabilities = sure_and_unsure(3, 100)
    first, again, other = (bootstrap.evaluate(labels, probabilities, resamples=200, seed=s) for s in (3, 3, 4))
    assert first == again
    assert first["f1"].value == other["f1"].value and first["f1"].low != other["f1"].low


def test_a_better_result_is_told_from_chance():
    labels, good = sure_and_unsure(2, 800)
    worse = 0.5 + (good - 0.5) * np.where(np.arange(800) % 5, 1, -1)[:, None]  # every fifth is turned round
    for metric in ("accuracy", "roc_auc", "log_loss", "brier_score"):
        better = bootstrap.paired_bootstrap(labels, good, worse, metric, resamples=200)
        assert better.p_value < 0.02, metric
        assert better.low <= better.value <= better.high
        assert (better.high < 0) if metric in bootstrap.LOWER_IS_BETTER else (better.low > 0), metric
        assert bootstrap.paired_bootstrap(labels, worse, good, metric, resamples=200).p_value > 0.95


def test_equal_results_differ_by_nothing():
    labels, probabilities = sure_and_unsure(3, 100)
    same = bootstrap.paired_bootstrap(labels, probabilities, probabilities, "f1", resamples=200)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_pairing_tells_apart_what_two_intervals_cannot():
    labels, good = sure_and_unsure(2, 1000, noise=2.0)
    right = np.flatnonzero(good.argmax(axis=1) == labels)
    worse = good.copy()
    worse[right[:8]] = worse[right[:8], ::-1]  # eight images more are wrong
    ours, theirs = (bootstrap.evaluate(labels, p)["accuracy"] for p in (good, worse))
    assert ours.low < theirs.value and theirs.high > ours.value
    assert bootstrap.paired_bootstrap(labels, good, worse).p_value < 0.01


def test_an_unknown_metric_and_results_that_do_not_fit_are_refused():
    labels, probabilities = sure_and_unsure(2, 20)
    with pytest.raises(ValueError, match="choose one of accuracy, precision"):
        bootstrap.paired_bootstrap(labels, probabilities, probabilities, "acuracy")
    with pytest.raises(ValueError):
        bootstrap.paired_bootstrap(labels, probabilities, probabilities[:-1])
    with pytest.raises(ValueError):
        bootstrap.evaluate(labels + 5, probabilities)
