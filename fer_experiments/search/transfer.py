"""What values and trials are in a sweep's space, as its oracle would have asked for them; imports nothing heavy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from fer_experiments.config.parts import YOUNGER
from fer_experiments.search.space import GROUPS, active, plain
from fer_experiments.search.state import State
from fer_experiments.search.trials import Trial, conforms

ABSENT = object()  # no value, or none that is known
SLACK = 1e-9  # of rounding, by the size of a range


def as_raw(entry: Mapping[str, Any], value: Any) -> Any:
    """The oracle's form of a config's value of a space's entry, None where the entry does not have it."""
    if entry["type"] == "bool":
        return value if type(value) is bool else None
    if entry["type"] == "choice":
        own = [each for each in entry["values"] if each == value and (type(each) is bool) == (type(value) is bool)]
        return (own[0] if plain(entry["values"]) else json.dumps(own[0])) if own else None
    kind = float if entry["type"] == "float" else int
    return kind(value) if conforms(value, kind) and _is_on_scale(entry, value) else None


def _is_on_scale(entry: Mapping[str, Any], value: float) -> bool:
    """Whether a number lies in a range, and on one of its steps where it has some."""
    low, high, step = entry["min"], entry["max"], entry.get("step")
    slack = SLACK * (abs(low) + abs(high))
    if not low - slack <= value <= high + slack:
        return False
    if not step:
        return True
    if (entry.get("sampling") or "linear") == "linear":
        place = (value - low) / step
    else:
        above = value if entry["sampling"] == "log" else high + low - value
        place = math.log(above / low, step)
    return abs(place - round(place)) < 1e-6


def as_asked(identity: Mapping[str, Any], other: State, trial: Trial) -> dict[str, Any] | None:
    """The raw values of another sweep's trial in the space of the sweep of this identity, None where it does not fit.

    It fits where each value that one of them searches is in the other's space, or what the other has fixed.
    """
    space = identity["sweep.space"]
    if any(path not in space and fixed(identity, path) != value for path, value in trial.values.items()):
        return None
    known = {path: as_raw(entry, _had(other, trial, path)) for path, entry in space.items()}
    values = {path: _had(other, trial, path) for path in space}
    if any(known[path] is None for path in active(space, values)):
        return None
    # What is not active makes no difference, and has a value all the same.
    return {path: raw_default(space[path]) if raw is None else raw for path, raw in known.items()}


def _had(other: State, trial: Trial, path: str) -> Any:
    """What a trial of another sweep had at a path that this one searches."""
    if path in other.identity["sweep.space"]:
        return trial.values.get(path, ABSENT)
    return fixed(other.identity, path)


def fixed(identity: Mapping[str, Any], path: str) -> Any:
    """What all trials of a sweep have at a path that it does not search; `ABSENT` where they differ in its group."""
    if path in GROUPS:
        return identity.get(f"{path}.name", ABSENT)
    if path.partition(".")[0] in identity["sweep.space"]:
        return ABSENT
    return identity.get(path, YOUNGER.get(path, ABSENT))


def raw_default(entry: Mapping[str, Any]) -> Any:
    """The first value of a space's entry, as its oracle has it."""
    return as_raw(entry, entry["min"] if "min" in entry else entry.get("values", [False])[0])
