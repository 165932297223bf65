"""Cross-validation: the splits of data.fold=all, in which every fold is kept for validation once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fer_experiments.config import ALL_FOLDS, DataConfig
from fer_experiments.data.splits import Rows

Fold = tuple[np.ndarray, np.ndarray]  # train and val, int64 rows of images, ascending


def each_fold(cfg: DataConfig) -> list[DataConfig]:
    """Return the configs of the splits that are fitted on: of data.fold=all one a fold, else this one."""
    return [replace(cfg, fold=fold) for fold in range(cfg.folds)] if cfg.fold == ALL_FOLDS else [cfg]


def together(folds: list[Rows]) -> Rows:
    """Return the rows that are in any fold's part; the test is the same for all, but for what data.limit draws."""
    if len(folds) == 1:
        return folds[0]
    parts = {part: np.unique(np.concatenate([rows[part] for rows in folds])) for part in ("train", "val")}
    return {**parts, "test": folds[0]["test"]}


def fold_notes(cfg: DataConfig) -> list[str]:
    """Return a line for what the counts of all folds may make a person think."""
    if cfg.fold != ALL_FOLDS:
        return []
    return [
        f"data.fold=all: train and val are those of {cfg.folds} fits; each has trained on other images than it scores"
    ]


def class_weight(labels: np.ndarray) -> dict[int, float]:
    """Return n / (classes * count) for each class, as scikit-learn's "balanced"."""
    counts = np.bincount(labels)
    return {label: len(labels) / (len(counts) * count) for label, count in enumerate(counts.tolist())}
