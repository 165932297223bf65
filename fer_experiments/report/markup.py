"""Pieces of HTML; every text that goes in is escaped here."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go
import plotly.io

from fer_experiments.terminal import number


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, name: str = "", sortable: bool = False) -> str:
    """A table; numbers are shortened and stand on the right, None is empty. name: its id.

    sortable: a click on a header sorts, by the numbers themselves. The first column of a sortable one is its row's key.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    if sortable:
        titles = "".join(
            f'<th scope="col" aria-sort="none"><button type="button">{html.escape(h)}</button></th>' for h in head
        )
    else:
        titles = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in head)
    attributes = (f' id="{name}"' if name else "") + (' class="sortable"' if sortable else "")
    return f'<div class="scroll"><table{attributes}><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "<td></td>"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{html.escape(str(value))}</td>"
    return f'<td class="number" data-value="{value!r}">{number(value, ",")}</td>'


def section(name: str, title: str, *content: str, hint: str = "") -> str:
    """A part of the page with its heading; name: its id."""
    said = f'<p class="hint">{html.escape(hint)}</p>' if hint else ""
    return f'<section id="{name}"><h2>{html.escape(title)}</h2>{said}{"".join(content)}</section>'


def paragraph(text: str) -> str:
    """A paragraph."""
    return f"<p>{html.escape(text)}</p>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what they are."""
    return f"<dl>{''.join(f'<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>' for k, v in pairs)}</dl>"


def tiles(pairs: Iterable[tuple[str, str, str]]) -> str:
    """The numbers that count: (value, what it is, a remark)."""
    made = (
        f"<li><strong>{value}</strong> <span>{what}</span> <small>{more}</small></li>"
        for value, what, more in (map(html.escape, tile) for tile in pairs)
    )
    return f'<ul class="tiles">{"".join(made)}</ul>'


def to_copy(name: str, text: str) -> str:
    """A text with a button that copies it."""
    return (
        f'<div class="copy"><pre id="{name}">{html.escape(text)}</pre>'
        f'<button type="button" data-copy="{name}">Copy</button></div>'
    )


def folded(summary: str, *content: str) -> str:
    """What few want to see, behind a line to click."""
    return f"<details><summary>{html.escape(summary)}</summary>{''.join(content)}</details>"


def figure(name: str, chart: go.Figure) -> str:
    """A figure, without Plotly's script; name: its id. Of its menus' buttons the page makes its own (page.js).

    Plotly's answer to no key, and lie below its tool bar.
    """
    buttons = [button for menu in chart.layout.updatemenus for button in menu.buttons]
    chart = go.Figure(chart).update_layout(updatemenus=[], overwrite=True)
    views = "".join(
        f'<button type="button" data-chart="{name}" data-update="{html.escape(json.dumps(button.args))}" '
        f'aria-pressed="{"false" if place else "true"}">{html.escape(button.label)}</button>'
        for place, button in enumerate(buttons)
    )
    without = ["select2d", "lasso2d", "autoScale2d"]  # the page selects (page.js)
    config = {"displaylogo": False, "showSendToCloud": False, "responsive": True, "modeBarButtonsToRemove": without}
    drawn = plotly.io.to_html(chart, config, include_plotlyjs=False, full_html=False, div_id=name, default_width="100%")
    return (f'<div class="views" role="group">{views}</div>' if views else "") + f'<div class="chart">{drawn}</div>'
