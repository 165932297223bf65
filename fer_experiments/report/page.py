"""The page: what a sweep searched, on what, what it found and what it cost."""

from __future__ import annotations

import html
from datetime import UTC, datetime
from pathlib import Path

from plotly.offline import get_plotlyjs

from fer_experiments.report.cost import cost, endings
from fer_experiments.report.found import DETAILS, OVERVIEW, best, board, chart, mattered, seeds
from fer_experiments.report.markup import paragraph, tiles
from fer_experiments.report.record import Record
from fer_experiments.report.subject import data, searched
from fer_experiments.search.budget import per_hour

HERE = Path(__file__).parent
# Nothing may be fetched, from anywhere. Plotly's parallel coordinates compile functions (regl): unsafe-eval.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
    "form-action 'none'; base-uri 'none'"
)
MOMENT = "%Y-%m-%d %H:%M UTC"
PARTS = {
    "searched": "Search",
    "data": "Data",
    "best": "Best",
    "leaderboard": "Leaderboard",
    "objective": "Objective",
    "coordinates": "Parallel coordinates",
    "importances": "Importances",
    "contours": "Contours",
    "slices": "Slices",
    "curves": "Learning curves",
    "confusion": "Confusion",
    "seeds": "Seeds",
    "failures": "Failures",
    "cost": "Cost",
}


def page(record: Record) -> str:
    """The whole page as HTML that needs nothing else."""
    parts = [
        searched(record),
        data(record),
        best(record),
        board(record),
        *(chart(record, made) for made in OVERVIEW),
        mattered(record),
        *(chart(record, made) for made in DETAILS),
        seeds(record),
        endings(record),
        cost(record),
    ]
    links = "".join(f'<a href="#{name}">{html.escape(text)}</a>' for name, text in PARTS.items())
    header = f"{paragraph(_status(record))}{_tiles(record)}<nav>{links}</nav>"
    parts.append('<p id="selected" role="status"></p>')
    return document(f"Sweep {record.state.id}", header, "".join(parts), get_plotlyjs(), script())


def script() -> str:
    """What makes the page answer."""
    return (HERE / "page.js").read_text("utf-8")


def document(title: str, header: str, main: str, first_script: str = "", last_script: str = "") -> str:
    """A whole page of parts that are HTML already; the title is not. The scripts run before and after its parts."""
    title = html.escape(title)
    return "".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{(HERE / 'page.css').read_text('utf-8')}</style>",
            f"<script>{first_script}</script></head><body>",
            f"<header><h1>{title}</h1>{header}</header>",
            f"<main>{main}</main><script>{last_script}</script></body></html>\n",
        ]
    )


def _status(record: Record) -> str:
    state = record.state
    now, last = datetime.now(UTC), datetime.fromisoformat(state.updated)
    when = f"page made at {now:{MOMENT}}, last entry of {last:{MOMENT}}"
    by = f"by {state.reason}" if state.reason else "before its end"
    said = {
        "running": f"running, {len(state.in_flight)} in flight",
        "stopped": f"stopped {by}; its command given again goes on",
        "finished": f"ended by {state.reason or 'its budget'}",
    }[record.status]
    return f"{record.sweep.oracle} search for {record.sweep.direction} {record.sweep.objective}: {said} ({when})."


def _tiles(record: Record) -> str:
    state, top = record.state, record.state.best()
    shown = [("none", record.sweep.objective, "no trial has finished")]
    if top:
        low, high = (top.metrics.get(f"{record.sweep.objective}_{end}") for end in ("low", "high"))
        interval = f", 95 % interval {low:.4f} to {high:.4f}" if low is not None else ""
        shown = [(f"{top.score:.4f}", record.sweep.objective, f"trial {top.number}{interval}")]
    counts = {s: sum(t.status == s for t in state.ended) for s in ("finished", "pruned", "repeated", "failed")}
    more = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    shown.append((f"{len(state.ended):,}", "trials", more))
    if state.seconds:
        shown.append((f"{state.seconds / 3600:.2f}", "hours", f"{per_hour(state) or 0:,.0f} trials/h"))
    return tiles(shown)
