"""A search space in YAML: config paths and their ranges, checked before anything heavy is imported.

    head.l2: {type: float, min: 1.0e-6, max: 1.0e-1, sampling: log}
    backbone: {type: choice, values: [pocket, facenet]}                            # a group as a whole, by its YAMLs
    backbone.layers: {type: choice, values: [[stage2], [stage3]], when: {backbone: pocket}}

A trial is the base config with its values applied (`apply`), and is prepared and fitted from that alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from fer_experiments.config import BackboneConfig, Config, check, close, flatten, from_dict, to_dict, with_values
from fer_experiments.config.checks import check_effect
from fer_experiments.config.compose import group_section
from fer_experiments.config.parts import EXPERIMENT_SECTIONS, PREPARED_SECTIONS, marked
from fer_experiments.errors import UserError
from fer_experiments.evaluation.metrics import OF_A_FIT, direction, recorded_as
from fer_experiments.search.repeats import check_repeats

TYPES: dict[str, tuple[set[str], set[str]]] = {
    "float": ({"min", "max"}, {"sampling", "step", "when"}),
    "int": ({"min", "max"}, {"sampling", "step", "when"}),
    "choice": ({"values"}, {"when"}),
    "bool": (set(), {"when"}),
}


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
# Every key of the experiment can be searched but for those that say why not, and of data those alone that do not
# move the validation images.
SECTIONS = tuple(f"{section}." for section in EXPERIMENT_SECTIONS if section != "data")
REFUSED = marked("fixed")
UNDECIDED = marked("undecided")
OF_TRAINING = tuple(marked("of_training"))
MOST_COMBINATIONS = 200
SAMPLINGS = ("linear", "log", "reverse_log")
OBJECTIVES = {f"final/val_{recorded_as(name)}": direction(name) for name in OF_A_FIT}  # and which way each is better


def check_space(config: Config) -> None:
    """Refuses a space that cannot be searched, before anything is loaded.

    Raises:
        UserError: naming the key of the space, what is wrong with it and the remedy.
    """
    sweep = config.sweep
    if sweep is None:
        raise UserError("sweep: none given; say sweep=<a file in sweeps/>")
    if sweep.oracle not in ORACLES:
        raise UserError(f"sweep.oracle={sweep.oracle}: choose one of {', '.join(ORACLES)}")
    if sweep.objective not in OBJECTIVES:
        raise UserError(f"sweep.objective={sweep.objective}: no such metric; choose one of {', '.join(OBJECTIVES)}")
    if sweep.direction != (better := OBJECTIVES[sweep.objective]):
        raise UserError(f"sweep.direction={sweep.direction}: {sweep.objective} is better the other way, say {better}")
    if not sweep.space:
        raise UserError(f"sweep {sweep.name}: sweep.space is empty; add a config path, such as head.l2, with its range")
    if sweep.max_trials is None and not ORACLES[sweep.oracle].ends:
        raise UserError(f"sweep.max_trials=null: the {sweep.oracle} oracle never ends by itself; give a number")
    if sweep.pruner != "none" and ORACLES[sweep.oracle].grants:
        raise UserError(
            f"sweep.pruner={sweep.pruner}: {sweep.oracle} ends hopeless trials itself; say sweep.pruner=none"
        )
    check_repeats(config, ORACLES[sweep.oracle].grants)
    for path, entry in sweep.space.items():
        _check_searchable(path, config)
        _check_entry(path, entry)
    for path, entry in sweep.space.items():
        _check_condition(path, entry, sweep.space)
    for path, entry in sweep.space.items():
        for value in (entry["min"], entry["max"]) if "min" in entry else _options(entry):
            if value == UNDECIDED.get(path, ...):
                raise UserError(f"sweep.space: {path}: {value} is decided once for all trials; name what it may be")
            try:
                _check_value(config, sweep.space, path, value)
            except UserError as error:
                raise UserError(f"sweep.space: {error}") from error


def _check_searchable(path: str, config: Config) -> None:
    """Refuses what is no setting of a single trial, and what would move the images that trials are compared on."""
    section, _, key = path.partition(".")
    if path in REFUSED:
        raise UserError(f"sweep.space: {path}: {REFUSED[path]}; leave it out")
    if path == "training.epochs" and config.sweep and ORACLES[oracle := config.sweep.oracle].grants:
        raise UserError(f"sweep.space: {path}: {oracle} grants the epochs itself; leave it out, say sweep.max_epochs")
    if path in OF_TRAINING and config.data.split == "stratified":
        raise UserError(
            f"sweep.space: {path}: with data.split=stratified it moves the validation images, and trials could not be "
            "compared; leave it out, or say data.split=official or kfold"
        )
    if path in GROUPS or path in OF_TRAINING or path.startswith(SECTIONS):
        return
    if section == "data":
        raise UserError(
            f"sweep.space: {path}: it moves the validation images, and trials could not be compared; of data only "
            f"{' and '.join(OF_TRAINING)} can be searched"
        )
    if not key and section in vars(config):
        raise UserError(
            f"sweep.space: {path}: as a whole only {' and '.join(GROUPS)} can be searched; name a key of it"
        )
    if section in vars(config):
        raise UserError(f"sweep.space: {path}: says where or how long trials run, not what they are; leave it out")
    known = [known for known in flatten(to_dict(config)) if known.startswith(SECTIONS)]
    raise UserError(f"sweep.space: {path}: no such config path{close(path, [*known, *GROUPS, *OF_TRAINING])}")


def _check_condition(path: str, entry: Mapping[str, Any], space: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses a `when` that names no earlier key of the space, or a value that this key cannot have."""
    condition = entry.get("when", {})
    if not isinstance(condition, Mapping):
        raise UserError(f"sweep.space: {path}: when: {condition}: say {{<another key of the space>: <its value>}}")
    earlier = list(space)[: list(space).index(path)]
    for key, wanted in condition.items():
        if key not in earlier or space[key]["type"] not in ("choice", "bool"):
            options = ", ".join(k for k in earlier if space[k]["type"] in ("choice", "bool")) or "none there"
            raise UserError(f"sweep.space: {path}: when: {key}: no choice that comes before it; {options}")
        for value in _listed(wanted):
            if value not in _options(space[key]):
                raise UserError(
                    f"sweep.space: {path}: when: {key}: {value}: not among its values {_options(space[key])}"
                )


