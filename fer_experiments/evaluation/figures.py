"""What is taken for what: the confusion matrix, and the errors of each emotion."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fer_experiments.evaluation.style import scored_images, text_size
from fer_experiments.terminal import counted

LARGEST = 16.0  # inches of a matrix: each more is 100 pixels
MANY = 20  # classes: of more the cells hold no count and share, and no name has several lines


def confusion_matrix(matrix: np.ndarray, classes: Sequence[str], repeats: int = 1) -> Figure:
    """Counts, and percentages of each true class, which also colour the cells; of many classes the colours alone.

    Args:
        matrix: int [k, k], rows the true class (`metrics.confusion`).
        classes: k names.
        repeats: how many fits have scored each image.
    """
    matrix, k = np.asarray(matrix), len(classes)
    totals = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    side, small = min(0.9 * k + 1.2, LARGEST), k > MANY
    if small:
        names = [name if len(name) <= 24 else f"{name[:23]}…" for name in classes]
        sums = [f"{name} ({int(total):,})" for name, total in zip(names, totals[:, 0], strict=True)]
    else:
        names = [textwrap.fill(name, 14) for name in classes]
        sums = [f"{name}\n({int(total):,})" for name, total in zip(names, totals[:, 0], strict=True)]
    accuracy = matrix.trace() / max(matrix.sum(), 1)
    title = f"Confusion matrix: {scored_images(matrix.sum(), repeats)}, accuracy {accuracy:.2%}"
    turned: dict[str, Any] = {"rotation": 90 if small else 40, "ha": "center" if small else "right"} if k > 3 else {}
    font: dict[str, Any] = {"fontsize": min(10.0, 60 * side / k)}
    # A layout of matplotlib's own measures all of it six times, longer than drawing takes: each text is measured once.
    figure = Figure()
    left = 0.5 + max(text_size(figure, text, **font)[0] for text in sums)
    bottom = 0.5 + max(text_size(figure, text, **turned, **font)[1] for text in names)
    width = max(left + side + 1.2, text_size(figure, title, fontsize=11)[0] + 0.3)
    height = bottom + side + 0.45
    figure.set_size_inches(width, height)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix) if not small else ():
        text = f"{count:,}\n{share[row, column]:.1%}"
        colour = "white" if share[row, column] > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=11 if k < 5 else 8.5)
    axes.set_xticks(range(k), names, **turned, **font)
    axes.set_yticks(range(k), sums, **font)
    axes.set(xlabel="predicted class", ylabel="true class (images)")
    figure.suptitle(title, fontsize=11, y=1 - 0.1 / height)
    bar = figure.add_axes(
        ((left + side + 0.15) / width, (bottom + 0.1 * side) / height, 0.18 / width, 0.8 * side / height)
    )
    figure.colorbar(image, cax=bar, label="share of the true class", format=PercentFormatter(1))
    return figure


def emotion_errors(table: pd.DataFrame) -> Figure:
    """A row an emotion, a column a class: the share of its images that is taken for that class.

    Mistakes are coloured; the shares that are right are bold.

    Args:
        table: as `slices.emotion_errors` makes it.
    """
    classes = [str(column).removeprefix("as ") for column in table if str(column).startswith("as ")]
    shares = table[[f"as {name}" for name in classes]].to_numpy("float64")
    own = np.array([[name == mine for name in classes] for mine in table["class"]])
    rows, k = shares.shape
    figure = Figure(figsize=(3.8 + 0.95 * max(k, 2), 1.7 + 0.52 * max(rows, 2)), layout="constrained")
    axes = figure.subplots()
    wrong = np.where(own, 0, shares)
    most = max(float(wrong.max(initial=0)), 0.2)  # few mistakes are not made to look like many
    image = axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=most, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if wrong[row, column] > 0.6 * most else "black"
        weight = "bold" if own[row, column] else "normal"
        axes.text(
            column,
            row,
            f"{share:.1%}",
            ha="center",
            va="center",
            fontsize=11 if k < 5 else 8.5,
            color=colour,
            weight=weight,
        )
    names = zip(table["emotion"], table["images"], strict=True)
    axes.set_yticks(range(rows), [f"{textwrap.fill(str(emotion), 16)} ({count:,})" for emotion, count in names])
    axes.set_xticks(range(k), [textwrap.fill(name, 14) for name in classes])
    if k > 3:
        axes.tick_params(axis="x", rotation=40)
    axes.set(xlabel="predicted class", ylabel="true emotion (images)")
    figure.suptitle(f"What each emotion is taken for: {counted(int(table['images'].sum()), 'image')}", fontsize=11)
    figure.colorbar(image, ax=axes, label="share taken wrongly", format=PercentFormatter(1, decimals=0), shrink=0.9)
    return figure
