"""Training on pixels where JAX sees several devices; `tests/test_jax.py` runs it so, on a CPU that is taken for two."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from in_memory import make_dataset

from fer_experiments.config import FinetuneConfig
from fer_experiments.training import backends
from fer_experiments.training.pixels import Network, Trained, compile_for, on_devices, train_on_pixels

several = keras.config.backend() == "jax" and backends.of_keras().sharing(2) == 2
pytestmark = pytest.mark.skipif(not several, reason="one device: XLA_FLAGS=--xla_force_host_platform_device_count=2")
DATASET = make_dataset(np.arange(96) % 2, ("no", "yes"))
CONFIG = FinetuneConfig(epochs=2, batch_size=16, learning_rate=0.01, ema=0.9, clip_norm=1.0)


def trained(folder: Path, seen: set[int]) -> Trained:
    """A training of a small network with dropout; seen: takes how many devices have its weights while it trains."""
    keras.utils.set_random_seed(0)
    side = DATASET.images.shape[1]
    layers = [keras.layers.Conv2D(4, 3, strides=4), keras.layers.Flatten(), keras.layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((side, side, 1)), *layers, keras.layers.Dense(2, activation="softmax")])
    compile_for(model, CONFIG)

    def takes(images: np.ndarray) -> np.ndarray:
        seen.add(len(model.trainable_variables[0].value.sharding.device_set))
        return images[..., None] / 255

    def score(weights: dict[str, np.ndarray]) -> np.ndarray:
        said: np.ndarray = model.predict(DATASET.images[DATASET.val][..., None] / 255, verbose=0)
        return said

    weights = lambda: {f"w{i}": value for i, value in enumerate(model.get_weights())}  # noqa: E731
    return train_on_pixels(Network(model, takes, weights, score, "rate"), DATASET, CONFIG, folder, seed=0)


def test_devices_that_share_batches_learn_what_one_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_devices(DATASET, CONFIG) == " on 2 devices"
    shared, alone = set[int](), set[int]()
    together = trained(tmp_path / "together", shared)
    monkeypatch.setattr(backends.of_keras(), "sharing", lambda batch_size: 1)
    one = trained(tmp_path / "one", alone)
    assert (shared, alone) == ({2}, {1})
    for ours, theirs in zip(together.history, one.history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    for name, weight in one.best.items():
        np.testing.assert_allclose(together.best[name], weight, atol=1e-5)


def test_what_does_not_divide_among_devices_is_trained_on_one() -> None:
    assert backends.of_keras().sharing(15) == 1
