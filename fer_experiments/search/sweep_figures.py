"""Figures of one sweep: objective over trials, parallel coordinates, importances."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fer_experiments.evaluation.metrics import cost
from fer_experiments.evaluation.style import BLACK, BLUE, GRAY, PURPLE, VERMILION, counted, finish

LOG_SPAN = 50  # a positive hyperparameter whose values span more than this factor gets a logarithmic axis
FEW = 6  # a number with at most so many values has a tick at each


def objective_over_trials(
    scores: Sequence[float | None], direction: str = "max", objective: str = "final/val_accuracy"
) -> Figure:
    """Each trial's score and the best so far; failed trials (None or nan) are crosses at the bottom.

    Args:
        scores: by trial number, from 0.
        direction: max or min.
        objective: what the score is.
    """
    values = np.array([np.nan if score is None else score for score in scores], "float64")
    numbers, failed = np.arange(len(values)), ~np.isfinite(values)
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.subplots()
    if failed.all():
        axes.set_yticks([])
    else:
        best = _best_so_far(values, direction)
        axes.step(numbers, best, where="post", color=VERMILION, label="best so far")
        axes.plot(numbers, np.where(failed, np.nan, values), "o", color=BLUE, markersize=5, alpha=0.75, label="trial")
        winner = int(np.flatnonzero(values == best[-1])[0])
        label = f"best: trial {winner}, {values[winner]:.4f}"
        axes.plot(winner, values[winner], "*", color=BLACK, markersize=13, label=label)
    if failed.any():
        bottom = axes.get_xaxis_transform()  # x in trials, y in parts of the axes
        label = f"failed ({failed.sum()})"
        axes.plot(numbers[failed], np.full(failed.sum(), 0.03), "x", color=PURPLE, transform=bottom, label=label)
    axes.set(xlabel="trial", ylabel=objective, xlim=(-0.5 - len(values) / 60, len(values) * 61 / 60 - 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(y=0.12)
    finish(axes)
    figure.suptitle(f"{objective} over {counted(len(values), 'trial')}")
    figure.legend(loc="outside lower center", ncols=4, fontsize=9)
    return figure


def _best_so_far(values: np.ndarray, direction: str) -> np.ndarray:
    """nan before the first finite value."""
    best = np.minimum.accumulate(np.where(np.isfinite(values), cost(values, direction), np.inf))
    return np.where(np.isfinite(best), cost(best, direction), np.nan)


def parallel_coordinates(trials: pd.DataFrame, objective: str, direction: str = "max") -> Figure:
    """A line a trial through its hyperparameters to its objective, which colours it.

    The best trial is a thick line; the dashed lines of failed trials end before the objective.

    Args:
        trials: a row a trial, its index the trial's number: the objective (nan where the trial failed) and a column a
            hyperparameter, of any type.
        objective: the name of its column.
        direction: max or min.
    """
    names = [str(name) for name in trials if name != objective] + [objective]
    scores = pd.to_numeric(trials[objective], errors="coerce").to_numpy("float64")
    failed = ~np.isfinite(scores)
    scales = [_Scale(trials[name]) for name in names[:-1]] + [_Scale(pd.Series(scores))]
    points = np.column_stack([scale.positions for scale in scales])
    figure = Figure(figsize=(max(7.0, 2.0 + 1.55 * len(names)), 5.6), layout="constrained")
    axes = figure.subplots()
    finite = scores[~failed]
    colours = ScalarMappable(Normalize(finite.min(), finite.max()) if len(finite) else Normalize(0, 1), "viridis")
    few = len(trials) <= 50
    lines = [np.column_stack([np.arange(len(names)), row]) for row in points]
    keys = -cost(scores, direction)
    order = [int(i) for i in np.lexsort((-np.arange(len(keys)), keys)) if not failed[i]]  # the first of equals last
    groups: list[tuple[list[np.ndarray], Any, str, float]] = [
        ([lines[i][:-1] for i in np.flatnonzero(failed)], GRAY, "--", 1.0)
    ]
    groups += [([lines[i]], colours.to_rgba(scores[i]), "-", 1.8 if few else 1.1) for i in order]
    for segments, colour, style, width in groups:
        alpha = 0.85 if few else 0.55
        axes.add_collection(LineCollection(segments, colors=[colour], linestyles=style, linewidths=width, alpha=alpha))
    if order:
        axes.plot(*lines[order[-1]].T, color=VERMILION, linewidth=3)
    _draw_scales(axes, names, scales)
    notes = [f"best: trial {trials.index[order[-1]]} (thick)"] if order else []
    notes += [f"{failed.sum()} failed (dashed)"] if failed.any() else []
    figure.suptitle(f"Hyperparameters of {counted(len(trials), 'trial')}" + (f" · {', '.join(notes)}" if notes else ""))
    figure.colorbar(colours, ax=axes, label=objective, pad=0.01)
    return figure


class _Scale:
    """Where the values of a column lie on an axis from 0 to 1, and its ticks; nan for a number that is not there."""

    def __init__(self, values: pd.Series) -> None:
        self.log = False
        x = np.full(len(values), np.nan)
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            x = values.to_numpy("float64")
        finite = np.unique(x[np.isfinite(x)])
        if not len(finite):
            texts = ["absent" if value is None else _text(value) for value in values]
            kinds = sorted(set(texts), key=_natural)
            at = {kind: (i + 0.5) / len(kinds) for i, kind in enumerate(kinds)}
            self.positions = np.array([at[text] for text in texts])
            self.ticks = [(at[kind], textwrap.shorten(kind, 20, placeholder="…")) for kind in kinds]
            return
        self.log = bool(finite[0] > 0 and finite[-1] / finite[0] > LOG_SPAN)
        low, high = np.log10(finite[[0, -1]]) if self.log else finite[[0, -1]]
        span = high - low or 1.0
        start = low if high > low else low - 0.5  # a single value lies in the middle
        self.positions = ((np.log10(x) if self.log else x) - start) / span
        if len(finite) <= FEW:
            shown = finite
        else:
            inner = np.array(_decades(low, high) if self.log else MaxNLocator(5).tick_values(low, high))
            inner = inner[(inner > low + 0.06 * span) & (inner < high - 0.06 * span)]
            shown = np.append(finite[[0, -1]], 10**inner if self.log else inner)
        ticks = [(((math.log10(v) if self.log else v) - start) / span, f"{v:.4g}") for v in shown]
        self.ticks = [t for i, t in enumerate(ticks) if all(abs(t[0] - before[0]) > 0.035 for before in ticks[:i])]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _decades(low: float, high: float) -> list[float]:
    """Whole powers of ten between two logarithms, at most five."""
    whole = list(range(math.ceil(low), math.floor(high) + 1))
    return [float(power) for power in whole[:: max(1, math.ceil(len(whole) / 5))]]


def _natural(text: str) -> tuple[Any, ...]:
    """Sorts [64] before [128]."""
    parts = "".join(c if c.isdigit() or c == "." else " " for c in text).split()
    return [float(part) for part in parts if part.replace(".", "", 1).isdigit()], text


def _draw_scales(axes: Axes, names: list[str], scales: list[_Scale]) -> None:
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
    for x, scale in enumerate(scales):
        axes.axvline(x, color=BLACK, linewidth=0.9)
        for position, text in scale.ticks:
            axes.plot([x - 0.03, x + 0.03], [position, position], color=BLACK, linewidth=0.9)
            axes.text(x + 0.05, position, text, fontsize=8, va="center", bbox=box, zorder=4)
    labels = [name.replace(".", ".\n", 1) + ("\n(log)" if s.log else "") for name, s in zip(names, scales, strict=True)]
    axes.set_xticks(range(len(names)), labels)
    axes.tick_params(axis="x", labeltop=True, labelbottom=False, top=False, bottom=False)
    axes.set(xlim=(-0.15, len(names) - 0.4), ylim=(-0.04, 1.04), yticks=[])
    axes.spines[:].set_visible(False)


def importances(table: pd.DataFrame, objective: str = "final/val_accuracy") -> Figure:
    """Bars of `importance.importances`, their spread as error bars; says so when there were too few trials."""
    figure = Figure(figsize=(8, 1.6 + 0.45 * max(len(table), 2)), layout="constrained")
    figure.suptitle(f"What moved {objective}", fontsize=11)
    axes = figure.subplots()
    if table.empty:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "too few trials", ha="center", va="center", fontsize=13, color=GRAY)
        return figure
    rows = table.iloc[::-1]
    shares, spreads = rows["importance"].to_numpy(), rows["std"].to_numpy()
    axes.barh(rows["name"], shares, xerr=spreads, color=BLUE, error_kw={"ecolor": BLACK, "capsize": 3})
    for y, (share, spread) in enumerate(zip(shares, spreads, strict=True)):
        axes.text(share + spread + 0.012, y, f"{share:.0%}", va="center")
    axes.set(xlabel="share of what a random forest explains (± standard deviation over forests)")
    axes.set_xlim(0, float((shares + spreads).max()) * 1.15 + 0.05)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure
