"""Small real things that several tests build on: a dataset and features that live in memory."""

from __future__ import annotations

import numpy as np

from fer_experiments.data import Dataset
from fer_experiments.features.cache import Unstored


def make_dataset(labels: np.ndarray, classes: tuple[str, ...], class_weight: dict[int, float] | None = None) -> Dataset:
    """A dataset of noise with these labels; every third image is for validation."""
    n = len(labels)
    rows = np.arange(n)
    names = np.array(classes)[labels]
    return Dataset(
        images=np.random.default_rng(0).integers(0, 256, (n, 48, 48), dtype=np.uint8),
        labels=labels.astype("int64"),
        emotions=names,
        ids=np.array([f"image-{i}" for i in range(n)]),
        usage=np.full(n, ""),
        train=rows[rows % 3 != 2],
        val=rows[rows % 3 == 2],
        classes=classes,
        class_weight=class_weight,
        task="test",
        source="test",
        counts={},
        cleaning={},
        fingerprint="d" * 64,
        images_fingerprint="i" * 64,
    )


def blobs(classes: int, n: int = 300, shape: tuple[int, ...] = (4, 4, 6), seed: int = 0) -> tuple[Unstored, Dataset]:
    """Features that carry their class in the channels' means, with noise enough for mistakes; two views."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    means = random.normal(0, 1, (classes, shape[-1]))
    views = {
        view: [
            (means[labels].reshape(n, *[1] * (len(shape) - 1), -1) + random.normal(0, 1.5, (n, *shape))).astype(
                "float16"
            )
        ]
        for view in ("original", "flip")
    }
    return Unstored(views), make_dataset(labels, tuple(f"class{i}" for i in range(classes)))
