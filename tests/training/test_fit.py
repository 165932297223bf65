"""Fits on stored features."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from in_memory import blobs

from fer_experiments.config import HeadConfig, TrainingConfig
from fer_experiments.training import passes, rows
from fer_experiments.training.fit import (
    FitError,
    feature_moments,
    fit_head,
    forget,
    make_reproducible,
    orders,
    predict,
)
from fer_experiments.training.heads import build_head

LINEAR = HeadConfig(name="linear", l2=0.0, dropout=0.0, normalize=True)
FAST = TrainingConfig(epochs=6, batch_size=32, learning_rate=0.02, patience=10, precision="float32")


def test_a_head_learns_and_its_history_is_named_as_it_is_logged():
    features, dataset = blobs(2)
    fit = fit_head(features, dataset, LINEAR, FAST)
    assert list(fit.history.columns) == ["train/loss", "train/accuracy", "val/loss", "val/accuracy", "learning_rate"]
    assert list(fit.history.index) == list(range(6))
    assert fit.val_probabilities.shape == (100, 2)
    np.testing.assert_allclose(fit.val_probabilities.sum(axis=1), 1, atol=1e-5)
    assert (fit.val_probabilities.argmax(axis=1) == dataset.labels[dataset.val]).mean() > 0.8


class Heard(keras.callbacks.Callback):
    """The validation probabilities after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.heard.append((logs or {})["val_probabilities"])
        self.last = epoch + 1 == self.params["epochs"]


@pytest.mark.parametrize("classes", [2, 7])
def test_callbacks_hear_the_probabilities_of_the_validation_images_and_whether_an_epoch_is_the_last(classes: int):
    """From which a loss without penalties can be told."""
    features, dataset = blobs(classes)
    single, heard = replace(features, arrays={"original": features.arrays["original"]}), Heard()
    fit = fit_head(single, dataset, replace(LINEAR, l2=0.1), replace(FAST, monitor="val_accuracy"), callbacks=[heard])
    assert [said.shape for said in heard.heard] == [(100, classes)] * 6 and heard.last
    np.testing.assert_allclose(heard.heard[fit.best_epoch], fit.val_probabilities, atol=1e-5)
    labels = dataset.labels[dataset.val]
    accuracies = [float((said.argmax(axis=1) == labels).mean()) for said in heard.heard]
    assert accuracies == pytest.approx(fit.history["val/accuracy"].tolist(), abs=1e-6)
    losses = [-np.log(np.take_along_axis(said, labels[:, None], axis=1)).mean() for said in heard.heard]
    assert all(loss + 0.01 < whole for loss, whole in zip(losses, fit.history["val/loss"], strict=True))


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


def test_without_validation_rows_every_epoch_is_trained_and_the_last_is_kept():
    features, dataset = blobs(2, n=90)
    others = replace(dataset, labels=np.random.default_rng(0).permutation(dataset.labels), train=np.arange(90))
    everything = replace(others, val=dataset.val[:0])
    impatient = replace(FAST, epochs=9, patience=0, learning_rate=0.3)
    fit = fit_head(features, everything, LINEAR, impatient)
    assert list(fit.history.columns) == ["train/loss", "train/accuracy", "learning_rate"]
    assert (len(fit.history), fit.best_epoch) == (9, 8)
    assert fit.val_probabilities.shape == (0, 2) and fit.val_labels.shape == (0,)
    last = fit_head(features, others, LINEAR, replace(impatient, patience=9), callbacks=[Kept()])
    np.testing.assert_allclose(fit.model.get_weights()[-1], last.model.last[-1], rtol=1e-5)
    assert fit_head(features, others, LINEAR, impatient).history.shape[0] < 9


class Kept(keras.callbacks.Callback):
    """Keeps the weights of the last epoch on the model, before those of the best one come back."""

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.model.last = self.model.get_weights()


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


