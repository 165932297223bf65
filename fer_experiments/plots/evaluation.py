"""Figures of a final evaluation: precision-recall curves, calibration, and what each emotion is taken for."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fer_experiments.metrics import BINS, average_precision, calibration_bins, expected_calibration_error, pr_points
from fer_experiments.plots.style import BLACK, BLUE, COLOURS, GRAY, VERMILION, counted, finish


def precision_recall_curve(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Figure:
    """Of the positive class (two classes), or of each class against the rest; average precision in the legend.

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
        name, positive = textwrap.fill(classes[c], 28), labels == c
        if not positive.any():
            axes.plot([], [], " ", label=f"{name}: not in these images")
            continue
        areas.append(average_precision(positive, probabilities[:, c]))
        recall, precision = pr_points(positive, probabilities[:, c])
        style, colour = ("-", "--", "-.", ":")[c // len(COLOURS) % 4], COLOURS[c % len(COLOURS)]
        # Steps, not slopes: the area under what is drawn is the average precision.
        x, y = np.append(0, recall), np.append(precision[0], precision)
        axes.plot(x, y, style, drawstyle="steps-pre", color=colour, label=f"{name}: {areas[-1]:.4f}")
        if k == 2:
            rate = positive.mean()
            axes.axhline(rate, linestyle=":", color=GRAY, label=f"chance: {rate:.4f}")
    axes.set(xlabel="recall", ylabel="precision", aspect="equal", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    finish(axes)
    images = counted(len(labels), "image")
    if k == 2:
        name = textwrap.shorten(classes[1], 32, placeholder="…")
        figure.suptitle(f"Precision-recall curve of {name}: {images}", fontsize=11)
        axes.legend(loc="lower left", fontsize=9, title="average precision", title_fontsize=9)
    else:
        mean = f"mean average precision {np.mean(areas):.4f}" if areas else "no average precision"
        figure.suptitle(f"Precision-recall, one class against the rest: {images}, {mean}", fontsize=11)
        figure.legend(loc="outside right center", fontsize=9, title="average precision", title_fontsize=9)
    return figure


def calibration_curve(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> Figure:
    """The share that is right over the probability of the predicted class, and how many images have which.

    On the diagonal a probability means what it says; bars show the 95 % interval (Wilson) of a bin's share.

    Args:
        labels: int [n].
        probabilities: float [n, k].
        bins: of equal width, as in `metrics.expected_calibration_error`.
    """
    count, accuracy, confidence = calibration_bins(labels, probabilities, bins)
    there = count > 0
    figure = Figure(figsize=(5.6, 6.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    low, high = _wilson(accuracy[there], count[there])
    spread = np.stack([accuracy[there] - low, high - accuracy[there]]).clip(0)
    top.plot([0, 1], [0, 1], ":", color=GRAY, label="as it should be")
    top.errorbar(
        confidence[there], accuracy[there], spread, fmt="o-", color=BLUE, ecolor=GRAY, capsize=3, markersize=5,
        label="images of a bin",
    )  # fmt: skip
    top.set(ylabel="share that is right", ylim=(-0.02, 1.02), xlim=(-0.02, 1.02))
    top.legend(loc="upper left", fontsize=9)
    bottom.bar((np.arange(bins) + 0.5) / bins, count / len(labels), 0.92 / bins, color=BLUE)
    mean, right = float(probabilities.max(axis=1).mean()), float(np.nansum(accuracy * count) / len(labels))
    bottom.axvline(mean, color=VERMILION, label=f"mean {mean:.4f}")
    bottom.axvline(right, color=BLACK, linestyle="--", label=f"accuracy {right:.4f}")
    bottom.set(xlabel="probability of the predicted class", ylabel="share of images")
    bottom.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    bottom.legend(loc="upper left", fontsize=9)
    for axes in (top, bottom):
        finish(axes)
    error = expected_calibration_error(labels, probabilities, bins)
    title = f"Calibration: {counted(len(labels), 'image')}, expected error {error:.4f} ({bins} bins)"
    figure.suptitle(title, fontsize=11)
    return figure


def _wilson(share: np.ndarray, count: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of binomial shares (1927)."""
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return middle - half, middle + half


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
