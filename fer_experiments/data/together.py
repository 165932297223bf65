"""Training and validation images together: what is fitted on when nothing is left to choose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fer_experiments.config import TRAIN_VAL, DataConfig
from fer_experiments.data.dataset import Dataset
from fer_experiments.data.folds import class_weight
from fer_experiments.data.splits import undersample


def train_and_val(dataset: Dataset, cfg: DataConfig) -> Dataset:
    """Return the same with the images of both splits to train on, and none for validation.

    Balanced as cfg says: weighed by what there is of each class in both, or as many drawn of each as of the smallest.
    """
    rng = np.random.Generator(np.random.PCG64(cfg.seed))
    both, labels = np.union1d(dataset.train, dataset.val), dataset.labels
    rows = undersample(both, labels, dataset.classes, replace(cfg, per_class=None), rng)
    counts = np.bincount(labels[rows], minlength=len(dataset.classes)).tolist()
    told = {part: of for part, of in dataset.counts.items() if part == "test"}
    return replace(
        dataset,
        train=rows,
        val=rows[:0],
        folds=(),
        class_weight=dataset.class_weight and class_weight(labels[rows]),
        counts={TRAIN_VAL: dict(zip(dataset.classes, counts, strict=True)), **told},
    )
