"""Plotly figures of a sweep's trials."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fer_experiments.evaluation.style import BLUE, GRAY, ORANGE, PURPLE, VERMILION
from fer_experiments.report.record import Record
from fer_experiments.report.scales import MISSING, Scale, escaped, scale_of, values_at
from fer_experiments.search.leaderboard import ABSENT, spread_of, written
from fer_experiments.search.trials import Trial
from fer_experiments.terminal import number
from fer_experiments.training.pruning import best_so_far

INK = "#1d2530"  # as in page.css; page.js changes it in dark mode
GRID = "rgba(128,128,128,0.25)"  # on white and on black
MARKS: dict[str, dict[str, Any]] = {
    "finished": {"symbol": "circle", "color": BLUE, "opacity": 0.75},
    "pruned": {"symbol": "triangle-down", "color": ORANGE, "opacity": 0.8},
    "repeated": {"symbol": "diamond-open", "color": GRAY},
    "failed": {"symbol": "x", "color": PURPLE},
}
LEGEND = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0}  # clear of the tool bar
SLICES = 3  # a row


def finish(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """The looks that all figures share: transparent, so that the page's light or dark background shows."""
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GRAY, "activecolor": BLUE},
        height=height,
        **{"margin": {"l": 70, "r": 20, "t": 40, "b": 50}, "hoverlabel": {"align": "left"}, **layout},
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, automargin=True)
    return figure


def objective(record: Record) -> go.Figure | None:
    """Each trial's objective and the best so far, by trial and, behind a button, by the hours when trials ended."""
    trials = record.state.ended
    if not trials:
        return None
    figure = go.Figure()
    by_hour = {number: end for number, (_, end) in record.times.items()}
    traces = [_over(record, trials, {t.number: t.number for t in trials}), _over(record, trials, by_hour)]
    for kind, made in enumerate(traces):
        figure.add_traces([trace.update(visible=kind == 0) for trace in made])
    shown = [[k == kind for k, made in enumerate(traces) for _ in made] for kind in range(len(traces))]
    figure.update_xaxes(title="trial", dtick=whole_ticks(len(trials)))
    figure.update_yaxes(title=escaped(record.sweep.objective))
    return finish(
        figure, 460, updatemenus=[by_trial_or_time(shown[0], shown[1], whole_ticks(len(trials)))], legend=LEGEND
    )


def whole_ticks(trials: int) -> int | None:
    """The step between ticks at which few trials have none between two of them."""
    return 1 if trials <= 12 else None


def by_trial_or_time(trial: list[bool], time: list[bool], step: int | None = None) -> dict[str, Any]:
    """A menu of two views, each with the traces that it shows; `markup.figure` makes buttons of it. step: of ticks by
    trial."""
    axes = [("trial", trial, "trial", step), ("time", time, "hours since the first trial started", None)]
    buttons = [
        {
            "label": f"by {axis}",
            "method": "update",
            "args": [{"visible": visible}, {"xaxis.title.text": title, "xaxis.dtick": ticks}],
        }
        for axis, visible, title, ticks in axes
    ]
    return {"type": "buttons", "buttons": buttons}


def _over(record: Record, trials: list[Trial], at: dict[int, float]) -> list[go.Scatter]:
    """The traces of `objective` with the trials at these places; those without one are left out."""
    shown = sorted((t for t in trials if t.number in at), key=lambda t: at[t.number])
    scores = [t.score for t in shown if t.score is not None]
    floor = min(scores) - 0.06 * (max(scores) - min(scores) or 1) if scores else 0.0
    traces = []
    for status, marker in MARKS.items():
        some = [t for t in shown if t.status == status]
        if some:
            heights = [floor if t.score is None else t.score for t in some]
            traces.append(
                go.Scatter(
                    x=[at[t.number] for t in some],
                    y=heights,
                    ids=ids(some),
                    mode="markers",
                    marker={"size": 8, **marker},
                    error_y=_spreads(some),
                    name=f"{status} ({len(some)})",
                    hovertext=[about(t) for t in some],
                    hoverinfo="text",
                )
            )
    finished = {t.number: t.score for t in shown if t.finished and t.score is not None}
    best = best_so_far(list(finished.values()), record.sweep.direction).tolist()
    if finished:
        end = at[shown[-1].number]
        traces.append(
            go.Scatter(
                x=[*map(at.__getitem__, finished), end],
                y=[*best, best[-1]],
                mode="lines",
                line={"shape": "hv", "color": VERMILION, "width": 2},
                name="best so far",
            )
        )
    return traces


def _spreads(trials: list[Trial]) -> dict[str, Any]:
    """Error bars: the standard deviation over the fits of each trial; none where each has one fit."""
    spreads = [trial.std for trial in trials]
    visible = any(std is not None for std in spreads)
    return {"type": "data", "array": spreads, "visible": visible, "color": GRAY, "thickness": 1, "width": 2}


def ids(trials: list[Trial]) -> list[str]:
    """Of the points of these trials, by which page.js dims those that are not selected."""
    return [str(trial.number) for trial in trials]


def about(trial: Trial) -> str:
    """What one reads of a trial on pointing at it."""
    score = "failed" if trial.score is None else f"{trial.score:.4f}{spread_of(trial)}"
    values = [f"{path} = {_written(value)}" for path, value in trial.values.items()]
    return "<br>".join([f"<b>trial {trial.number}: {score}</b>", *map(escaped, values)])


def _written(value: Any) -> str:
    if value is MISSING:
        return ABSENT
    return number(value) if isinstance(value, float) else written(value)