def _check_value(config: Config, space: Mapping[str, Mapping[str, Any]], path: str, value: Any) -> None:
    """Refuses a value with which no trial could be made, whatever the other keys have.

    One that some combinations cannot have is none of these: such a trial fails, with its reason.
    """
    refused: UserError | None = None
    for others in islice(_combinations(space, path), MOST_COMBINATIONS):
        values = active(space, {**others, path: value})
        if path not in values:
            continue  # its condition does not hold with these
        try:
            check(trial := apply(config, values))
            check_effect(path, trial)
            return
        except UserError as error:
            refused = refused or error
    if refused is not None:
        raise refused


def _combinations(space: Mapping[str, Mapping[str, Any]], but: str) -> Iterator[dict[str, Any]]:
    """Values of the choices in a space but for one key: those that its condition wants first, then every other."""
    wanted = {key: _listed(value)[0] for key, value in space[but].get("when", {}).items()}
    yield wanted
    finite = {path: _options(e) for path, e in space.items() if path != but and e["type"] in ("choice", "bool")}
    yield from (dict(zip(finite, values, strict=True)) for values in product(*finite.values()))


def _options(entry: Mapping[str, Any]) -> list[Any]:
    return list(entry.get("values", [False, True]))


def _listed(value: Any) -> list[Any]:
    """What a condition wants: one value, or a list of several."""
    return list(value) if isinstance(value, list) else [value]


def active(space: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values whose conditions hold, in the order of the space; the others are no part of a trial."""
    kept: dict[str, Any] = {}
    for path, entry in space.items():
        conditions = entry.get("when", {}).items()
        if path in values and all(key in kept and kept[key] in _listed(wanted) for key, wanted in conditions):
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
    for values in islice(product(*map(_options, space.values())), MOST_COMBINATIONS):
        chosen = apply(config, active(config.sweep.space, dict(zip(space, values, strict=True)))).backbone
        found.setdefault(repr(chosen), chosen)
    return list(found.values())


def is_prepared_per_trial(space: Iterable[str]) -> bool:
    """Whether trials that differ in these paths differ in their data or features, and not in their heads alone."""
    return any(path.partition(".")[0] in PREPARED_SECTIONS for path in space)


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
    """The oracle's values as config values: its own bookkeeping (tuner/...) and what is not `active` are left out."""
    decoded = {
        path: json.loads(values[path]) if entry["type"] == "choice" and not plain(entry["values"]) else values[path]
        for path, entry in space.items()
    }
    return active(space, decoded)


def plain(values: list[Any]) -> bool:
    """Whether KerasTuner takes these values of a choice as they are: scalars of one type."""
    return len({type(v) for v in values}) == 1 and isinstance(values[0], (int, float, str))
