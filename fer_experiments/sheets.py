"""Tables and sheets of faces: what every run records of its data, and the worst mistakes of a result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fer_experiments import plots
from fer_experiments.config import Config, cache_dir
from fer_experiments.data import Dataset, describe, load_dataset


def counts_table(dataset: Dataset) -> pd.DataFrame:
    """A row a split, a column a class."""
    return pd.DataFrame(dataset.counts).T.rename_axis("split").reset_index()


def sample_faces(dataset: Dataset, per_class: int = 8) -> Figure:
    """A sheet of training faces, a row a class, spread over the split."""
    chosen: list[int] = []
    for label in range(len(dataset.classes)):
        rows = dataset.train[dataset.labels[dataset.train] == label]
        chosen += rows[np.linspace(0, len(rows) - 1, min(per_class, len(rows))).astype(int)].tolist()
    titles = [_title(dataset, row) for row in chosen]
    return plots.face_sheet(dataset.images[chosen], titles, columns=per_class)


def near_twins(dataset: Dataset) -> Figure:
    """A sheet of the dataset's sample of near twins, pairs side by side, the least alike first."""
    assert dataset.twins is not None
    return plots.face_sheet(dataset.twins.images, dataset.twins.titles, columns=8)


def worst_mistakes(
    images: np.ndarray,
    emotions: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    count: int = 40,
) -> Figure:
    """A sheet of the wrongly classified faces that the model was surest of, the surest first.

    Each says the true class, the emotion where that is another word, and then the class it is taken for and how surely.

    Args:
        images: uint8 [n, h, w] or [n, h, w, 3]. emotions: str [n]. labels: int [n]. probabilities: float [n, k].
        classes: k names.
        count: faces at most.
    """
    predicted, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    chosen = wrong[np.argsort(-sure[wrong], kind="stable")][:count].tolist()
    if not chosen:
        figure = Figure(figsize=(4, 1))
        figure.text(0.5, 0.5, f"no mistake in {len(labels):,} images", ha="center", va="center")
        return figure
    titles = []
    for row in chosen:
        true, taken = classes[labels[row]], classes[predicted[row]]
        emotion = str(emotions[row])
        truth = true if true == emotion else f"{true} ({emotion})"
        titles.append(f"{truth}\nas {taken} {math.floor(1000 * sure[row]) / 10:.1f} %")
    return plots.face_sheet(images[chosen], titles, columns=8)


def show_data(config: Config) -> None:
    """Prints the counts, what cleaning removed and why, and the fingerprint; writes sheets under paths.cache."""
    dataset = load_dataset(config.data, smoke=config.training.smoke, cache=cache_dir(config))
    print(describe(dataset))
    sheet = cache_dir(config) / "data" / f"{config.data.task}-{dataset.fingerprint[:8]}.png"
    sheets: dict[str, tuple[Path, Callable[[Dataset], Figure]]] = {"sample faces": (sheet, sample_faces)}
    if dataset.twins:
        sheets["near twins"] = (sheet.with_name(f"{sheet.stem}-near-twins.png"), near_twins)
    for name, (path, draw) in sheets.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(dataset).savefig(path)
            print(f"{name}: {path}")
        except OSError as error:
            print(f"{name}: not written, {path.parent}: {error.strerror or error}; paths.cache=<folder> is another")


def _title(dataset: Dataset, row: int) -> str:
    name, emotion = dataset.classes[dataset.labels[row]], str(dataset.emotions[row])
    return name if name == emotion else f"{name} ({emotion})"
