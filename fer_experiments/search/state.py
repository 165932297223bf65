"""What is known of a sweep between two trials, in one file that is replaced atomically; and the list of all sweeps."""

from __future__ import annotations

import hashlib
import json
import re
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fer_experiments.config import Config, PathsConfig, SweepConfig, close, mlruns_dir
from fer_experiments.config.commands import command
from fer_experiments.errors import UserError
from fer_experiments.evaluation.metrics import cost
from fer_experiments.files import holding, is_held, write_atomically
from fer_experiments.terminal import table

MOST_NAMED = 8  # sweeps in an error message
RUN_ID = re.compile("[0-9a-f]{32}")


@dataclass
class State:
    """A sweep: what it is, and every trial that its oracle was asked for.

    identity: what makes two sweeps the same, as flat config paths and fingerprints. status: running (or stopped, when
    no process holds the lock) or finished, then `reason` says by what. order: trial numbers, each where it was asked,
    and again where it was told. seconds: of all processes that worked on it.

    trials: a dict a trial, by number, with number, trial_id, values, raw (the oracle's own form of them), status
    (asked, finished, pruned, repeated, failed), score, and once it ended run_id, metrics, epochs, best_epoch, seconds,
    error; told, what its oracle was told at first, where it was run again after that; impossible, where nothing could
    be made of its values.

    prepared: the fingerprints of data and features by the values that decide them, where trials differ in these.
    """

    id: str
    name: str
    identity: dict[str, Any]
    status: str = "running"
    reason: str | None = None
    run_id: str | None = None
    trials: list[dict[str, Any]] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    prepared: dict[str, dict[str, str]] = field(default_factory=dict)
    seconds: float = 0.0
    updated: str = ""

    def save(self, folder: Path) -> None:
        """Replaces the state file atomically and durably: a kill leaves the old one or the new one."""
        self.updated = datetime.now(UTC).isoformat(timespec="seconds")
        folder.mkdir(parents=True, exist_ok=True)
        # Not asdict, nor indented: at a thousand trials they take ten times as long.
        text = json.dumps(vars(self)).encode()
        write_atomically(folder / "state.json", lambda file: file.write(text))

    @property
    def settings(self) -> SweepConfig:
        """What the sweep is; its budget, which is no part of that, is the default one."""
        known = {field.name for field in fields(SweepConfig)}
        own = {path.removeprefix("sweep."): value for path, value in self.identity.items() if path.startswith("sweep.")}
        return SweepConfig(**{key: value for key, value in own.items() if key in known})

    @property
    def ended(self) -> list[dict[str, Any]]:
        """The trials whose oracle was told, in the order of their numbers."""
        told = set(self.told)
        return [t for t in self.trials if t["number"] in told]

    @property
    def told(self) -> list[int]:
        """The numbers of the trials whose oracle was told, in that order."""
        asked: set[int] = set()
        return [n for n in self.order if n in asked or asked.add(n)]  # type: ignore[func-returns-value]

    @property
    def in_flight(self) -> list[dict[str, Any]]:
        """The trials that were asked and not told."""
        told = set(self.told)
        return [t for t in self.trials if t["number"] not in told]

    def ranked(self) -> list[dict[str, Any]]:
        """The finished trials, the best score first; the earlier one of two equals."""
        finished = [t for t in self.trials if t["status"] == "finished"]
        return sorted(finished, key=lambda t: cost(t["score"], self.identity["sweep.direction"]))

    def best(self) -> dict[str, Any] | None:
        """The first of `ranked`, if there is any."""
        return next(iter(self.ranked()), None)


def load_state(folder: Path) -> State | None:
    """The state in a sweep's folder, or None.

    Raises:
        UserError: a state file that is no state.
    """
    path = folder / "state.json"
    try:
        if not path.exists():
            return None
        state = State(**json.loads(path.read_text(encoding="utf-8")))
        # A signal may have struck between a trial's entry and that it was asked: it is asked again.
        asked = set(state.order)
        state.trials = [trial for trial in state.trials if trial["number"] in asked]
        return state
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend its permissions") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not a sweep's state ({error}); move it away, or say sweep.fresh=true") from error


