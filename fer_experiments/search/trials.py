"""What a sweep keeps of its trials: the fields of one, and how they are read from JSON and written to it."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from types import UnionType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from fer_experiments.search.space import decode, plain

STATUSES = ("asked", "finished", "pruned", "repeated", "failed")
RUN_ID = re.compile("[0-9a-f]{32}")
SLACK = 1e-9  # of rounding, relative
LARGEST = 2**53  # whole numbers up to here are no nonsense
T = TypeVar("T")


class Grant(NamedTuple):
    """What Hyperband grants a trial: the epoch it ends with, the one it goes on from, and the oracle's id of whose."""

    epochs: int | None
    initial_epoch: int | None
    trial_id: str | None


@dataclass(frozen=True)
class Known:
    """What an oracle is told of another sweep's trial: its values, as it would have asked for them, and its score."""

    raw: dict[str, Any]
    score: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):
            raise ValueError(f"score: {self.score}")


@dataclass(kw_only=True)
class Outcome:
    """How a trial ended: what a worker returns of it, and what its run keeps as `tracking.RECORD`."""

    status: str = "asked"  # and at its end finished, pruned, repeated or failed
    score: float | None = None  # the objective; None where it failed
    scores: list[float] = field(
        default_factory=list
    )  # that of each fit, of which score is the mean, where it had several
    run_id: str | None = None  # of the run that has the score
    metrics: dict[str, float] = field(default_factory=dict)  # final/val_..., nan where one is not defined
    epochs: int | None = None  # that it was fitted for
    parameters: int | None = None  # of its head
    best_epoch: int | None = None  # from 0: the one whose weights were kept
    fit_s: float | None = None  # seconds in the fit alone
    seconds: float | None = None  # in all; of old failed trials it is not known
    error: str = ""  # why it failed
    of: int | None = None  # the number of the trial that it repeats
    impossible: bool = False  # nothing could be made of its values: many of them in a row stop no sweep
    out_of_time: bool = False  # ended by sweep.max_trial_minutes
    objectives: list[float] = field(default_factory=list)  # after each epoch, where a pruner compares them
    curve: list[float] = field(default_factory=list)  # the same of older versions: of val_accuracy, or of what was
    # minimised, whatever the objective

    @property
    def std(self) -> float | None:
        """The standard deviation of the objective over its fits; None of one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    def compared(self, objective: str) -> list[float]:
        """The objective after each epoch, as far as it is known."""
        return self.objectives or (self.curve if objective == "final/val_accuracy" else [])

    def json(self) -> dict[str, Any]:
        """As plain containers; what is not known, or does not hold, is absent."""
        return {k: v for k, v in vars(self).items() if v or type(v) in (int, float) or k == "score"}

    def check(self) -> None:
        """Refuses, as ValueError, values that no trial comes to."""
        if self.status not in STATUSES:
            raise ValueError(f"status: {self.status!r} is none of {', '.join(STATUSES)}")
        if self.run_id is not None and not RUN_ID.fullmatch(self.run_id):
            raise ValueError(f"run_id: {self.run_id!r} is no run's")
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError(f"score: {self.score}")
        if self.scores and not (
            max(map(abs, self.scores)) < LARGEST  # nor nan
            and math.isclose(statistics.fmean(self.scores), self.score or 0, rel_tol=1e-6, abs_tol=1e-9)
        ):
            raise ValueError(f"scores: {self.scores}: their mean is not {self.score}")
        for name in ("fit_s", "seconds"):
            if not 0 <= (getattr(self, name) or 0) < math.inf:
                raise ValueError(f"{name}: {getattr(self, name)}")
        if self.status in ("finished", "pruned"):
            needed = ("score", "run_id", "epochs", "best_epoch", "seconds")
            missing = [name for name in needed if getattr(self, name) is None]
            missing += [f"final/val_accuracy_{end}" for end in ("low", "high")
                        if f"final/val_accuracy_{end}" not in self.metrics]  # fmt: skip
            if missing:
                raise ValueError(f"{self.status}, without its {' and '.join(missing)}")


@dataclass(kw_only=True)
class Trial(Outcome):
    """A trial that an oracle was asked for, and how it ended."""

    number: int  # from 0, in the order of asking
    trial_id: str = ""  # the oracle's
    values: dict[str, Any] = field(default_factory=dict)  # by config path, those alone whose conditions hold
    raw: dict[str, Any] = field(default_factory=dict)  # the oracle's own form of them
    told: float | None = None  # the score its oracle heard, which may be an earlier one where it was run again

    @property
    def finished(self) -> bool:
        """Whether it came to its end by itself: it may be the best."""
        return self.status == "finished"

    @property
    def failed(self) -> bool:
        """Whether it came to nothing."""
        return self.status == "failed"

    @property
    def grant(self) -> Grant:
        """What KerasTuner keeps of it among a trial's hyperparameters; None each with other oracles."""
        return Grant(*(self.raw.get(f"tuner/{key}") for key in Grant._fields))

    @property
    def work(self) -> tuple[Any, ...]:
        """What two trials that come to the same have in common: values, and the epochs that Hyperband grants."""
        return self.values, self.grant

    @property
    def outcome(self) -> Outcome:
        """How it ended, alone: what its run keeps."""
        return Outcome(**{each.name: getattr(self, each.name) for each in fields(Outcome)})

    def end(self, done: Outcome) -> None:
        """Takes over how it ended; of an earlier end nothing stays."""
        vars(self).update(vars(done))

    def json(self) -> dict[str, Any]:
        """As `Outcome.json`; told where it is not the score."""
        written = super().json()
        written.pop("told", None)
        return written if self.told == self.score else {**written, "told": self.told}

    def check_values(self, space: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuses, as ValueError, what is not in the space."""
        check_raw(space, self.raw)
        made = decode(space, self.raw)
        if json.dumps(made, sort_keys=True) != json.dumps(self.values, sort_keys=True):
            raise ValueError("values: are not what its oracle asked for (raw)")


def check_raw(space: Mapping[str, Mapping[str, Any]], raw: Mapping[str, Any]) -> None:
    """Refuses, as ValueError, what an oracle cannot have asked for."""
    own = {path: value for path, value in raw.items() if not path.startswith("tuner/")}
    if other := own.keys() ^ space.keys():
        raise ValueError(f"raw: {', '.join(sorted(other))}: there and not in sweep.space, or the other way round")
    for path, value in own.items():
        if not _is_among(space[path], value):
            raise ValueError(f"raw: {path}: {value!s:.40} is not in sweep.space")


def _is_among(entry: Mapping[str, Any], value: Any) -> bool:
    """Whether an oracle can have asked for this value of a space's entry."""
    if entry["type"] == "bool":
        return type(value) is bool
    if entry["type"] == "choice":
        return value in (entry["values"] if plain(entry["values"]) else [json.dumps(v) for v in entry["values"]])
    # A step's rounding is KerasTuner's (oracle.hyperparameters), and Int.prob_to_value(1.0) with log sampling is
    # max_value + 1, which older versions took.
    more = SLACK * (entry.get("step") or 0) + (entry["type"] == "int")
    return conforms(value, float if entry["type"] == "float" else int) and is_within(entry, value, more)


def is_within(entry: Mapping[str, Any], value: float, more: float = 0) -> bool:
    """Whether a number lies in a range of a space, but for rounding; more: by which it may be above."""
    low, high = entry["min"], entry["max"]
    size = max(abs(low), abs(high))  # of which an end that is 0, or on its other side, is rounded
    below, above = abs(low) if low > 0 else size, abs(high) if high < 0 else size
    return low - SLACK * below <= value <= high + SLACK * above + more


def read_trial(record: Any) -> Trial:
    """A trial from its JSON.

    Raises:
        ValueError: it is none.
    """
    trial = read(Trial, record)
    if "told" not in record:
        trial.told = trial.score
    return trial


def read(kind: type[T], record: Any) -> T:
    """A dataclass from JSON, each value of the type that its field declares.

    A key that is none of its fields is refused: a newer version that wrote it may mean something else by the others,
    and saving would lose it.

    Raises:
        ValueError: naming the key.
    """
    hints = _hints(kind)
    if not isinstance(record, dict):
        raise ValueError(f"{record!s:.40} is no object")
    if unknown := record.keys() - hints.keys():
        raise ValueError(f"{', '.join(sorted(unknown)):.80}: no key of this version; a newer one may know it")
    for key, value in record.items():
        if not conforms(value, hints[key]):
            raise ValueError(f"{key}: {json.dumps(value):.40}")
    try:
        return kind(**record)
    except TypeError as error:
        raise ValueError(str(error).partition("() ")[2]) from None


_hints: Callable[[type], dict[str, Any]] = cache(get_type_hints)


def conforms(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is of a type as fields declare them; a whole number is a float, too."""
    if kind is Any:
        return True
    inner = get_args(kind)
    if isinstance(kind, UnionType):
        return any(conforms(value, other) for other in inner)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(conforms(each, inner[1]) for each in value.values())
    if get_origin(kind) is list:
        return isinstance(value, list) and all(conforms(each, inner[0]) for each in value)
    if type(value) is int and kind in (int, float):
        return abs(value) <= LARGEST
    return type(value) is kind
