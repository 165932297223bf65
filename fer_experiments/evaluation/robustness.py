"""Where a model is weak: its accuracy on each slice and each corruption, beside another's, as table and picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fer_experiments.evaluation.bootstrap import Interval, accuracy_interval, mcnemar, paired_bootstrap
from fer_experiments.evaluation.corruptions import CORRUPTIONS, KINDS
from fer_experiments.evaluation.metrics import scores
from fer_experiments.evaluation.style import BLUE, GRAY, VERMILION, finish
from fer_experiments.terminal import counted

UNCHANGED = "unchanged"  # the images that are corrupted, as they are


@dataclass(frozen=True)
class Part:
    """A slice, or the images as a corruption leaves them, and how often a model is right there.

    worse: by how much the champion's accuracy is higher on the same images; None when it was not asked. p_value:
    McNemar's, that the two differ by chance.
    """

    name: str
    images: int
    accuracy: Interval
    worse: Interval | None = None
    p_value: float | None = None

    @property
    def champion(self) -> float | None:
        """The champion's accuracy."""
        return self.accuracy.value + self.worse.value if self.worse else None


def measured(
    name: str, labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray | None = None, *, resamples: int = 2000
) -> Part:
    """A part of labels int [n], and of what a model and the champion say: probabilities [n, classes]."""
    value = scores(labels, ours, ["accuracy"])["accuracy"]
    part = Part(name, len(labels), Interval(value, *accuracy_interval(labels, ours)))
    if theirs is None:
        return part
    paired = paired_bootstrap(labels, theirs, ours, resamples=resamples)
    worse = Interval(paired.value, paired.low, paired.high)
    return Part(name, part.images, part.accuracy, worse, mcnemar(labels, ours, theirs).p_value)


def parts_table(parts: Sequence[Part]) -> pd.DataFrame:
    """A row a part: name, images, accuracy with interval; with a champion its accuracy, `worse` with interval, p."""
    rows = []
    for part in parts:
        row = {"name": part.name, "images": part.images, **_columns("accuracy", part.accuracy)}
        if part.worse:
            row |= {"champion": part.champion, **_columns("worse", part.worse), "p_value": part.p_value}
        rows.append(row)
    return pd.DataFrame(rows)


def _columns(name: str, found: Interval) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def slices_figure(parts: Sequence[Part], accuracy: float) -> Figure:
    """Each slice's accuracy with its 95 % interval, a line at that of all images, the champion's beside."""
    figure = Figure(figsize=(7.4, 1.4 + 0.27 * len(parts)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(parts))
    axes.axvline(accuracy, color=GRAY, linestyle=":", label=f"all images: {accuracy:.4f}")
    axes.errorbar(
        [part.accuracy.value for part in parts], places, xerr=_spread(parts), fmt="o", color=BLUE, ecolor=BLUE,
        capsize=3, markersize=5, label="this model",
    )  # fmt: skip
    theirs = [(part.champion, place) for part, place in zip(parts, places, strict=True) if part.worse]
    if theirs:
        x, y = zip(*theirs, strict=True)
        axes.plot(x, y, "d", color=VERMILION, fillstyle="none", markersize=7, label="the champion")
    axes.set_yticks(places, [f"{part.name} ({part.images:,})" for part in parts])
    axes.invert_yaxis()
    axes.set(xlabel="accuracy", ylabel="slice (images)")
    finish(axes)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle("Accuracy on slices of the test split", fontsize=11)
    return figure


def corruptions_figure(parts: Sequence[Part]) -> Figure:
    """The accuracy of each kind over its strengths, 0 the images as they are, with its 95 % interval.

    parts: by name UNCHANGED and all of CORRUPTIONS.
    """
    found = {part.name: part for part in parts}
    figure = Figure(figsize=(9, 7.6), layout="constrained")
    for axes, kind in zip(figure.subplots(3, 3, sharey=True).flat, KINDS, strict=True):
        line = [found[UNCHANGED], *(found[name] for name, (of, _) in CORRUPTIONS.items() if of == kind)]
        strengths = np.arange(len(line))
        axes.errorbar(
            strengths, [part.accuracy.value for part in line], _spread(line), fmt="o-", color=BLUE, capsize=3,
            markersize=4, label="this model",
        )  # fmt: skip
        if line[0].worse:
            theirs = [part.champion for part in line]
            axes.plot(strengths, theirs, "d--", color=VERMILION, fillstyle="none", label="the champion")
        axes.set_title(kind.replace("_", " "), fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        finish(axes)
    figure.supxlabel("strength", fontsize=10)
    figure.supylabel("accuracy", fontsize=10)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    figure.suptitle(f"Accuracy on {counted(found[UNCHANGED].images, 'test image')}, corrupted", fontsize=11)
    return figure


def _spread(parts: Sequence[Part]) -> np.ndarray:
    """What lies below and above each accuracy, [2, n]."""
    sides = [(p.accuracy.value - p.accuracy.low, p.accuracy.high - p.accuracy.value) for p in parts]
    return np.array(sides).T.clip(0)
