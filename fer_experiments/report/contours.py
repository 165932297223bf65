"""The objective over two hyperparameters at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from fer_experiments.report.figures import about, axis, finish, ids, scored
from fer_experiments.report.record import Record
from fer_experiments.report.scales import Scale, scale_of

STEPS = 40  # of a number's axis
REACH = 2.0  # widths of the kernel from the next trial, beyond which nothing is drawn


def contours(record: Record, paths: Sequence[str]) -> go.Figure | None:
    """The smoothed objective over the hyperparameters at two paths, and on it the trials that have both as points."""
    trials = [trial for trial in scored(record) if all(path in trial.values for path in paths)]
    if not trials:
        return None
    across, up = (scale_of(p, record.sweep.space[p], [t.values[p] for t in trials]) for p in paths)
    scores = [trial.score or 0.0 for trial in trials]
    x, y, z = smoothed(across, up, scores)
    # Plotly 7.1: a contour on a coloraxis that it shares with points is drawn without an end.
    colours: dict[str, Any] = {"colorscale": "Viridis", "reversescale": record.sweep.direction == "min"}
    field: dict[str, Any] = {"x": x.tolist(), "y": y.tolist(), "z": z.tolist(), "hoverinfo": "skip", **colours}
    field |= {"zmin": min(scores), "zmax": max(scores), "colorbar": {"thickness": 12}}
    apart = across.discrete or up.discrete
    drawn = go.Heatmap(**field, ygap=1) if apart else go.Contour(**field, line={"width": 0.5}, ncontours=15)
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, (2, len(trials)))
    points = go.Scatter(
        x=(np.array(across.at) + jitter[0] * across.discrete).tolist(),
        y=(np.array(up.at) + jitter[1] * up.discrete).tolist(),
        ids=ids(trials),
        mode="markers",
        marker={
            **colours,
            "size": 8,
            "color": scores,
            "cmin": min(scores),
            "cmax": max(scores),
            "line": {"width": 1, "color": "white"},
        },
        hovertext=[about(trial) for trial in trials],
        hoverinfo="text",
    )
    figure = go.Figure([drawn, points])
    figure.update_xaxes(axis(across))
    figure.update_yaxes(axis(up))
    return finish(figure, 460, showlegend=False)


def smoothed(across: Scale, up: Scale, scores: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The means of scores, weighted by a Gaussian kernel of Scott's width, on a grid of two axes.

    The values of a choice are no neighbours: each has the trials that had it.

    Returns:
        The places on the axes [n], [m] and the means [m, n], nan where no trial is near.
    """
    weights, near = np.ones((1, 1, 1)), np.zeros((1, 1, 1))
    places = []
    for scale, shape in ((across, (1, -1, 1)), (up, (-1, 1, 1))):
        at = np.array(scale.at)
        grid = np.arange(scale.low + 0.5, scale.high) if scale.discrete else np.linspace(scale.low, scale.high, STEPS)
        width = (scale.high - scale.low) * len(at) ** (-1 / 6) / np.sqrt(12)  # Scott 1992, of even draws
        distance = np.where(grid[:, None] == at, 0, np.inf) if scale.discrete else (grid[:, None] - at) / width
        weights = weights * np.exp(-np.square(distance) / 2).reshape(*shape[:2], len(at))
        near = np.maximum(near, np.abs(distance).reshape(*shape[:2], len(at)))
        places.append(grid)
    known = (near <= REACH).any(axis=2)
    total = np.where(known, weights.sum(axis=2), 1)
    return places[0], places[1], np.where(known, (weights * np.array(scores)).sum(axis=2) / total, np.nan)
