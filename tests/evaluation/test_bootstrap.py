import numpy as np
import pytest
from test_metrics import by_definition

from fer_experiments.evaluation import bootstrap, metrics


def sure_and_unsure(classes, n, seed=0, noise=1.0):
    """Labels, and probabilities that are more often right than not."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=n)
    scores = np.exp(random.normal(size=(n, classes)) * noise + 2 * np.eye(classes)[labels])
    return labels, (scores / scores.sum(axis=1, keepdims=True)).astype("float32")


@pytest.mark.parametrize("classes", [2, 7])
def test_an_interval_is_the_quantiles_over_images_that_are_really_drawn(classes):
    labels, probabilities = sure_and_unsure(classes, 60)  # some resamples lack a class
    random = np.random.default_rng(5)
    rows = [random.integers(60, size=60) for _ in range(120)]  # as _resamples draws them: CHUNK rows, then the rest
    drawn = [by_definition(labels[chosen], probabilities[chosen]) for chosen in rows]
    for name, interval in bootstrap.evaluate(labels, probabilities, resamples=120, seed=5).items():
        wanted = np.nanquantile([each[name] for each in drawn], [0.025, 0.975])
        assert (interval.low, interval.high) == pytest.approx(tuple(wanted), abs=1e-6), name


def test_the_accuracys_interval_is_that_of_drawn_images():
    labels, probabilities = sure_and_unsure(2, 500)
    exact = bootstrap.accuracy_interval(labels, probabilities, resamples=20000)
    drawn = bootstrap.evaluate(labels, probabilities)["accuracy"]
    assert exact == pytest.approx((drawn.low, drawn.high), abs=0.004)
    assert exact[0] < drawn.value < exact[1]
    # As every run has recorded it: 1,000 resamples of seed 0.
    recorded = np.random.default_rng(0).binomial(500, drawn.value, 1000) / 500
    assert bootstrap.accuracy_interval(labels, probabilities) == tuple(np.quantile(recorded, [0.025, 0.975]))


def test_the_true_accuracy_lies_in_95_of_100_intervals():
    hits = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        labels = random.integers(2, size=200)
        probabilities = np.eye(2)[np.where(random.random(200) < 0.9, labels, 1 - labels)]
        interval = bootstrap.evaluate(labels, probabilities, resamples=200, seed=seed)["accuracy"]
        hits += interval.low <= 0.9 <= interval.high
    assert 88 <= hits <= 99


@pytest.mark.parametrize(("right", "low", "high"), [(1, 0.8389, 1.0), (0, 0.0, 0.1611)])
def test_where_all_images_are_right_or_none_an_accuracy_is_not_certain(right: int, low: float, high: float):
    """Of 20 images, by Wilson's interval: 20 / (20 + 1.96 ** 2)."""
    labels = np.arange(20) % 2
    said = np.eye(2)[labels if right else 1 - labels]
    for interval in (bootstrap.accuracy_interval(labels, said), bootstrap.binomial_interval(float(right), 20)):
        assert interval == pytest.approx((low, high), abs=1e-4)
    for images in range(1, 200):
        lower, upper = bootstrap.binomial_interval(float(right), images)
        assert 0 <= lower <= right <= upper <= 1 and upper - lower > 0.01
    found = bootstrap.evaluate(labels, said, resamples=50)["accuracy"]
    assert (found.value, found.low, found.high) == pytest.approx((right, low, high), abs=1e-4)


def test_a_metric_without_a_meaning_has_no_interval():
    got = bootstrap.evaluate(np.ones(10, int), np.full((10, 2), 0.5), resamples=50)
    assert np.isnan([got["roc_auc"].value, got["roc_auc"].low, got["roc_auc"].high]).all()
    assert got["average_precision"].value == 1


def test_resamples_without_a_class_are_no_evidence():
    labels = np.arange(20) == 0
    right = np.column_stack([1.0 - labels, labels]).astype("float32")
    found = bootstrap.paired_bootstrap(labels.astype(int), right, 1 - right, "roc_auc", resamples=2000)
    assert (found.value, found.low, found.high) == (1, 1, 1) and found.p_value < 0.001


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
        assert (better.high < 0) if metric in metrics.LOWER_IS_BETTER else (better.low > 0), metric
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
    with pytest.raises(ValueError, match=r"expected \[n\] and \[n, k\]"):
        bootstrap.paired_bootstrap(labels, probabilities, probabilities[:-1])
    with pytest.raises(ValueError, match="but probabilities of 2 classes"):
        bootstrap.evaluate(labels + 5, probabilities)


def test_mcnemar_counts_the_images_that_only_one_has_right():
    labels = np.zeros(100, int)
    first, second = (np.eye(2)[np.array(wrong)] for wrong in ([0] * 90 + [1] * 10, [1] * 2 + [0] * 98))
    got = bootstrap.mcnemar(labels, first, second)
    assert (got.only_first, got.only_second) == (2, 10)
    # Twice the binomial tail: (C(12,0) + C(12,1) + C(12,2)) / 2**12.
    assert got.p_value == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert bootstrap.mcnemar(labels, second, first).p_value == got.p_value
    assert bootstrap.mcnemar(labels, first, first) == bootstrap.McNemar(0, 0, 1.0)
