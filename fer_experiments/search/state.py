"""What is known of a sweep between two trials, in one file that is replaced atomically and checked when it is read."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fer_experiments.config import PREFER, SweepConfig
from fer_experiments.errors import UserError
from fer_experiments.evaluation.metrics import cost
from fer_experiments.files import digest, holding, is_held, write_atomically
from fer_experiments.search.trials import RUN_ID, Known, Trial, check_raw, read, read_trial


@dataclass
class State:
    """A sweep: what it is, and every trial that its oracle was asked for.

    identity: what makes two sweeps the same, as flat config paths and fingerprints. status: running (or stopped, when
    no process holds the lock) or finished, then `reason` says by what. order: trial numbers, each where it was asked,
    and again where it was told. seconds: of all processes that worked on it. store: the one that has its runs, by
    `mending.name_of`; "" where an older version wrote it. prefer: what is taken of the trials that `spread` cannot tell
    from the best.

    trials: by number. prepared: the fingerprints of data and features by the values that decide them, where trials
    differ in these. sections: by group that is searched as a whole, what each of its values stands for; {} where an
    older version wrote it. queue: raw values of the trials that its oracle asks for first. warm: raw values and score
    of each trial that its oracle was told at the beginning, of the sweep with the id warm_from.
    """

    id: str
    name: str
    identity: dict[str, Any]
    status: str = "running"
    reason: str | None = None
    run_id: str | None = None
    store: str = ""
    trials: list[Trial] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    prepared: dict[str, dict[str, str]] = field(default_factory=dict)
    sections: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    prefer: str = "best"
    queue: list[dict[str, Any]] = field(default_factory=list)
    warm: list[dict[str, Any]] = field(default_factory=list)
    warm_from: str = ""
    seconds: float = 0.0
    updated: str = ""

    def save(self, folder: Path) -> None:
        """Replaces the state file atomically and durably: a kill leaves the old one or the new one."""
        self.updated = datetime.now(UTC).isoformat(timespec="seconds")
        folder.mkdir(parents=True, exist_ok=True)
        # Not asdict, nor indented: at a thousand trials they take ten times as long.
        text = json.dumps({**vars(self), "trials": [trial.json() for trial in self.trials]}).encode()
        write_atomically(folder / "state.json", lambda file: file.write(text))

    @property
    def settings(self) -> SweepConfig:
        """What the sweep is; its budget, which is no part of that, is the default one."""
        known = {field.name for field in fields(SweepConfig)}
        own = {path.removeprefix("sweep."): value for path, value in self.identity.items() if path.startswith("sweep.")}
        return SweepConfig(**{key: value for key, value in own.items() if key in known})

    @property
    def ended(self) -> list[Trial]:
        """The trials whose oracle was told, in the order of their numbers."""
        return [self.trials[number] for number in sorted(self.told)]

    @property
    def told(self) -> list[int]:
        """The numbers of the trials whose oracle was told, in that order."""
        asked: set[int] = set()
        return [n for n in self.order if n in asked or asked.add(n)]  # type: ignore[func-returns-value]

    @property
    def in_flight(self) -> list[Trial]:
        """The trials that were asked and not told."""
        told = set(self.told)
        return [t for t in self.trials if t.number not in told]

    def ranked(self) -> list[Trial]:
        """The finished trials, the best score first; the earlier one of two equals."""
        scores = {t.number: t.score for t in self.trials if t.finished and t.score is not None}
        ranked = sorted(scores, key=lambda number: cost(scores[number], self.identity["sweep.direction"]))
        return [self.trials[number] for number in ranked]

    def standing(self) -> list[Trial]:
        """The ended trials as a leaderboard has them: those that may be the best, pruned ones, and failed ones.

        Each kind by score, the earlier one of two equals first; one that repeats another is of that one's kind.
        """

        def place(trial: Trial) -> tuple[int, float]:
            if trial.score is None:
                return 2, 0.0
            first = trial if trial.of is None else self.trials[trial.of]
            return int(not first.finished), cost(trial.score, self.identity["sweep.direction"])

        return sorted(self.ended, key=place)

    @property
    def ran(self) -> int:
        """How many trials were begun, or will be: all but those that were answered by another's score."""
        return sum(trial.status != "repeated" for trial in self.trials)

    def best(self) -> Trial | None:
        """The first of `ranked`, if there is any."""
        return next(iter(self.ranked()), None)


