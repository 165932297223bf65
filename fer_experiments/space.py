"""A search space in YAML: config paths and their ranges, checked before anything heavy is imported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fer_experiments.config import Config, with_values
from fer_experiments.errors import UserError

TYPES: dict[str, tuple[set[str], set[str]]] = {
    "float": ({"min", "max"}, {"sampling", "step"}),
    "int": ({"min", "max"}, {"sampling", "step"}),
    "choice": ({"values"}, set()),
    "bool": (set(), set()),
}
SAMPLINGS = ("linear", "log", "reverse_log")
METRICS = ("accuracy", "precision", "recall", "f1", "roc_auc", "loss")


def check_space(config: Config) -> None:
    """Refuses a space that cannot be searched, before anything is loaded.

    Raises:
        UserError: naming the key of the space, what is wrong with it and the remedy.
    """
    sweep = config.sweep
    if sweep is None:
        raise UserError("sweep: none given; say sweep=<a file in sweeps/>")
    names = [f"final/val_{name}" for name in METRICS]
    if sweep.objective not in names:
        raise UserError(f"sweep.objective={sweep.objective}: no such metric; choose one of {', '.join(names)}")
    if (sweep.objective == "final/val_loss") != (sweep.direction == "min"):
        better = "min" if sweep.direction == "max" else "max"
        raise UserError(f"sweep.direction={sweep.direction}: {sweep.objective} is better the other way, say {better}")
    if not sweep.space:
        raise UserError(f"sweep {sweep.name}: sweep.space is empty; add a config path, such as head.l2, with its range")
    if sweep.max_trials is None and sweep.oracle in ("random", "bayesian", "tpe"):
        raise UserError(f"sweep.max_trials=null: the {sweep.oracle} oracle never ends by itself; give a number")
    for path, entry in sweep.space.items():
        _check_entry(path, entry)
        for value in (entry["min"], entry["max"]) if "min" in entry else entry.get("values", [True]):
            try:
                with_values(config, {path: value})
            except UserError as error:
                raise UserError(f"sweep.space: {error}") from error


def _check_entry(path: str, entry: Any) -> None:
    kind = entry.get("type") if isinstance(entry, Mapping) else None
    if kind not in TYPES:
        raise UserError(f"sweep.space: {path}: type: {kind}: choose one of {', '.join(TYPES)}")
    required, optional = TYPES[kind]
    keys = set(entry) - {"type"}
    if missing := required - keys:
        raise UserError(f"sweep.space: {path}: a {kind} needs {' and '.join(sorted(missing))}")
    if unknown := keys - required - optional:
        raise UserError(f"sweep.space: {path}: {', '.join(sorted(unknown))}: no key of a {kind}")
    if kind == "choice":
        if not isinstance(entry["values"], list) or not entry["values"]:
            raise UserError(f"sweep.space: {path}: values must be a list with at least one value")
        written = [json.dumps(value, sort_keys=True) for value in entry["values"]]
        if twice := [text for text in dict.fromkeys(written) if written.count(text) > 1]:
            raise UserError(f"sweep.space: {path}: values: {', '.join(twice)} given twice; say each once")
        return
    if kind == "bool":
        return
    _check_range(path, kind, entry)


def _check_range(path: str, kind: str, entry: Mapping[str, Any]) -> None:
    number = int if kind == "int" else (int, float)
    for key in ("min", "max", "step"):
        value = entry.get(key, 1)
        if value is not None and (not isinstance(value, number) or isinstance(value, bool)):
            raise UserError(f"sweep.space: {path}: {key}: {value} is not {'a whole' if kind == 'int' else 'a'} number")
    if not entry["min"] < entry["max"]:
        raise UserError(f"sweep.space: {path}: min {entry['min']} must be less than max {entry['max']}")
    step = entry.get("step")
    if step is not None and step <= 0:
        raise UserError(f"sweep.space: {path}: step {step} must be greater than 0")
    sampling = entry.get("sampling") or "linear"
    if sampling not in SAMPLINGS:
        raise UserError(f"sweep.space: {path}: sampling: {sampling}: choose one of {', '.join(SAMPLINGS)}")
    if sampling != "linear" and entry["min"] <= 0:
        raise UserError(f"sweep.space: {path}: {sampling} sampling needs min greater than 0, not {entry['min']}")
    if sampling != "linear" and step is not None and step <= 1:
        raise UserError(f"sweep.space: {path}: with {sampling} sampling step is a factor, greater than 1")


def decode(space: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]) -> dict[str, Any]:
    """The oracle's values as config values; its own bookkeeping (tuner/...) is left out."""
    return {
        path: json.loads(values[path]) if entry["type"] == "choice" and not plain(entry["values"]) else values[path]
        for path, entry in space.items()
    }


def plain(values: list[Any]) -> bool:
    """Whether KerasTuner takes these values of a choice as they are: scalars of one type."""
    return len({type(v) for v in values}) == 1 and isinstance(values[0], (int, float, str))
