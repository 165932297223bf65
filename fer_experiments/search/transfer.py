"""What values and trials are in a sweep's space, as its oracle would have asked for them; imports nothing heavy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from fer_experiments.config.parts import YOUNGER
from fer_experiments.search.space import GROUPS, ORACLES, active, plain
from fer_experiments.search.state import State
from fer_experiments.search.trials import Trial, conforms, is_within

ABSENT = object()  # no value, or none that is known


def as_raw(entry: Mapping[str, Any], value: Any) -> Any:
    """The oracle's form of a config's value of a space's entry, None where the entry does not have it."""
    if entry["type"] == "bool":
        return value if type(value) is bool else None
    if entry["type"] == "choice":
        own = [each for each in entry["values"] if each == value and (type(each) is bool) == (type(value) is bool)]
        return (own[0] if plain(entry["values"]) else json.dumps(own[0])) if own else None
    kind = float if entry["type"] == "float" else int
    if not conforms(value, kind) or not is_within(entry, value):
        return None
    # A step's rounding is KerasTuner's.
    linear = entry.get("step") and (entry.get("sampling") or "linear") == "linear"
    kept = value if linear else min(max(value, entry["min"]), entry["max"])
    return kind(kept) if _is_on_scale(entry, kept) else None


def _is_on_scale(entry: Mapping[str, Any], value: float) -> bool:
    """Whether a number of a range is on one of its steps, where it has some."""
    low, high, step = entry["min"], entry["max"], entry.get("step")
    if not step:
        return True
    if (entry.get("sampling") or "linear") == "linear":
        place = (value - low) / step
    else:
        above = value if entry["sampling"] == "log" else high + low - value
        place = math.log(above / low, step)
    return abs(place - round(place)) < 1e-6


def refusal(identity: Mapping[str, Any], other: State) -> str | None:
    """Why the scores of another sweep are none for the oracle of the sweep of this identity, in words; or None."""
    theirs = other.identity
    for key in ("sweep.objective", "fer.dataset"):
        if identity.get(key) != theirs.get(key):
            what, had, has = key.split(".")[1], str(theirs.get(key)), str(identity.get(key))
            data = [k for k in differing(identity, theirs) if k.startswith("data.")] if key == "fer.dataset" else []
            return f"{other.id} has another {what}, {had[:24]} and not {has[:24]}" + (
                f": they differ in {', '.join(data)}" if data else ""
            )
    return None


def differing(identity: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The keys in which two identities differ."""
    return [k for k in sorted({*identity, *theirs}) if identity.get(k) != theirs.get(k)]


def known_of(identity: Mapping[str, Any], other: State) -> list[dict[str, Any]]:
    """What an oracle may be told of another sweep: raw values and score of each trial that came to its end and fits.

    Of those of Hyperband, the ones that had all epochs.
    """
    most = (None, other.identity.get("sweep.max_epochs"))
    trials = [trial for trial in other.trials if trial.finished and trial.grant.epochs in most]
    fitting = [(as_asked(identity, other, trial), trial.score) for trial in trials]
    return [{"raw": raw, "score": score} for raw, score in fitting if raw is not None]


def would_help(identity: Mapping[str, Any], other: State) -> bool:
    """Whether the sweep of this identity could begin with what another knows, and does not."""
    row = ORACLES.get(str(identity.get("sweep.oracle")))
    if row is None or not row.learns or identity.get("sweep.warm_start") or refusal(identity, other):
        return False
    return bool(known_of(identity, other))


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
