"""Whether a search space, and what searches it, can be: before anything is loaded or anything heavy imported."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import Any

from fer_experiments.config import Config, check, close, flatten, to_dict
from fer_experiments.config.checks import FLOAT, check_effect
from fer_experiments.config.parts import EXPERIMENT_SECTIONS, marked
from fer_experiments.errors import UserError
from fer_experiments.evaluation.metrics import OF_A_FIT, direction, recorded_as
from fer_experiments.search.repeats import check_repeats
from fer_experiments.search.space import GROUPS, MOST_COMBINATIONS, ORACLES, active, apply, listed, options

TYPES: dict[str, tuple[set[str], set[str]]] = {
    "float": ({"min", "max"}, {"sampling", "step", "when"}),
    "int": ({"min", "max"}, {"sampling", "step", "when"}),
    "choice": ({"values"}, {"when"}),
    "bool": (set(), {"when"}),
}

# Every key of the experiment can be searched but for those that say why not, and of data those alone that do not
# move the validation images.
SECTIONS = tuple(f"{section}." for section in EXPERIMENT_SECTIONS if section != "data")
REFUSED = marked("fixed")
UNDECIDED = marked("undecided")
OF_TRAINING = tuple(marked("of_training"))
MOST_STEPS = 10**9  # of a range; one of more is as good as continuous
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
        for value in _probes(entry) if "min" in entry else options(entry):
            if value == UNDECIDED.get(path, ...):
                raise UserError(f"sweep.space: {path}: {value} is decided once for all trials; name what it may be")
            try:
                _check_value(config, sweep.space, path, value)
            except UserError as error:
                raise UserError(f"sweep.space: {error}") from error


def _check_entry(path: str, entry: Any) -> None:
    kind = entry.get("type") if isinstance(entry, Mapping) else None
    if not isinstance(kind, str) or kind not in TYPES:
        raise UserError(f"sweep.space: {path}: type: {kind}: choose one of {', '.join(TYPES)}")
    required, optional = TYPES[kind]
    keys = set(entry) - {"type"}
    if missing := required - keys:
        raise UserError(f"sweep.space: {path}: a {kind} needs {' and '.join(sorted(missing))}")
    if unknown := keys - required - optional:
        raise UserError(f"sweep.space: {path}: {', '.join(sorted(map(str, unknown)))}: no key of a {kind}")
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
        if value is not None and not -FLOAT <= value <= FLOAT:  # nan neither
            raise UserError(f"sweep.space: {path}: {key}: {value} is no number that makes sense there")
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
    low, high = entry["min"], entry["max"]
    if step is not None:
        steps = (high - low) / step if sampling == "linear" else math.log(high / low) / math.log(step)
        if steps > MOST_STEPS:
            raise UserError(f"sweep.space: {path}: step {step} makes {steps:.0e} values; say a larger one, or none")


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
            finite = ", ".join(k for k in earlier if space[k]["type"] in ("choice", "bool")) or "none there"
            raise UserError(f"sweep.space: {path}: when: {key}: no choice that comes before it; {finite}")
        if not listed(wanted):
            raise UserError(f"sweep.space: {path}: when: {key}: []: name one of its values, or a list of them")
        for value in listed(wanted):
            if value not in options(space[key]):
                raise UserError(
                    f"sweep.space: {path}: when: {key}: {value}: not among its values {options(space[key])}"
                )


def _probes(entry: Mapping[str, Any]) -> list[float]:
    """Values that say what those of a range are like: its ends, and what lies between them."""
    low, high, step = entry["min"], entry["max"], entry.get("step")
    if entry["type"] == "int" or (step and (entry.get("sampling") or "linear") != "linear"):
        return [low, high]
    return [low, high, low + (step or 0.618 * (high - low))]


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
    wanted = {key: listed(value)[0] for key, value in space[but].get("when", {}).items()}
    yield wanted
    finite = {path: options(e) for path, e in space.items() if path != but and e["type"] in ("choice", "bool")}
    yield from (dict(zip(finite, values, strict=True)) for values in product(*finite.values()))
