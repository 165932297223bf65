"""Curves of a fit and of its result: learning, ROC, precision-recall, calibration; each a matplotlib figure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fer_experiments.evaluation.bootstrap import wilson
from fer_experiments.evaluation.metrics import BINS, Drawn, Result, calibration_bins, scores
from fer_experiments.evaluation.style import BLACK, BLUE, COLOURS, GRAY, VERMILION, finish, scored_images
from fer_experiments.terminal import counted


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
    for c, curve in Drawn(Result(labels, probabilities)).curves.items():
        name, positive = textwrap.fill(classes[c], 28), labels == c
        if not positive.any():
            axes.plot([], [], " ", label=f"{name}: not in these images")
            continue
        areas.append(float(curve.average_precision()[0]))
        (precision,), (recall,) = curve.precision(), curve.recall()
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


def calibration_curve(labels: np.ndarray, probabilities: np.ndarray) -> Figure:
    """The share that is right over the probability of the predicted class, and how many images have which.

    On the diagonal a probability means what it says; bars show the 95 % interval (Wilson) of a bin's share.

    Args:
        labels: int [n].
        probabilities: float [n, k].
    """
    count, accuracy, confidence = calibration_bins(labels, probabilities)
    there = count > 0
    figure = Figure(figsize=(5.6, 6.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    low, high = wilson(accuracy[there], count[there])
    spread = np.stack([accuracy[there] - low, high - accuracy[there]]).clip(0)
    top.plot([0, 1], [0, 1], ":", color=GRAY, label="as it should be")
    top.errorbar(
        confidence[there], accuracy[there], spread, fmt="o-", color=BLUE, ecolor=GRAY, capsize=3, markersize=5,
        label="images of a bin",
    )  # fmt: skip
    top.set(ylabel="share that is right", ylim=(-0.02, 1.02), xlim=(-0.02, 1.02))
    top.legend(loc="upper left", fontsize=9)
    bottom.bar((np.arange(BINS) + 0.5) / BINS, count / len(labels), 0.92 / BINS, color=BLUE)
    mean, right = float(probabilities.max(axis=1).mean()), float(np.nansum(accuracy * count) / len(labels))
    bottom.axvline(mean, color=VERMILION, label=f"mean {mean:.4f}")
    bottom.axvline(right, color=BLACK, linestyle="--", label=f"accuracy {right:.4f}")
    bottom.set(xlabel="probability of the predicted class", ylabel="share of images")
    bottom.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    bottom.legend(loc="upper left", fontsize=9)
    for axes in (top, bottom):
        finish(axes)
    (error,) = scores(labels, probabilities, ["expected_calibration_error"]).values()
    title = f"Calibration: {counted(len(labels), 'image')}, expected error {error:.4f} ({BINS} bins)"
    figure.suptitle(title, fontsize=11)
    return figure


def learning_curves(history: pd.DataFrame, best_epoch: int | None = None) -> Figure:
    """Loss and accuracy of training and validation by epoch.

    Args:
        history: columns train/loss, train/accuracy, val/loss, val/accuracy (those that are there are drawn); its index
            is the epoch. Of means of several fits <column>_std is drawn as a band, one standard deviation to each side.
        best_epoch: marked; by default that of the least val/loss.
    """
    epochs = history.index.to_numpy()
    if best_epoch is None and "val/loss" in history and history["val/loss"].notna().any():
        best_epoch = int(epochs[np.nanargmin(history["val/loss"])])
    figure = Figure(figsize=(10, 4.2))
    # Room for any numbers, large ones as powers: finding a layout is a third of what drawing takes.
    figure.subplots_adjust(left=0.085, right=0.985, bottom=0.12, top=0.89, wspace=0.21)
    figure.suptitle(f"Learning curves: {counted(len(history), 'epoch')}")
    marker = "o" if len(history) <= 30 else None
    labels = {"loss": "loss, penalties included (nats)", "accuracy": "accuracy (share of images)"}
    for axes, quantity in zip(figure.subplots(1, 2), labels, strict=True):
        for split, name, colour, style in (("train", "training", BLUE, "--"), ("val", "validation", VERMILION, "-")):
            if f"{split}/{quantity}" in history:
                series = history[f"{split}/{quantity}"]
                axes.plot(epochs, series, style, color=colour, marker=marker, markersize=3.5, label=name)
                if f"{split}/{quantity}_std" in history:
                    std = history[f"{split}/{quantity}_std"].fillna(0)
                    axes.fill_between(epochs, series - std, series + std, color=colour, alpha=0.2, linewidth=0)
        if best_epoch in epochs and f"val/{quantity}" in history:
            value = history[f"val/{quantity}"].to_numpy()[epochs == best_epoch][0]
            axes.axvline(best_epoch, color=GRAY, linewidth=1, linestyle=":")
            axes.plot(best_epoch, value, "*", color=BLACK, markersize=12, label=f"best epoch {best_epoch}: {value:.4f}")
        if len(epochs) == 1:
            axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
        axes.set(xlabel="epoch", ylabel=labels[quantity])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
        axes.legend(fontsize=9)
        finish(axes)
    return figure


def roc_curve(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], repeats: int = 1) -> Figure:
    """Of the positive class (two classes), or of each class against the rest; the area in the legend.

    Args:
        labels: int [n].
        probabilities: float [n, k].
        classes: k names.
        repeats: how many fits have scored each image.
    """
    k = len(classes)
    figure = Figure(figsize=(8.6, 5.6), layout="constrained") if k > 2 else Figure(figsize=(5.6, 5.8))
    if k == 2:
        figure.subplots_adjust(left=0.11, right=0.98, bottom=0.09, top=0.93)
    axes = figure.subplots()
    areas = []
    for c, curve in Drawn(Result(labels, probabilities)).curves.items():
        name = textwrap.fill(classes[c], 28)
        positive = labels == c
        if not 0 < positive.sum() < len(labels):
            axes.plot(
                [], [], " ", label=f"{name}: not in these images" if not positive.any() else f"{name}: all images"
            )
            continue
        areas.append(float(curve.roc_area()[0]))
        (false,), (true,) = curve.roc()
        style = ("-", "--", "-.", ":")[c // len(COLOURS) % 4]
        axes.plot(false, true, style, color=COLOURS[c % len(COLOURS)], label=f"{name}: AUC {areas[-1]:.4f}")
    axes.plot([0, 1], [0, 1], ":", color=GRAY, label="chance: AUC 0.5")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    finish(axes)
    scored = scored_images(len(labels), repeats)
    if k == 2:
        figure.suptitle(f"ROC curve of {textwrap.shorten(classes[1], 32, placeholder='…')}: {scored}", fontsize=11)
        axes.legend(loc="lower right", fontsize=9)
    else:
        mean = f"mean AUC {np.mean(areas):.4f}" if areas else "no AUC"
        figure.suptitle(f"ROC curves, one class against the rest: {scored}, {mean}", fontsize=11)
        figure.legend(loc="outside right center", fontsize=9)
    return figure
