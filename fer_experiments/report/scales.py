"""Where the values of a hyperparameter lie on an axis."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fer_experiments.search.leaderboard import ABSENT, written
from fer_experiments.search.trials import Trial

SHORT = 24  # characters of a tick's text
MISSING: Any = object()  # in the place of a value: the key was absent. None is a value, null


@dataclass(frozen=True)
class Scale:
    """An axis for one hyperparameter: numbers as they are or their log10, the values of a choice by their place.

    at: where each trial lies. low, high: what the space allows. ticks: place -> text; empty for the chart's own.
    discrete: of a choice. log: places are log10. No text is escaped.
    """

    label: str
    at: list[float]
    low: float
    high: float
    ticks: dict[float, str]
    discrete: bool = False
    log: bool = False


def scale_of(path: str, entry: Mapping[str, Any], values: Sequence[Any]) -> Scale:
    """The axis of a hyperparameter.

    Args:
        path: its config path.
        entry: its entry in the space.
        values: of the trials to show; `MISSING` lies below the others.
    """
    if any(value is MISSING for value in values):
        return _with_absent(path, entry, values)
    if entry["type"] in ("choice", "bool"):
        texts = [written(value) for value in values]
        options = list(dict.fromkeys([*map(written, entry.get("values", [False, True])), *texts]))
        ticks = {float(place): short(option) for place, option in enumerate(options)}
        places = [float(options.index(text)) for text in texts]
        return Scale(path, places, -0.5, len(options) - 0.5, ticks, discrete=True)
    low, high = float(entry["min"]), float(entry["max"])
    if entry.get("sampling") != "log":
        return Scale(path, [float(value) for value in values], low, high, {})
    low, high = math.log10(low), math.log10(high)
    return Scale(f"{path} (log)", [math.log10(v) for v in values], low, high, _log_ticks(low, high), log=True)


def values_at(path: str, trials: Sequence[Trial]) -> list[Any]:
    """What each trial had at a path of the space, `MISSING` where its condition did not hold."""
    return [trial.values.get(path, MISSING) for trial in trials]


def _with_absent(path: str, entry: Mapping[str, Any], values: Sequence[Any]) -> Scale:
    """The axis with a place for absent values below what the space allows."""
    scale = scale_of(path, entry, [value for value in values if value is not MISSING])
    there = iter(scale.at)
    below = scale.low - (0.5 if scale.discrete else (scale.high - scale.low) / 9)  # a tenth of the whole
    at = [below if value is MISSING else next(there) for value in values]
    ticks = scale.ticks or {place: f"{place:g}" for place in (scale.low, (scale.low + scale.high) / 2, scale.high)}
    low = below - (0.5 if scale.discrete else 0.0)
    return replace(scale, at=at, low=low, ticks={below: ABSENT, **ticks})


def short(text: str) -> str:
    """A text for an axis, cut."""
    return text if len(text) <= SHORT else f"{text[: SHORT - 1]}…"


def escaped(text: str) -> str:
    """A text for Plotly, which reads HTML in most; but not `&quot;`, nor anything in ticks of parallel coordinates."""
    return html.escape(text, quote=False)


def _log_ticks(low: float, high: float) -> dict[float, str]:
    """Powers of ten; where there are fewer than three, their doubles and fivefolds too."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    for steps in ((1,), (1, 2, 5), tuple(range(1, 10))):
        places = [math.log10(step) + decade for decade in decades for step in steps]
        places = [place for place in places if low - 1e-9 <= place <= high + 1e-9]
        if len(places) >= 3:
            break
    places = places[:: math.ceil(len(places) / 8)] or [low, high]
    return {place: f"{10**place:.3g}" for place in places}
