"""Sheets of faces: samples of the data, near twins, the worst mistakes of a result."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fer_experiments.data import Dataset


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
    return face_sheet(dataset.images[chosen], titles, columns=per_class)


def near_twins(dataset: Dataset) -> Figure:
    """A sheet of the dataset's sample of near twins, pairs side by side, the least alike first."""
    assert dataset.twins is not None
    return face_sheet(dataset.twins.images, dataset.twins.titles, columns=8)


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
    return face_sheet(images[chosen], titles, columns=8)


def _title(dataset: Dataset, row: int) -> str:
    name, emotion = dataset.classes[dataset.labels[row]], str(dataset.emotions[row])
    return name if name == emotion else f"{name} ({emotion})"


def face_sheet(images: np.ndarray, titles: Sequence[str], columns: int = 8) -> Figure:
    """A grid of faces with their titles.

    Args:
        images: uint8 [n, h, w] gray, or [n, h, w, 3].
        titles: n; may have several lines.
        columns: faces a row.
    """
    columns = max(1, min(columns, len(images)))
    rows = max(1, math.ceil(len(images) / columns))
    height, width = images.shape[1:3]
    gap = math.ceil(width / 12)
    lines = 1 + max((title.count("\n") for title in titles), default=0)
    above = math.ceil(width * (0.05 + 0.15 * lines))
    cell = (height + above, width + gap)
    # One picture: a grid of axes takes seconds to lay out.
    sheet = np.full((rows * cell[0], columns * cell[1] + gap, *images.shape[3:]), 255, np.uint8)
    inches = 1.2 / cell[1]
    figure = Figure(figsize=(sheet.shape[1] * inches, sheet.shape[0] * inches + 0.05))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for i, (image, title) in enumerate(zip(images, titles, strict=True)):
        top, left = i // columns * cell[0] + above, i % columns * cell[1] + gap
        sheet[top : top + height, left : left + width] = image
        axes.text(left + width / 2, top - 0.03 * width, title, ha="center", va="bottom", fontsize=8, linespacing=1)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    return figure
