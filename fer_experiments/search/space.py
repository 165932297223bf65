"""A search space in YAML: config paths and their ranges, as its trials are made of it.

    head.l2: {type: float, min: 1.0e-6, max: 1.0e-1, sampling: log}
    backbone: {type: choice, values: [pocket, facenet]}                            # a group as a whole, by its YAMLs
    backbone.layers: {type: choice, values: [[stage2], [stage3]], when: {backbone: pocket}}

A trial is the base config with its values applied (`apply`), and is prepared and fitted from that alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from fer_experiments.config import BackboneConfig, Config, from_dict, to_dict, with_values
from fer_experiments.config.compose import group_section
from fer_experiments.config.parts import PREPARED_SECTIONS
from fer_experiments.errors import UserError


@dataclass(frozen=True)
class Row:
    """An oracle: its class, the settings of a sweep that it takes, whether it ends by itself, grants epochs, learns."""

    module: str  # in `search`; imported when it is asked: keras-tuner and Optuna take seconds
    name: str
    takes: tuple[str, ...] = ("max_trials",)
    ends: bool = False
    grants: bool = False  # it gives each trial its epochs, and ends hopeless ones itself
    learns: bool = False  # it asks by the scores of other trials, and may be told those of another sweep


ORACLES = {
    "random": Row("oracles", "RandomOracle"),
    "bayesian": Row("oracles", "BayesianOracle", learns=True),
    "tpe": Row("tpe", "TpeOracle", learns=True),
    "hyperband": Row("oracles", "HyperbandOracle", ("max_epochs", "factor"), ends=True, grants=True),
    "grid": Row("oracles", "GridOracle", ends=True),
}
GROUPS = ("backbone", "head")  # can be searched as a whole: their values are names of YAMLs in conf/
MOST_COMBINATIONS = 200


def options(entry: Mapping[str, Any]) -> list[Any]:
    """The values of a choice or a bool."""
    return list(entry.get("values", [False, True]))


def listed(value: Any) -> list[Any]:
    """What a condition wants: one value, or a list of several."""
    return list(value) if isinstance(value, list) else [value]


def active(space: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values whose conditions hold, in the order of the space; the others are no part of a trial."""
    kept: dict[str, Any] = {}
    for path, entry in space.items():
        conditions = entry.get("when", {}).items()
        if path in values and all(key in kept and kept[key] in listed(wanted) for key, wanted in conditions):
            kept[path] = values[path]
    return kept


def apply(config: Config, values: Mapping[str, Any]) -> Config:
    """The base config with a trial's values.

    A group that is searched as a whole is taken from its YAML, with what the base config says otherwise than its own
    YAML (`differences`); other paths are replaced after that.

    Raises:
        UserError: an unknown YAML or path, or a value of the wrong type.
    """
    groups = {path: value for path, value in values.items() if path in GROUPS}
    container = to_dict(config)
    for group, name in groups.items():
        container[group] = {**group_section(group, str(name)), **differences(config, group)}
    rest = {path: value for path, value in values.items() if path not in GROUPS}
    if not groups:
        return with_values(config, rest)
    return with_values(from_dict(container), rest)


def differences(config: Config, group: str) -> dict[str, Any]:
    """What a config's section says otherwise than the YAML of its name: as an override, it holds for every value."""
    section = to_dict(config)[group]
    try:
        own = group_section(group, section["name"])
    except UserError:  # a name that is no YAML's
        return {}
    return {key: value for key, value in section.items() if key != "name" and own[key] != value}


def searched_backbones(config: Config) -> list[BackboneConfig]:
    """The distinct backbones that trials of a sweep may have, as far as choices of whose weights they take say it."""
    assert config.sweep is not None
    space = {
        path: entry
        for path, entry in config.sweep.space.items()
        if path in ("backbone", "backbone.weights", "backbone.architecture", "backbone.preset", "backbone.kind")
    }
    found: dict[str, BackboneConfig] = {}
    for values in islice(product(*map(options, space.values())), MOST_COMBINATIONS):
        chosen = apply(config, active(config.sweep.space, dict(zip(space, values, strict=True)))).backbone
        found.setdefault(repr(chosen), chosen)
    return list(found.values())


def is_prepared_per_trial(space: Iterable[str]) -> bool:
    """Whether trials that differ in these paths differ in their data or features, and not in their heads alone."""
    return any(path.partition(".")[0] in PREPARED_SECTIONS for path in space)


def decode(space: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]) -> dict[str, Any]:
    """The oracle's values as config values: its own bookkeeping (tuner/...) and what is not `active` are left out."""
    decoded = {
        path: json.loads(values[path]) if entry["type"] == "choice" and not plain(entry["values"]) else values[path]
        for path, entry in space.items()
    }
    return active(space, decoded)


def plain(values: list[Any]) -> bool:
    """Whether KerasTuner takes these values of a choice as they are: scalars of one type."""
    return len({type(v) for v in values}) == 1 and isinstance(values[0], (int, float, str))
