"""Figures of one fit: learning curves, confusion matrix, ROC curves; and of data: a sheet of faces."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fer_experiments.metrics import roc_auc, roc_points
from fer_experiments.plots.style import BLACK, BLUE, COLOURS, GRAY, VERMILION, counted, finish


def learning_curves(history: pd.DataFrame, best_epoch: int | None = None) -> Figure:
    """Loss and accuracy of training and validation by epoch.

    Args:
        history: columns train/loss, train/accuracy, val/loss, val/accuracy (those that are there are drawn); its index
            is the epoch.
        best_epoch: marked; by default that of the least val/loss.
    """
    epochs = history.index.to_numpy()
    if best_epoch is None and "val/loss" in history and history["val/loss"].notna().any():
        best_epoch = int(epochs[np.nanargmin(history["val/loss"])])
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle(f"Learning curves: {counted(len(history), 'epoch')}")
    marker = "o" if len(history) <= 30 else None
    labels = {"loss": "loss, penalties included (nats)", "accuracy": "accuracy (share of images)"}
    for axes, quantity in zip(figure.subplots(1, 2), labels, strict=True):
        for split, name, colour, style in (("train", "training", BLUE, "--"), ("val", "validation", VERMILION, "-")):
            if f"{split}/{quantity}" in history:
                series = history[f"{split}/{quantity}"]
                axes.plot(epochs, series, style, color=colour, marker=marker, markersize=3.5, label=name)
        if best_epoch in epochs and f"val/{quantity}" in history:
            value = history[f"val/{quantity}"].to_numpy()[epochs == best_epoch][0]
            axes.axvline(best_epoch, color=GRAY, linewidth=1, linestyle=":")
            axes.plot(best_epoch, value, "*", color=BLACK, markersize=12, label=f"best epoch {best_epoch}: {value:.4f}")
        if len(epochs) == 1:
            axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
        axes.set(xlabel="epoch", ylabel=labels[quantity])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=9)
        finish(axes)
    return figure


def confusion_matrix(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """Counts, and percentages of each true class, which also colour the cells.

    Args:
        matrix: int [k, k], rows the true class (`metrics.confusion`).
        classes: k names.
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
    figure.suptitle(f"Confusion matrix: {counted(matrix.sum(), 'image')}, accuracy {accuracy:.2%}", fontsize=11)
    figure.colorbar(image, ax=axes, label="share of the true class", format=PercentFormatter(1), shrink=0.8)
    return figure


def roc_curve(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Figure:
    """Of the positive class (two classes), or of each class against the rest; the area in the legend.

    Args:
        labels: int [n].
        probabilities: float [n, k].
        classes: k names.
    """
    k = len(classes)
    figure = Figure(figsize=(8.6, 5.6) if k > 2 else (5.6, 5.8), layout="constrained")
    axes = figure.subplots()
    areas = []
    for c in [1] if k == 2 else range(k):
        name = textwrap.fill(classes[c], 28)
        positive = labels == c
        if not 0 < positive.sum() < len(labels):
            axes.plot(
                [], [], " ", label=f"{name}: not in these images" if not positive.any() else f"{name}: all images"
            )
            continue
        areas.append(roc_auc(positive, probabilities[:, c]))
        false, true = roc_points(positive, probabilities[:, c])
        style = ("-", "--", "-.", ":")[c // len(COLOURS) % 4]
        axes.plot(false, true, style, color=COLOURS[c % len(COLOURS)], label=f"{name}: AUC {areas[-1]:.4f}")
    axes.plot([0, 1], [0, 1], ":", color=GRAY, label="chance: AUC 0.5")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    finish(axes)
    images = counted(len(labels), "image")
    if k == 2:
        figure.suptitle(f"ROC curve of {textwrap.shorten(classes[1], 32, placeholder='…')}: {images}", fontsize=11)
        axes.legend(loc="lower right", fontsize=9)
    else:
        mean = f"mean AUC {np.mean(areas):.4f}" if areas else "no AUC"
        figure.suptitle(f"ROC curves, one class against the rest: {images}, {mean}", fontsize=11)
        figure.legend(loc="outside right center", fontsize=9)
    return figure


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