def load_state(folder: Path) -> State | None:
    """The state in a sweep's folder, or None.

    Raises:
        UserError: a state file that is no state.
    """
    path = folder / "state.json"
    try:
        return _read_state(path.read_text(encoding="utf-8")) if path.exists() else None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend its permissions") from error
    except (ValueError, KeyError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: not a sweep's state ({reason}); move its folder elsewhere, or start the sweep anew with "
            "sweep.fresh=true"
        ) from error


def _read_state(text: str) -> State:
    """A state that its program can have written.

    Raises:
        ValueError: what is wrong with it, as OverflowError and others of the JSON do.
    """
    record = json.loads(text)
    # Half a character can be printed nowhere.
    if "\\ud" in text.lower():
        json.dumps(record, ensure_ascii=False).encode()
    if isinstance(record, dict) and isinstance(record.get("trials"), list):
        record["trials"] = [_of_trial(place, read_trial, trial) for place, trial in enumerate(record["trials"])]
    state = read(State, record)
    if not is_of(state.id, state.name, digest_of(state.identity)):
        raise ValueError("id: is not that of its name and identity: one of the three was changed")
    if state.status not in ("running", "finished"):
        raise ValueError(f"status: {state.status!r} is neither running nor finished")
    if state.prefer not in PREFER:
        raise ValueError(f"prefer: {state.prefer!r} is none of {', '.join(PREFER)}")
    if state.run_id is not None and not RUN_ID.fullmatch(state.run_id):
        raise ValueError(f"run_id: {state.run_id!r} is no run's")
    if not 0 <= state.seconds < math.inf:
        raise ValueError(f"seconds: {state.seconds}")
    datetime.fromisoformat(state.updated).astimezone()
    asked = list(dict.fromkeys(state.order))
    if (
        asked != list(range(len(asked)))
        or len(asked) > len(state.trials)
        or max(Counter(state.order).values(), default=0) > 2
    ):
        raise ValueError("order: trials are asked one after the other, and told once")
    # A signal may have struck between a trial's entry and that it was asked: it is asked again.
    del state.trials[len(asked) :]
    told = set(state.told)
    for place, trial in enumerate(state.trials):
        if trial.number != place or (trial.status == "asked" and place in told):
            raise ValueError(f"trial {place}: has number {trial.number} and is {trial.status}")
        _of_trial(place, Trial.check, trial)
        _of_trial(place, Trial.check_values, trial, state.identity.get("sweep.space", {}))
    for raw in (*state.queue, *(read(Known, each).raw for each in state.warm)):
        check_raw(state.identity.get("sweep.space", {}), raw)
    return state


def _of_trial(place: int, made: Callable[..., Any], *arguments: Any) -> Any:
    """What a function makes of a trial, which it names where it refuses it."""
    try:
        return made(*arguments)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"trial {place}: {error}") from None


def is_of(sweep_id: str, name: str, digest: str = "[0-9a-f]{8}") -> bool:
    """Whether this is the id of a sweep of this name: name, digest and, of one started anew, its number."""
    return re.fullmatch(f"{re.escape(name)}-{digest}(-[0-9]+)?", sweep_id) is not None


def digest_of(identity: dict[str, Any]) -> str:
    """What tells the ids of two sweeps of one name."""
    return digest(identity)[:8]


def only_one(folder: Path, name: str) -> AbstractContextManager[None]:
    """The one process that works on a sweep; see `holding`."""
    # Two seconds: `fer sweeps` holds it for an instant.
    return holding(folder / "lock", f"sweep {name}: another process is running it", timeout=2)


def is_locked(folder: Path) -> bool:
    """Whether a process works on the sweep in this folder now."""
    return is_held(folder / "lock")


def status_of(state: State, folder: Path) -> str:
    """running, stopped or finished: whether a process works on it now, or else how it ended."""
    return "running" if is_locked(folder) else "stopped" if state.status == "running" else "finished"
