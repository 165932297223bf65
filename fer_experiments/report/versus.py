"""Several sweeps side by side: their best over trials and time, what they differ in, and their best trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from fer_experiments.report.figures import LEGEND, about, by_trial_or_time, finish
from fer_experiments.report.markup import figure, paragraph, section, table
from fer_experiments.report.page import MOMENT, document, script
from fer_experiments.report.record import Record
from fer_experiments.report.results import COLOURS
from fer_experiments.report.scales import escaped
from fer_experiments.search.leaderboard import spread_of, values_text, written
from fer_experiments.search.state import State
from fer_experiments.search.trials import Trial
from fer_experiments.training.pruning import best_so_far

BEST = 5  # trials of each sweep in the table


def side_by_side(records: Sequence[Record]) -> str:
    """The whole page as HTML that needs nothing else; the sweeps have one objective."""
    states = [record.state for record in records]
    ids = [state.id for state in states]
    bests = [[s.id, *_best(s, place, t)] for s in states for place, t in enumerate(s.ranked()[:BEST], start=1)]
    objective = records[0].sweep.objective
    drawn = figure("bests-chart", bests_over(records)) if bests else paragraph("No trial has finished yet.")
    other = [] if len({s.identity.get("fer.dataset") for s in states}) == 1 else [paragraph(OTHER_IMAGES)]
    parts = [
        section("sweeps", "Sweeps", table(SWEEPS, map(_sweep, records)), *other, hint=FLATTERED),
        section("bests", f"Best {objective} so far", drawn, hint="Points are finished trials, lines the best of them."),
        section("differences", "What they differ in", table(("", *ids), _differences(states))),
        section(
            "trials-of-each", "The best trials of each", table(("sweep", "rank", "trial", objective, "with"), bests)
        ),
    ]
    when = paragraph(f"Page made at {datetime.now(UTC):{MOMENT}}.")
    return document(" and ".join(ids), when, "".join(parts), get_plotlyjs(), script())


SWEEPS = ("sweep", "oracle", "state", "trials", "hours", "best", "its trial", "in hours", "accuracy, 95 % interval")
FLATTERED = (
    "In hours: from the first trial's start to the end of the best. The best of many trials is flattered by being "
    "chosen, that of more trials by more; fer compare with both ids tests the two best on the same images."
)
OTHER_IMAGES = "Their data differ: scores on other images cannot be compared."


def _sweep(record: Record) -> list[Any]:
    state, top = record.state, record.state.best()
    begun = [record.sweep.oracle, record.status, len(state.ended), float(f"{state.seconds / 3600:.3g}")]
    if top is None:
        return [state.id, *begun, None, None, None, None]
    _, end = record.times.get(top.number, (None, None))
    low, high = (top.metrics[f"final/val_accuracy_{side}"] for side in ("low", "high"))
    return [state.id, *begun, f"{top.score:.4f}{spread_of(top)}", top.number, end, f"{low:.4f} to {high:.4f}"]


def _best(state: State, rank: int, trial: Trial) -> list[Any]:
    return [rank, trial.number, f"{trial.score:.4f}{spread_of(trial)}", values_text(trial.values)]


def _differences(states: Sequence[State]) -> list[list[Any]]:
    """A row a key that is not the same in all; the space has one a hyperparameter."""
    flat = [_flat(state.identity) for state in states]
    paths = sorted({path for each in flat for path in each})
    rows = [[path, *(each.get(path, "") for each in flat)] for path in paths]
    return [row for row in rows if len(set(row[1:])) > 1]


def _flat(identity: Mapping[str, Any]) -> dict[str, str]:
    texts = {path: written(value) for path, value in identity.items() if path != "sweep.space"}
    texts = {path: text[:16] if path.startswith("fer.") else text for path, text in texts.items()}
    return {**texts, **{f"sweep.space: {path}": written(entry) for path, entry in identity["sweep.space"].items()}}


def bests_over(records: Sequence[Record]) -> go.Figure:
    """The best so far of each sweep by trial and, behind a button, by the hours when trials ended."""
    figure = go.Figure()
    views: list[list[bool]] = []
    for kind in range(2):
        for place, record in enumerate(records):
            hours = {number: end for number, (_, end) in record.times.items()}
            at = hours if kind else {trial.number: float(trial.number) for trial in record.state.trials}
            traces = _line(record, at, COLOURS[place % len(COLOURS)])
            figure.add_traces([trace.update(visible=not kind) for trace in traces])
            views += [[not kind, bool(kind)]] * len(traces)
    by_trial, by_time = ([view[kind] for view in views] for kind in range(2))
    figure.update_xaxes(title="trial")
    figure.update_yaxes(title=escaped(records[0].sweep.objective))
    return finish(figure, 480, updatemenus=[by_trial_or_time(by_trial, by_time)], legend=LEGEND)


def _line(record: Record, at: Mapping[int, float], colour: str) -> list[go.Scatter]:
    """A sweep's finished trials at these places, and a line through the best so far."""
    shown = sorted((t for t in record.state.ended if t.finished and t.number in at), key=lambda t: at[t.number])
    scores = [trial.score or 0.0 for trial in shown]
    if not scores:
        return []
    x, name = [at[trial.number] for trial in shown], escaped(record.state.id)
    marker = {"size": 6, "color": colour, "opacity": 0.4}
    texts = [f"{name}, {about(trial)}" for trial in shown]
    group = {"legendgroup": name, "name": name}
    best = best_so_far(scores, record.sweep.direction).tolist()
    points = go.Scatter(x=x, y=scores, mode="markers", marker=marker, hovertext=texts, hoverinfo="text", **group)
    line = {"shape": "hv", "color": colour, "width": 2.5}
    return [
        points.update(showlegend=False),
        go.Scatter(x=x, y=best, mode="lines", line=line, hoverinfo="skip", **group),
    ]