def scored(record: Record) -> list[Trial]:
    """The trials that have a score and are no repetition."""
    return [t for t in record.state.ended if t.score is not None and t.status != "repeated"]


def axes(record: Record) -> dict[str, Scale]:
    """The axes of `parallel_coordinates`, by path: hyperparameters and the objective; none without trials."""
    trials, name = scored(record), record.sweep.objective
    if not trials:
        return {}
    made = {path: scale_of(path, entry, values_at(path, trials)) for path, entry in record.sweep.space.items()}
    scores = [t.score or 0.0 for t in trials]
    return {**made, name: Scale(name, scores, min(scores), max(scores), {})}


def parallel_coordinates(record: Record) -> go.Figure | None:
    """A line a trial through its hyperparameters to its objective; dragging along an axis selects lines.

    Plotly 7.1 takes every axis with ticks for ordinal, and moves the ends of what is selected on it to them: only those
    of choices have theirs here, page.js draws the others'.
    """
    trials = scored(record)
    if not trials:
        return None
    dimensions = []
    for path, scale in axes(record).items():
        label = escaped(scale.label).replace(".", ".<br>", 1)
        dimension: dict[str, Any] = {"name": path, "label": label, "values": scale.at, "range": [scale.low, scale.high]}
        if scale.discrete:
            dimension |= {"tickvals": list(scale.ticks), "ticktext": list(scale.ticks.values())}
        dimensions.append(dimension)
    scores = [t.score for t in trials]
    line = {"color": scores, "colorscale": "Viridis", "reversescale": record.sweep.direction == "min"}
    figure = go.Figure(
        go.Parcoords(
            dimensions=dimensions,
            line={**line, "showscale": True, "colorbar": {"thickness": 12}},
            ids=ids(trials),
            unselected={"line": {"color": "#888888", "opacity": 0.08}},
            labelfont={"size": 12},
            rangefont={"color": "rgba(0,0,0,0)"},  # they would lie on the second line of labels
        )
    )
    return finish(figure, 470, margin={"l": 80, "r": 40, "t": 80, "b": 30})


def importances(table: pd.DataFrame) -> go.Figure:
    """Bars of `importance.importances`, each with a mark where chance ends."""
    rows = table.iloc[::-1]
    names = [escaped(name) for name in rows["name"]]
    bars = go.Bar(
        x=rows["importance"].tolist(),
        y=names,
        orientation="h",
        marker={"color": BLUE},
        customdata=rows["p"].tolist(),
        name="share",
        hovertemplate="%{y}: %{x:.1%}, p = %{customdata:.3f}<extra></extra>",
    )
    marks = go.Scatter(
        x=rows["chance"].tolist(),
        y=names,
        mode="markers",
        marker={"symbol": "line-ns", "size": 20, "line": {"width": 3, "color": ORANGE}},
        name="95 % of shuffled scores give less",
        hovertemplate="%{y}: chance gives up to %{x:.1%}<extra></extra>",
    )
    figure = go.Figure([bars, marks])
    figure.update_xaxes(tickformat=".0%", rangemode="tozero", title="share")
    return finish(figure, 160 + 34 * len(rows), legend={**LEGEND, "traceorder": "normal"})


def slices(record: Record) -> go.Figure | None:
    """The objective over each hyperparameter, a point a trial, later trials darker."""
    trials = scored(record)
    if not trials:
        return None
    paths = list(record.sweep.space)
    columns = min(SLICES, len(paths))
    rows = math.ceil(len(paths) / columns)
    figure = make_subplots(rows, columns, shared_yaxes=True, horizontal_spacing=0.025, vertical_spacing=0.33 / rows)
    jitter = np.random.default_rng(0).uniform(-0.18, 0.18, len(trials))
    numbers = [t.number for t in trials]
    for place, path in enumerate(paths):
        row, column = place // columns + 1, place % columns + 1
        values = values_at(path, trials)
        scale = scale_of(path, record.sweep.space[path], values)
        at = (np.array(scale.at) + jitter).tolist() if scale.discrete else scale.at
        texts = [f"trial {n}: {escaped(_written(v))}" for n, v in zip(numbers, values, strict=True)]
        points = go.Scatter(
            x=at,
            y=[t.score for t in trials],
            ids=ids(trials),
            error_y=_spreads(trials),
            mode="markers",
            marker={"size": 7, "color": numbers, "coloraxis": "coloraxis", "line": {"width": 0.5, "color": GRAY}},
            hovertext=texts,
            hovertemplate="%{hovertext}<br>%{y:.4f}<extra></extra>",
        )
        figure.add_trace(points, row, column)
        figure.update_xaxes(axis(scale), row=row, col=column)
    figure.update_yaxes(title=escaped(record.sweep.objective), col=1)
    bar = {
        "colorscale": [[0, "#bcd6ee"], [1, BLUE]],
        "colorbar": {"title": "trial", "thickness": 12, "dtick": whole_ticks(len(trials))},
    }
    return finish(figure, 50 + 300 * rows, showlegend=False, coloraxis=bar)


def axis(scale: Scale) -> dict[str, Any]:
    """The axis of a hyperparameter in a figure of Plotly's."""
    edge = 0.03 * (scale.high - scale.low)
    made = {"title": {"text": escaped(scale.label)}, "tickfont": {"size": 12}, "nticks": 6}
    made |= {"range": [scale.low - edge, scale.high + edge]}
    if scale.ticks:
        made |= {"tickvals": list(scale.ticks), "ticktext": [escaped(text) for text in scale.ticks.values()]}
    return made
