"""The form that selects trials as dragging along the axes of the parallel coordinates does."""

from __future__ import annotations

import html
import json

from fer_experiments.report.figures import axes
from fer_experiments.report.markup import folded
from fer_experiments.report.record import Record
from fer_experiments.report.scales import Scale


def selection(record: Record) -> str:
    """For each axis two sliders over its hundredths or, of a choice, a box for each value.

    page.js keeps axes and form the same, and draws the ticks of a field at its axis.
    """
    fields = "".join(_field(path, scale) for path, scale in axes(record).items())
    release = '<button type="button">All trials</button>'
    return folded("Select by value", f'<form id="selection">{fields}<p>{release}</p></form>')


def _field(path: str, scale: Scale) -> str:
    """The fieldset of an axis, whose name is its path."""
    label = html.escape(scale.label)
    if scale.discrete:
        inputs = "".join(
            f'<label><input type="checkbox" value="{place!r}"> {html.escape(text)}</label>'
            for place, text in scale.ticks.items()
        )
    else:
        inputs = "".join(
            f'<label>{end} <input type="range" aria-label="{label} {end}" min="0" max="100" value="{value}"> '
            f'<span aria-hidden="true"></span></label>'
            for end, value in (("from", 0), ("to", 100))
        )
    ticks = html.escape(json.dumps([] if scale.discrete else list(scale.ticks.items())))
    told = f'data-ticks="{ticks}"{" data-log" if scale.log else ""}'
    return f'<fieldset name="{html.escape(path)}" {told}><legend>{label}</legend>{inputs}</fieldset>'
