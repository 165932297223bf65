"""The rates of the one loop that trains on pixels; `test_finetuning` and `test_pretrain` hold the rest of it."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest

from fer_experiments.config import PixelsConfig
from fer_experiments.training.optimizer import build_optimizer
from fer_experiments.training.pixels import _rate, _weighed, compile_for

CONSTANT = PixelsConfig(schedule="constant", warmup_epochs=0, learning_rate=0.1, floor=1e-6)


def rates(config: PixelsConfig, losses: list[float], steps: int = 4) -> list[float]:
    """Of the steps of the epoch after epochs with these losses."""
    rate = _rate(config, steps, [{"val/loss": loss} for loss in losses])
    return [rate(len(losses) * steps + step) for step in range(steps)]


def test_a_rate_is_warmed_up_to_and_stays_or_goes_down_to_nothing() -> None:
    warmed = replace(CONSTANT, warmup_epochs=2, epochs=6)
    assert rates(warmed, []) == pytest.approx([0, 0.0125, 0.025, 0.0375])
    assert rates(warmed, [1.0] * 5) == pytest.approx([0.1] * 4)
    cosine = replace(warmed, schedule="cosine")
    assert rates(cosine, [1.0] * 4)[0] == pytest.approx(0.05)
    assert rates(cosine, [1.0] * 6)[0] == pytest.approx(0, abs=1e-8)


def test_a_rate_is_dropped_every_so_many_epochs() -> None:
    stepped = replace(CONSTANT, drop=0.5, drop_epochs=2)
    assert [rates(stepped, [1.0] * n)[0] for n in range(5)] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025])


@pytest.mark.parametrize(
    ("losses", "drops"),
    [([3, 2, 1], 0), ([1, 1], 0), ([1, 2, 3], 1), ([1, 2, 3, 3], 1), ([1, 2, 3, 3, 3], 2), ([1, 2, 3, 0.5, 1], 1)],
)
def test_a_rate_is_dropped_after_so_many_epochs_without_a_better_one(losses: list[float], drops: int) -> None:
    assert rates(replace(CONSTANT, drop=0.1, drop_patience=2), losses)[0] == pytest.approx(0.1 * 0.1**drops)


def test_drops_end_at_the_floor_and_raise_no_rate() -> None:
    floored = replace(CONSTANT, drop=0.1, drop_epochs=1, floor=0.02)
    assert rates(floored, [1.0] * 3)[0] == pytest.approx(0.02)
    assert rates(replace(floored, floor=1.0), [1.0] * 3)[0] == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_each_variable_learns_at_its_own_rate(name: str) -> None:
    def moved(scales: list[float] | None) -> list[float]:
        variables = [keras.Variable([1.0]), keras.Variable([1.0])]
        optimizer = build_optimizer(name, 0.1, scales=scales)
        optimizer.build(variables)
        optimizer.apply([keras.ops.ones(1), keras.ops.ones(1)])
        return [1 - float(keras.ops.convert_to_numpy(variable)[0]) for variable in variables]

    whole = moved(None)
    decay = 0.1 * 0.004 if name == "adamw" else 0.0  # of weights, at the whole rate
    assert np.subtract(moved([0.25, 1.0]), decay) == pytest.approx(np.subtract(whole, decay) * [0.25, 1.0], rel=1e-4)


def test_weights_decay_whatever_their_layer_is_called() -> None:
    pixels = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(2, 3, name="betatron")(pixels)
    x = keras.layers.BatchNormalization(name="against")(x)
    model = keras.Model(pixels, keras.layers.Dense(2, name="biased")(keras.layers.Flatten()(x)))
    compile_for(model, PixelsConfig(learning_rate=0.1, weight_decay=0.5, ema=0))
    before = [np.ones(v.shape) for v in model.trainable_variables]
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    model.optimizer.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables])
    left = {v.path: keras.ops.convert_to_numpy(v).mean() for v in model.trainable_variables}
    assert len(before) == 6
    decayed = {path for path, mean in left.items() if mean == pytest.approx(1 - 0.1 * 0.5)}
    assert decayed == {"betatron/kernel", "biased/kernel"}
    assert all(left[path] == 1 for path in left.keys() - decayed)


def test_each_label_of_a_mixed_image_counts_by_the_weight_of_its_class() -> None:
    labels, weights = np.array([[1, 0], [0, 1], [0.5, 0.5]], "float32"), np.array([0.25, 4], "float32")
    said = np.array([0.3, 0.7])
    targets, each = _weighed(labels, weights)
    ours = -(targets * np.log(said)).sum(axis=1) * each
    np.testing.assert_allclose(ours, -(labels * weights * np.log(said)).sum(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(targets[:2], labels[:2])
    assert _weighed(labels, None) == (labels, None)
