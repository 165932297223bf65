"""What is taken for what: the confusion matrix, and the errors of each emotion."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fer_experiments.evaluation.style import scored_images
from fer_experiments.terminal import counted


def confusion_matrix(matrix: np.ndarray, classes: Sequence[str], repeats: int = 1) -> Figure:
    """Counts, and percentages of each true class, which also colour the cells.

    Args:
        matrix: int [k, k], rows the true class (`metrics.confusion`).
        classes: k names.
        repeats: how many fits have scored each image.
    """
    matrix, k = np.asarray(matrix), len(classes)
    totals = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    width = 3.6 + 0.95 * max(k, 2)
    figure = Figure(figsize=(width, width - 1.0), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        text = f"{count:,}\n{share[row, column]:.1%}"
        colour = "white" if share[row, column] > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=11 if k < 5 else 8.5)
    names = [textwrap.fill(name, 14) for name in classes]
    sums = [f"{name}\n({int(total):,})" for name, total in zip(names, totals[:, 0], strict=True)]
    axes.set_xticks(range(k), names, rotation=40 if k > 3 else 0, ha="right" if k > 3 else "center")
    axes.set_yticks(range(k), sums)
    axes.set(xlabel="predicted class", ylabel="true class (images)")
    accuracy = matrix.trace() / max(matrix.sum(), 1)
    figure.suptitle(f"Confusion matrix: {scored_images(matrix.sum(), repeats)}, accuracy {accuracy:.2%}", fontsize=11)
    figure.colorbar(image, ax=axes, label="share of the true class", format=PercentFormatter(1), shrink=0.8)
    return figure


def emotion_errors(table: pd.DataFrame) -> Figure:
    """A row an emotion, a column a class: the share of its images that is taken for that class.

    Mistakes are coloured; the shares that are right are bold.

    Args:
        table: as `metrics.emotion_errors` makes it.
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