def find_state(sweeps: Path, name: str, identity: dict[str, Any], *, fresh: bool) -> tuple[State, Path, str]:
    """The state of this very sweep if there is one, else a new one; its folder; and a line that says which it is.

    sweeps: the folder of all sweeps. The line names the keys in which a new one differs from the last of its name.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    same = sorted(sweeps.glob(f"{name}-{digest}*"), key=_age)
    if same and not fresh:
        state = load_state(same[-1])
        if state is not None:
            said = "" if state.status == "finished" else f"sweep {state.id}: going on after {len(state.ended)} trials"
            return state, same[-1], said
    new = State(id=f"{name}-{digest}" + (f"-{len(same) + 1}" if same else ""), name=name, identity=identity)
    said = f"sweep {new.id}: a new one"
    others = sorted((p.parent for p in sweeps.glob(f"{name}-*/state.json")), key=_age)
    last = load_state(others[-1]) if others and not same else None
    if last:
        keys = [k for k in sorted({*identity, *last.identity}) if identity.get(k) != last.identity.get(k)]
        said += f", {last.id} differs in {', '.join(keys)}"
    return new, sweeps / new.id, said


def find_sweep(sweeps: Path, name: str | None = None) -> tuple[State, Path]:
    """A recorded sweep and its folder.

    Args:
        sweeps: the folder of all sweeps.
        name: a sweep's id; or its name, for the last active one of that name; or None, for the last active one; or, as
            MLflow shows them, the id of its run or of one of its trials'.

    Raises:
        UserError: there is none, with those that there are; or its state file cannot be read.
    """
    folders = {path.parent.name: path.parent for path in sweeps.glob("*/state.json")}
    if not folders:
        raise UserError(f"no sweeps in {sweeps}; `{_start(sweeps)}` starts one, paths.mlruns=<folder> looks elsewhere")
    if name and RUN_ID.fullmatch(name) and (of_run := _sweep_of_run(folders, name)):
        return of_run
    chosen = [name] if name in folders else [i for i in folders if name is None or i.startswith(f"{name}-")]
    states = [(state, folders[i]) for i in chosen if (state := load_state(folders[i]))]
    found = [(s, f) for s, f in states if name in (None, s.id, s.name)]
    if not found:
        assert name is not None
        latest = sorted(folders, key=lambda i: folders[i].joinpath("state.json").stat().st_mtime, reverse=True)
        names = [i.rpartition("-")[0] for i in latest]
        others = f"; there are {', '.join(latest[:MOST_NAMED])}" + (", ..." if len(latest) > MOST_NAMED else "")
        raise UserError(
            f"sweep={name}: no such sweep in {sweeps}{close(name, dict.fromkeys([*latest, *names])) or others}"
        )
    return max(found, key=lambda pair: pair[0].updated)


def _sweep_of_run(folders: dict[str, Path], run_id: str) -> tuple[State, Path] | None:
    """The sweep whose own run this is, or a trial of it."""
    for folder in folders.values():
        state = load_state(folder)
        if state and run_id in (state.run_id, *(trial.get("run_id") for trial in state.trials)):
            return state, folder
    return None


def _start(sweeps: Path) -> str:
    """The command that starts a sweep there."""
    return command("sweep", config=Config(paths=PathsConfig(mlruns=str(sweeps.parent))))


def only_one(folder: Path, name: str) -> AbstractContextManager[None]:
    """The one process that works on a sweep; see `holding`."""
    # Two seconds: `fer sweeps` holds it for an instant.
    return holding(folder / "lock", f"sweep {name}: another process is running it", timeout=2)


def is_locked(folder: Path) -> bool:
    """Whether a process works on the sweep in this folder now."""
    return is_held(folder / "lock")


def list_sweeps(config: Config) -> str:
    """The recorded sweeps as a table, the last active one first: id, state, trials, best score, last activity."""
    sweeps = mlruns_dir(config) / "sweeps"
    states = [(p.parent, load_state(p.parent)) for p in sweeps.glob("*/state.json")]
    rows = [["sweep", "state", "trials", "best", "last activity"]]
    for folder, state in sorted(states, key=lambda pair: pair[1].updated if pair[1] else "", reverse=True):
        if state is None:
            continue
        status = "running" if is_locked(folder) else "stopped" if state.status == "running" else "finished"
        best = state.best()
        score = f"{best['score']:.4f} {state.identity['sweep.objective']}" if best else "none"
        rows.append([state.id, status, str(len(state.ended)), score, _ago(state.updated)])
    if len(rows) == 1:
        return f"no sweeps in {sweeps}; `{_start(sweeps)}` starts one"
    return table(rows)


def _ago(moment: str) -> str:
    """A moment in local time, with how long ago it was."""
    then = datetime.fromisoformat(moment)
    minutes = (time.time() - then.timestamp()) / 60
    passed = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h" if minutes < 2880 else ""
    return f"{then.astimezone():%Y-%m-%d %H:%M}" + (f" ({passed} ago)" if passed else "")


def _age(path: Path) -> float:
    return path.stat().st_mtime
