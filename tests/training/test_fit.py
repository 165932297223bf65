"""Fits on stored features."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from in_memory import blobs

from fer_experiments.config import HeadConfig, TrainingConfig
from fer_experiments.training.fit import FeatureBatches, FitError, feature_moments, fit_head, forget, predict

LINEAR = HeadConfig(name="linear", l2=0.0, dropout=0.0, normalize=True)
FAST = TrainingConfig(epochs=6, batch_size=32, learning_rate=0.02, patience=10)


def test_a_head_learns_and_its_history_is_named_as_it_is_logged():
    features, dataset = blobs(2)
    fit = fit_head(features, dataset, LINEAR, FAST)
    assert list(fit.history.columns) == ["train/loss", "train/accuracy", "val/loss", "val/accuracy", "learning_rate"]
    assert list(fit.history.index) == list(range(6))
    assert fit.val_probabilities.shape == (100, 2)
    np.testing.assert_allclose(fit.val_probabilities.sum(axis=1), 1, atol=1e-5)
    assert (fit.val_probabilities.argmax(axis=1) == dataset.labels[dataset.val]).mean() > 0.8


def test_seven_classes_give_seven_probabilities():
    features, dataset = blobs(7)
    fit = fit_head(features, dataset, LINEAR, FAST)
    assert fit.val_probabilities.shape == (100, 7)
    np.testing.assert_allclose(fit.val_probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_the_best_epochs_weights_are_restored(monitor: str):
    features, dataset = blobs(2, n=120)
    single = replace(features, arrays={"original": features.arrays["original"]})
    wild = replace(FAST, learning_rate=0.5, epochs=12, patience=3, monitor=monitor)
    fit = fit_head(single, dataset, replace(LINEAR, l2=1e-3), wild)
    accuracy = (fit.val_probabilities.argmax(axis=1) == dataset.labels[dataset.val]).mean()
    assert accuracy == pytest.approx(fit.history["val/accuracy"][fit.best_epoch], abs=1e-6)


def test_training_stops_when_it_gets_no_better():
    features, dataset = blobs(2, n=90)
    shuffled = replace(dataset, labels=np.random.default_rng(0).permutation(dataset.labels))
    fit = fit_head(features, shuffled, LINEAR, replace(FAST, epochs=100, patience=2, learning_rate=0.3))
    assert len(fit.history) == fit.best_epoch + 3 < 100


def test_the_same_seed_gives_the_same_fit_and_another_another():
    features, dataset = blobs(2)
    head = HeadConfig(name="pooled", dense_widths=[8], dropout=0.5)
    fits = [fit_head(features, dataset, head, replace(FAST, epochs=2, seed=s)).val_probabilities for s in (1, 1, 2)]
    np.testing.assert_array_equal(fits[0], fits[1])
    assert not np.array_equal(fits[0], fits[2])


def test_a_loss_that_is_no_number_fails_the_fit():
    features, dataset = blobs(2)
    with pytest.raises(FitError, match="not a number"):
        fit_head(features, dataset, HeadConfig(name="pooled", dense_widths=[8]), replace(FAST, learning_rate=1e38))


def test_class_weights_move_the_decision():
    features, dataset = blobs(2, n=200, seed=3)
    noise = replace(features, arrays={"original": [np.zeros((200, 2), "float16")]})
    head = replace(LINEAR, normalize=False)
    training = replace(FAST, learning_rate=0.5, epochs=3)
    weighted = replace(dataset, class_weight={0: 1.0, 1: 20.0})
    plain, heavy = (fit_head(noise, d, head, training).val_probabilities[:, 1].mean() for d in (dataset, weighted))
    assert heavy > plain + 0.2


def test_moments_are_those_of_the_rows_alone():
    features, dataset = blobs(2)
    (mean, variance) = feature_moments(features, dataset.train, chunk=7)[0]
    rows = features.arrays["original"][0][dataset.train].astype("float64").reshape(-1, 6)
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(variance, rows.var(axis=0), rtol=1e-3)


def test_every_row_comes_once_an_epoch_in_a_new_order():
    features, dataset = blobs(2)
    batches = FeatureBatches(features, dataset.train, dataset.train.astype("float32"), 32, seed=0)
    first = np.concatenate([batches[i][1] for i in range(len(batches))])
    batches.on_epoch_end()
    second = np.concatenate([batches[i][1] for i in range(len(batches))])
    assert sorted(first) == sorted(second) == dataset.train.tolist()
    assert not np.array_equal(first, second)


def test_augmentation_draws_a_view_for_each_image():
    features, dataset = blobs(2)
    marked = replace(
        features,
        arrays={"original": [np.zeros((300, 2), "float16")], "flip": [np.ones((300, 2), "float16")]},
    )
    batches = FeatureBatches(marked, dataset.train, dataset.labels[dataset.train], 200, seed=0)
    share = batches[0][0][0][:, 0].mean()
    assert 0.35 < share < 0.65
    unshuffled = FeatureBatches(marked, dataset.train, dataset.labels[dataset.train], 200, seed=None)
    assert unshuffled[0][0][0].max() == 0


def test_prediction_averages_the_views():
    features, _ = blobs(2, shape=(3,))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])
    rows = np.arange(10)
    both = predict(model, features, rows)
    each = [predict(model, replace(features, arrays={"original": features.arrays[v]}), rows) for v in features.views]
    np.testing.assert_allclose(both, np.mean(each, axis=0), atol=1e-6)


def test_hyperbands_later_rounds_go_on_from_weights():
    features, dataset = blobs(2)
    first = fit_head(features, dataset, LINEAR, replace(FAST, epochs=3))
    second = fit_head(features, dataset, LINEAR, FAST, initial_epoch=3, initial_weights=first.model.get_weights())
    assert list(second.history.index) == [3, 4, 5]
    assert second.history["train/loss"][3] < first.history["train/loss"][0]


def test_fits_leave_no_graphs_behind():
    import gc

    features, dataset = blobs(2, n=60, shape=(3,))
    graphs = []
    for _ in range(4):
        fit_head(features, dataset, LINEAR, replace(FAST, epochs=1))
        forget()
        gc.collect()
        graphs.append(sum(type(thing).__name__ == "FuncGraph" for thing in gc.get_objects()))
    assert graphs[-1] == graphs[1], graphs
