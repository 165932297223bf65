"""The sweeps on record: the one that a command means, and the list of all; a damaged one is in no other's way."""

from __future__ import annotations

import glob
import itertools
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from fer_experiments.config import Config, PathsConfig, close, mlruns_dir
from fer_experiments.config.commands import command
from fer_experiments.errors import UserError
from fer_experiments.search.budget import counted
from fer_experiments.search.identity import identity_of
from fer_experiments.search.state import State, digest_of, is_of, load_state, status_of
from fer_experiments.search.transfer import differing, would_help
from fer_experiments.search.trials import RUN_ID
from fer_experiments.terminal import fit, say, table

MOST_NAMED = 8  # sweeps in an error message


def find_state(
    sweeps: Path, name: str, identity: dict[str, Any], *, fresh: bool, known: Callable[[str], bool] = lambda id: False
) -> tuple[State, Path, str]:
    """The state of this very sweep if there is one, else a new one; its folder; and a line that says which it is.

    sweeps: the folder of all sweeps. known: whether a sweep with this id is in the store that a new one does not take
    up. The line names the keys in which a new one differs from the last of its name.
    """
    own = f"{name}-{digest_of(identity)}"
    # Asked before the folders are read: what runs it with these folders has a state by now.
    beside = not fresh and known(own)
    if begun := [] if fresh else _same(sweeps, name, identity):
        state, folder = begun[-1]
        said = "" if state.status == "finished" else f"sweep {state.id}: going on after {counted(state)}"
        return state, folder, said
    ids = itertools.chain([own], (f"{own}-{number}" for number in itertools.count(2)))
    # A folder without a state is of one that another process is about to begin, or that was never begun.
    own_file = "" if fresh else "state.json"
    free = (i for i in ids if not (sweeps / i / own_file).exists() and not known(i))
    new = State(id=next(free), name=name, identity=identity)
    said = f"sweep {new.id}: a new one" + f" beside {own}, whose run another process or machine has open" * beside
    folders = [
        path.parent for path in sweeps.glob(f"{glob.escape(name)}-*/state.json") if is_of(path.parent.name, name)
    ]
    same = any(is_of(folder.name, name, digest_of(identity)) for folder in folders)
    if others := [] if same else _latest(_readable(folders, _passed_over)):
        last, _ = others[-1]
        said += f", {last.id} differs in {', '.join(differing(identity, last.identity))}"
        if would_help(identity, last):
            said += f"; {shlex.quote(f'sweep.warm_start={last.id}')} begins with what that one knows"
    return new, sweeps / new.id, said


def is_begun(config: Config, sweeps: Path, tags: dict[str, str]) -> bool:
    """Whether there is a sweep of this very config for it to go on with."""
    assert config.sweep is not None
    return not config.sweep.fresh and bool(_same(sweeps, config.sweep.name, identity_of(config, tags)))


def _same(sweeps: Path, name: str, identity: dict[str, Any]) -> list[tuple[State, Path]]:
    """The sweeps of this very name and identity with their folders, the last active one last.

    Raises:
        UserError: the state of one cannot be read, and none was begun after it.
    """
    found = (
        folder for folder in sweeps.glob(f"{glob.escape(name)}-{digest_of(identity)}*") if is_of(folder.name, name)
    )
    damaged: dict[Path, UserError] = {}
    same = _latest(_readable(found, damaged.__setitem__))
    begun = lambda folder: (len(folder.name), folder.name)  # noqa: E731  in the order of their numbers
    for folder, error in damaged.items():
        if not any(begun(folder) < begun(other) for _, other in same):
            raise error
    return same


def _latest(found: Iterable[tuple[State, Path]]) -> list[tuple[State, Path]]:
    """The last active one last; a folder's own time also changes with a report that is written there."""
    return sorted(found, key=lambda pair: pair[0].updated)


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
        latest = [
            folder.name for _, folder in reversed(_latest(_readable(folders.values(), lambda folder, error: None)))
        ]
        names = [i.rpartition("-")[0] for i in latest]
        others = f"; there are {', '.join(latest[:MOST_NAMED])}" + (", ..." if len(latest) > MOST_NAMED else "")
        raise UserError(
            f"sweep={name}: no such sweep in {sweeps}{close(str(name), dict.fromkeys([*latest, *names])) or others}"
        )
    return _latest(found)[-1]


def readable_sweeps(sweeps: Path) -> Iterator[tuple[State, Path]]:
    """All sweeps that can be read, and their folders; of others a line is said."""
    return _readable((path.parent for path in sweeps.glob("*/state.json")), _passed_over)


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


def list_sweeps(config: Config) -> str:
    """The recorded sweeps as a table, the last active one first: id, state, trials, best score, last activity."""
    sweeps = mlruns_dir(config) / "sweeps"
    damaged: dict[Path, UserError] = {}
    states = _readable((path.parent for path in sweeps.glob("*/state.json")), damaged.__setitem__)
    rows = [["sweep", "state", "trials", "best", "last activity"]]
    for state, folder in reversed(_latest(states)):
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
