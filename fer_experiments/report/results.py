"""Plotly figures of a sweep's best runs: learning curves, and confusion matrices with their differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fer_experiments.evaluation.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION
from fer_experiments.report.figures import LEGEND, finish
from fer_experiments.report.record import Record
from fer_experiments.report.scales import escaped, short

COLOURS = (VERMILION, BLUE, GREEN, ORANGE, PURPLE, SKY)  # no black: the page may be dark


def learning_curves(record: Record) -> go.Figure | None:
    """Accuracy and loss over epochs of the best trials; a click on a trial in the legend hides it."""
    if not record.curves:
        return None
    figure = make_subplots(1, 2, subplot_titles=("accuracy", "loss"), horizontal_spacing=0.08)
    for place, (number, history) in enumerate(record.curves.items()):
        colour = COLOURS[place % len(COLOURS)]
        trial = record.state.trials[number]
        for column, metric in enumerate(("accuracy", "loss"), start=1):
            for split, line in (("val", {"width": 2}), ("train", {"width": 1.5, "dash": "dot"})):
                if f"{split}/{metric}" not in history:
                    continue
                points = go.Scatter(
                    x=history["epoch"].tolist(),
                    y=history[f"{split}/{metric}"].tolist(),
                    mode="lines+markers" if len(history) < 3 else "lines",
                    line={"color": colour, **line},
                    name=f"trial {number} ({trial.score:.4f})",
                    legendgroup=str(number),
                    meta=str(number),  # by which page.js dims it
                    showlegend=split == "val" and column == 1,
                    hovertemplate=f"trial {number}, {split}/{metric}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>",
                )
                figure.add_trace(points, 1, column)
    if max(len(history) for history in record.curves.values()) < 12:
        figure.update_xaxes(dtick=1)
    figure.update_xaxes(title="epoch")
    return finish(figure, 450, legend=LEGEND, margin={"l": 70, "r": 20, "t": 60, "b": 50})


def confusion_matrices(record: Record) -> go.Figure | None:
    """The best trials' shares of each true class side by side; below, each minus the first, in percentage points."""
    if not record.matrices:
        return None
    titles = [f"trial {number}" for number in record.matrices]
    first = next(iter(record.matrices))
    classes, _ = record.matrices[first]
    rows = 2 if len(titles) > 1 else 1
    differences = [f"trial {n} − trial {first}" if n != first else "" for n in record.matrices][
        : len(titles) * (rows - 1)
    ]
    figure = make_subplots(
        rows,
        len(titles),
        subplot_titles=[*titles, *differences],
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.16,
    )
    names = [escaped(short(str(name))) for name in classes]
    reference: np.ndarray | None = None
    widest = 1.0
    for column, (_, matrix) in enumerate(record.matrices.values(), start=1):
        counts = np.array(matrix)
        shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        texts = [[f"{s:.0f} %<br>{c:,}" for s, c in zip(*row, strict=True)] for row in zip(shares, counts, strict=True)]
        figure.add_trace(_heatmap(names, shares, texts, "coloraxis", "%{z:.1f} %"), 1, column)
        if reference is None:
            reference = shares
            continue
        gap = shares - reference
        widest = max(widest, float(np.abs(gap).max()))
        figure.add_trace(
            _heatmap(names, gap, [[f"{g:+.1f}" for g in r] for r in gap], "coloraxis2", "%{z:+.1f}"), 2, column
        )
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    figure.update_yaxes(title="true", col=1)
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_xaxes(title="predicted", row=rows)
    figure.update_yaxes(visible=False, row=2, col=1)
    figure.update_xaxes(visible=False, row=2, col=1)
    figure.update_yaxes(showticklabels=True, row=2, col=2)
    upper = {"colorscale": "Blues", "cmin": 0, "cmax": 100, "showscale": False}
    lower = {"colorscale": "RdBu", "cmin": -widest, "cmax": widest, "showscale": False}
    side = max(260, 45 * len(classes) + 60)
    return finish(
        figure, 80 + side * rows, coloraxis=upper, coloraxis2=lower, margin={"l": 80, "r": 20, "t": 50, "b": 60}
    )


def _heatmap(names: list[str], z: np.ndarray, texts: list[list[str]], axis: str, shown: str) -> go.Heatmap:
    text: dict[str, Any] = {
        "text": texts,
        "texttemplate": "%{text}",
        "textfont": {"size": 11 if len(names) > 4 else 14},
    }
    hover = f"true %{{y}}, predicted %{{x}}: {shown}<extra></extra>"
    return go.Heatmap(x=names, y=names, z=z.tolist(), coloraxis=axis, hovertemplate=hover, xgap=1, ygap=1, **text)
