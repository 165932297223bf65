"""The sweeps on record: the one that a command means, and the list of all; a damaged one is in no other's way."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from fer_experiments.config import Config, PathsConfig, close, mlruns_dir
from fer_experiments.config.commands import command, get_data_command
from fer_experiments.data import find_fer2013
from fer_experiments.errors import UserError
from fer_experiments.search.identity import identity_of
from fer_experiments.search.state import State, digest_of, is_of, load_state, status_of
from fer_experiments.search.trials import RUN_ID
from fer_experiments.terminal import fit, say, shown, table

MOST_NAMED = 8  # sweeps in an error message


def find_state(sweeps: Path, name: str, identity: dict[str, Any], *, fresh: bool) -> tuple[State, Path, str]:
    """The state of this very sweep if there is one, else a new one; its folder; and a line that says which it is.

    sweeps: the folder of all sweeps. The line names the keys in which a new one differs from the last of its name.
    """
    begun = _same(sweeps, name, identity)
    if begun and not fresh:
        state = load_state(begun[-1])
        if state is not None:
            said = "" if state.status == "finished" else f"sweep {state.id}: going on after {len(state.ended)} trials"
            return state, begun[-1], said
    own = f"{name}-{digest_of(identity)}"
    ids = [own, *(f"{own}-{number}" for number in range(2, len(begun) + 2))]
    new = State(id=next(i for i in ids if not (sweeps / i).exists()), name=name, identity=identity)
    said = f"sweep {new.id}: a new one"
    others = sorted((path.parent for path in sweeps.glob(f"{name}-*/state.json")), key=_age, reverse=True)
    last = None if begun else next((other for other, _ in _readable(others, _passed_over)), None)
    if last:
        keys = [k for k in sorted({*identity, *last.identity}) if identity.get(k) != last.identity.get(k)]
        said += f", {last.id} differs in {', '.join(keys)}"
    return new, sweeps / new.id, said


def is_begun(config: Config, sweeps: Path, tags: dict[str, str]) -> bool:
    """Whether there is a sweep of this very config for it to go on with."""
    assert config.sweep is not None
    return not config.sweep.fresh and bool(_same(sweeps, config.sweep.name, identity_of(config, tags)))


def _same(sweeps: Path, name: str, identity: dict[str, Any]) -> list[Path]:
    """The folders of the sweeps of this very name and identity, the last active one last."""
    found = sweeps.glob(f"{name}-{digest_of(identity)}*")
    return sorted((folder for folder in found if is_of(folder.name, name)), key=_age)


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
    damaged: dict[Path, UserError] = {}
    if name and RUN_ID.fullmatch(name):
        states = list(_readable(folders.values(), damaged.__setitem__))
        found = [(s, f) for s, f in states if name in (s.run_id, *(trial.run_id for trial in s.trials))]
    else:
        chosen = [name] if name in folders else [i for i in folders if name is None or i.startswith(f"{name}-")]
        states = list(_readable(map(folders.__getitem__, chosen), damaged.__setitem__))
        found = [(s, f) for s, f in states if name in (None, s.id, s.name)]
    for folder, error in damaged.items():
        if not found and (name in (None, folder.name) or is_of(folder.name, str(name))):
            raise error
        _passed_over(folder, error)
    if not found:
        latest = sorted(folders, key=lambda i: folders[i].joinpath("state.json").stat().st_mtime, reverse=True)
        names = [i.rpartition("-")[0] for i in latest]
        others = f"; there are {', '.join(latest[:MOST_NAMED])}" + (", ..." if len(latest) > MOST_NAMED else "")
        raise UserError(
            f"sweep={name}: no such sweep in {sweeps}{close(str(name), dict.fromkeys([*latest, *names])) or others}"
        )
    return max(found, key=lambda pair: pair[0].updated)


def _readable(folders: Iterable[Path], damaged: Callable[[Path, UserError], None]) -> Iterator[tuple[State, Path]]:
    """The states in these folders with them; of one that cannot be read, and is passed over, `damaged` hears."""
    for folder in folders:
        try:
            if state := load_state(folder):
                yield state, folder
        except UserError as error:
            damaged(folder, error)


def _passed_over(folder: Path, error: UserError) -> None:
    """To standard error: standard output has what was asked for."""
    say(f"sweep {fit(folder.name)}: passed over: {error}", sys.stderr)


def _start(sweeps: Path) -> str:
    """The command that starts a sweep there."""
    return command("sweep", config=Config(paths=PathsConfig(mlruns=str(sweeps.parent))))


def default_sweep() -> str:
    """The override where no sweep is named: the real thing where FER2013 is at hand, else the demo; says so."""
    found = find_fer2013()
    if found is None:
        say(
            "FER2013 is not at hand ($FER2013, data/fer2013*): running on drawn demo faces with the pocket backbone. "
            f"`{get_data_command()}` gets FER2013."
        )
        return "sweep=quick"
    say(f"FER2013 found at {shown(found)}: running sweeps/paper.yaml")
    return "sweep=paper"


def list_sweeps(config: Config) -> str:
    """The recorded sweeps as a table, the last active one first: id, state, trials, best score, last activity."""
    sweeps = mlruns_dir(config) / "sweeps"
    damaged: dict[Path, UserError] = {}
    states = _readable((path.parent for path in sweeps.glob("*/state.json")), damaged.__setitem__)
    rows = [["sweep", "state", "trials", "best", "last activity"]]
    for state, folder in sorted(states, key=lambda pair: pair[0].updated, reverse=True):
        best = state.best()
        score = f"{best.score:.4f} {state.identity['sweep.objective']}" if best else "none"
        rows.append([state.id, status_of(state, folder), str(len(state.ended)), score, _ago(state.updated)])
    rows += [[folder.name, "damaged", "", "", ""] for folder in damaged]
    if len(rows) == 1:
        return f"no sweeps in {sweeps}; `{_start(sweeps)}` starts one"
    return "\n".join([table(rows), *map(str, damaged.values())])


def _ago(moment: str) -> str:
    """A moment in local time, with how long ago it was."""
    then = datetime.fromisoformat(moment)
    minutes = (time.time() - then.timestamp()) / 60
    passed = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h" if minutes < 2880 else ""
    return f"{then.astimezone():%Y-%m-%d %H:%M}" + (f" ({passed} ago)" if passed else "")


def _age(path: Path) -> float:
    return path.stat().st_mtime
