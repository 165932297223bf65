"""Whether heads that differ in numbers alone are fitted faster together: K of them as one batched model, beside one.

    KERAS_BACKEND=jax python benchmarks/packed.py [--heads 4] [--rounds 3] [--rows 6000]

Adam by hand, an epoch as one `lax.scan`, every head on the same mini-batches with its own weights and learning rate
(`vmap`). Images a second are those of all heads together; no dropout, no validation. The paper's convolution is written
as a product of matrices, whose input the heads share: batched as a convolution it is a grouped one, which XLA runs on a
CPU at a hundredth of the speed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np

from fer_experiments.config.compose import compose
from fer_experiments.training.heads import build_head

CASES = {"pooled, batch 32": ("pooled", (1536,), 32), "paper, batch 128": ("paper", (3, 3, 1536), 128)}
EPOCHS = 3


def head_of(name: str, shape: tuple[int, ...]) -> keras.Model:
    """The head, without normalisation and dropout; paper: of `neighbours`, so that its convolution is a product."""
    config = replace(compose([f"head={name}"]).head, normalize=False, dropout=0.0)
    if name != "paper":
        return build_head(config, (shape,), 2)
    pixels = keras.Input((*shape[:2], 9 * shape[2]))
    (filters,) = config.filters
    x = keras.layers.MaxPooling2D(2, padding="same")(keras.layers.Dense(filters, activation="relu")(pixels))
    x = keras.layers.Flatten()(x)
    for width in config.dense_widths:
        x = keras.layers.Dense(width, activation="relu")(x)
    return keras.Model(pixels, keras.layers.Dense(1, activation="sigmoid")(x))


def neighbours(x: Any) -> Any:
    """Of maps [b, h, w, c] the 3x3 around each place, [b, h, w, 9c]."""
    high, wide = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, i : i + high, j : j + wide] for i in range(3) for j in range(3)], axis=-1)


def epoch_of(model: keras.Model, features: Any, labels: Any, batch: int) -> Callable[..., Any]:
    """A function (weights, moments, rate) -> (weights, moments), which goes once through the features."""

    def loss(weights: list[Any], x: Any, y: Any) -> Any:
        given, _ = model.stateless_call(weights, [v.value for v in model.non_trainable_variables], x, training=False)
        return keras.ops.mean(keras.ops.binary_crossentropy(y, given))

    def step(state: Any, rows: Any, rate: Any) -> Any:
        weights, first, second, count = state
        taken = features[rows].astype("float32")
        taken = taken if taken.ndim == 2 else neighbours(taken)
        gradients = jax.grad(loss)(weights, taken, labels[rows])
        count = count + 1
        first = [0.9 * m + 0.1 * g for m, g in zip(first, gradients, strict=True)]
        second = [0.999 * v + 0.001 * g * g for v, g in zip(second, gradients, strict=True)]
        scale = rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        weights = [w - scale * m / (jnp.sqrt(v) + 1e-7) for w, m, v in zip(weights, first, second, strict=True)]
        return (weights, first, second, count), None

    def epoch(state: Any, order: Any, rate: Any) -> Any:
        return jax.lax.scan(lambda s, rows: step(s, rows, rate), state, order.reshape(-1, batch))[0]

    return epoch


def rate_of(model: keras.Model, features: Any, labels: Any, batch: int, heads: int) -> float:
    """Images/s of all heads together, after the epoch that compiles."""
    epoch = epoch_of(model, features, labels, batch)
    weights = [v.value for v in model.trainable_variables]
    zeros = [jnp.zeros_like(w) for w in weights]
    state, rates = (weights, zeros, zeros, jnp.zeros(())), jnp.asarray(1e-3)
    if heads > 1:
        state = jax.tree.map(lambda leaf: jnp.stack([leaf] * heads), state)
        rates = jnp.geomspace(1e-4, 1e-2, heads)
        epoch = jax.vmap(epoch, in_axes=(0, None, 0))
    compiled = jax.jit(epoch)
    random = np.random.default_rng(0)
    ends = []
    for _ in range(EPOCHS + 1):
        order = random.permutation(len(features))[: len(features) // batch * batch]
        state = jax.block_until_ready(compiled(state, jnp.asarray(order), rates))
        ends.append(time.perf_counter())
    return heads * len(order) * EPOCHS / (ends[-1] - ends[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=6000)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, {jax.devices()[0].device_kind}, load {os.getloadavg()[0]:.1f}")
    for name, (head, shape, batch) in CASES.items():
        rows = given.rows if len(shape) == 1 else given.rows // 3
        features = jnp.asarray(np.random.default_rng(0).normal(size=(rows, *shape)).astype("float16"))
        labels = jnp.asarray(np.random.default_rng(1).integers(0, 2, (rows, 1)).astype("float32"))
        model = head_of(head, shape)
        rates = [[rate_of(model, features, labels, batch, k) for k in (1, given.heads)] for _ in range(given.rounds)]
        one, together = (statistics.median(column) for column in zip(*rates, strict=True))
        print(f"{name:20}{one:10,.0f} images/s alone{together:10,.0f} of {given.heads}: {together / one:.2f} times")


if __name__ == "__main__":
    main()
