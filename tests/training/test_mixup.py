"""Labels that are smoothed and rows that are mixed, in fits on stored features."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from in_memory import blobs

from fer_experiments.config import HeadConfig, TrainingConfig
from fer_experiments.training.fit import fit_head, make_reproducible, orders
from fer_experiments.training.heads import build_head

PLAIN = HeadConfig(name="linear", l2=0.0, dropout=0.0, normalize=False)


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize(("smoothing", "mixup"), [(0.2, 0.0), (0.0, 0.4), (0.2, 0.4)])
def test_labels_are_smoothed_and_rows_mixed(classes: int, smoothing: float, mixup: float):
    features, dataset = blobs(classes, n=310)
    features = replace(features, arrays={"original": features.arrays["original"]})
    training = TrainingConfig(epochs=1, batch_size=310, learning_rate=1e-9, label_smoothing=smoothing, mixup=mixup)
    fit = fit_head(features, dataset, PLAIN, training)

    make_reproducible(training)
    model = build_head(PLAIN, features.shapes, classes)
    order = next(orders(len(dataset.train), 1, 0))
    rows_of_all = dataset.train[order]
    x, targets = features.arrays["original"][0][rows_of_all].astype("float32"), np.eye(classes)[dataset.labels]
    share = np.random.default_rng([0, 1]).beta(mixup, mixup, len(order))[order] if mixup else np.ones(len(order))
    share = np.maximum(share, 1 - share)[:, None].astype("float32")
    x = share.reshape(-1, *[1] * (x.ndim - 1)) * x + (1 - share).reshape(-1, *[1] * (x.ndim - 1)) * x[::-1]
    soft = share * targets[rows_of_all] + (1 - share) * targets[rows_of_all][::-1]
    soft = (1 - smoothing) * soft + smoothing / classes
    outputs = keras.ops.convert_to_numpy(model(x))
    outputs = np.concatenate([1 - outputs, outputs], axis=1) if classes == 2 else outputs
    loss = -np.mean(np.sum(soft * np.log(outputs), axis=1))
    np.testing.assert_allclose(fit.history["train/loss"][0], loss, rtol=1e-4)
    right = np.mean(outputs.argmax(axis=1) == dataset.labels[rows_of_all])
    assert fit.history["train/accuracy"][0] == pytest.approx(right, abs=1e-6)
    said = -np.mean(np.log(fit.val_probabilities[np.arange(len(fit.val_labels)), fit.val_labels]))
    assert fit.history["val/loss"][0] == pytest.approx(said, rel=1e-4)  # of labels as they are