class Batches(keras.utils.PyDataset):
    """Of arrays in memory for Keras' own loop, which asks for one order that it does not use."""

    def __init__(self, x: list[np.ndarray], y: np.ndarray, size: int, seed: int | None) -> None:
        super().__init__()
        self.x, self.y, self.size = x, y, size
        self.random = None if seed is None else np.random.default_rng(seed)
        self.on_epoch_end()

    def on_epoch_end(self) -> None:
        self.order = self.random.permutation(len(self.y)) if self.random else np.arange(len(self.y))

    def __len__(self) -> int:
        return -(-len(self.y) // self.size)

    def __getitem__(self, index: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        rows = self.order[index * self.size :][: self.size]
        return tuple(array[rows] for array in self.x), self.y[rows]


HEADS = {
    "linear": (LINEAR, {}),
    "pooled": (HeadConfig(name="pooled", l2=1e-2, dense_widths=[8, 4], dropout=0.5), {}),
    "paper": (HeadConfig(name="paper", l2=1e-3, filters=[4], dense_widths=[8], dropout=0.3), {"optimizer": "adamw"}),
    "conv": (HeadConfig(name="conv", l2=1e-3, filters=[4, 8], dropout=0.4, normalize=True), {"optimizer": "sgd"}),
}


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("name", HEADS)
def test_learning_curves_and_weights_are_those_of_keras_own_loop(name: str, classes: int):
    head, options = HEADS[name]
    features, dataset = blobs(classes, n=310)
    both = replace(features, arrays={"original": features.arrays["original"] * 2})  # two cut layers
    features = both if name in ("pooled", "conv") else replace(both, arrays={"original": both.arrays["original"][:1]})
    dataset = replace(dataset, class_weight={i: 1.0 + i for i in range(classes)} if name == "pooled" else None)
    training = replace(FAST, epochs=3, **options)
    ours = fit_head(features, dataset, head, training)

    make_reproducible(training)
    moments = feature_moments(features, dataset.train) if head.normalize else None
    model = build_head(head, features.shapes, classes, moments=moments)
    loss = "binary_crossentropy" if classes == 2 else "sparse_categorical_crossentropy"
    model.compile(ours.model.optimizer.from_config(ours.model.optimizer.get_config()), loss, metrics=["accuracy"])
    labels = dataset.labels.astype("float32").reshape(-1, 1) if classes == 2 else dataset.labels
    train, val = (
        Batches([x[part] for x in features.arrays["original"]], labels[part], training.batch_size, seed)
        for part, seed in ((dataset.train, training.seed), (dataset.val, None))
    )
    theirs = model.fit(
        train, validation_data=val, epochs=3, class_weight=dataset.class_weight, verbose=0, shuffle=False
    )
    for column, name in enumerate(["loss", "accuracy", "val_loss", "val_accuracy"]):
        np.testing.assert_allclose(ours.history.iloc[:, column], theirs.history[name], rtol=1e-4, err_msg=name)
    if ours.best_epoch == 2:  # else its weights were restored
        for one, other in zip(ours.model.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_every_row_comes_once_an_epoch_in_a_new_order():
    drawn = orders(200, 1, 0)
    first, second = next(drawn), next(drawn)
    assert sorted(first) == sorted(second) == list(range(200))
    assert not np.array_equal(first, second)


def test_a_view_is_drawn_for_each_row():
    drawn = orders(300, 3, 0)
    for _ in range(2):
        view, row = np.divmod(next(drawn), 300)
        assert sorted(row) == list(range(300)) and all(70 < count < 130 for count in np.bincount(view, minlength=3))


def test_features_that_do_not_fit_on_the_device_give_the_same_fit(monkeypatch: pytest.MonkeyPatch):
    features, dataset = blobs(7)
    head = HeadConfig(name="pooled", dense_widths=[8], dropout=0.5)
    whole = fit_head(features, dataset, head, FAST)
    monkeypatch.setattr(rows, "_kept", [])
    monkeypatch.setattr(f"fer_experiments.training.backends.{keras.config.backend()}.free_memory", lambda: 0)
    monkeypatch.setattr(passes, "PIECE", 3 * FAST.batch_size * 4 * 4 * 6 * 2)  # three batches, then the rest
    pieces = fit_head(features, dataset, head, FAST)
    assert not any(kept.arrays for kept in rows._kept)
    np.testing.assert_allclose(pieces.history, whole.history, rtol=1e-5)
    np.testing.assert_allclose(pieces.val_probabilities, whole.val_probabilities, rtol=1e-4)


def test_features_stay_on_the_device_for_the_next_fit_on_the_same():
    features, dataset = blobs(2)
    fits = []
    for given in (features, features, blobs(2, seed=1)[0]):
        fits.append(fit_head(given, dataset, LINEAR, FAST).val_probabilities)
        assert len(rows._kept) == 2 and all(kept.features is given for kept in rows._kept)
    np.testing.assert_array_equal(fits[0], fits[1])
    assert not np.allclose(fits[0], fits[2])


def test_places_are_rows_of_views():
    features, _ = blobs(2, n=9)
    chosen = np.array([4, 0, 7])
    taken = rows.Rows(features, chosen).take(np.array([5, 0, 3, 1]))[0]
    original, flip = (features.arrays[view][0] for view in features.views)
    np.testing.assert_array_equal(taken, np.stack([flip[7], original[4], flip[4], original[0]]))


class Slower(keras.callbacks.Callback):
    """Sets another learning rate after an epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.model.optimizer.learning_rate = 0.0


def test_what_a_callback_sets_holds_from_the_next_epoch():
    features, dataset = blobs(2)
    fit = fit_head(features, dataset, LINEAR, replace(FAST, epochs=3), callbacks=[Slower()])
    assert list(fit.history["learning_rate"]) == pytest.approx([0.02, 0.0, 0.0])
    assert fit.history["val/loss"].nunique() == 1


class First(keras.callbacks.Callback):
    """Ends the fit at the first call of an epoch."""

    calls = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.calls += 1
        self.model.stop_training = True


def test_a_callback_may_end_a_fit_within_an_epoch():
    features, dataset = blobs(2)
    fit = fit_head(features, dataset, LINEAR, FAST, callbacks=[first := First()])
    assert first.calls == 1 == len(fit.history) and np.isfinite(fit.history.to_numpy()).all()


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
