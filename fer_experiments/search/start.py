"""What a sweep begins with: configs that run first (`sweep.enqueue`); decided once, and kept in its state."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_experiments.config import Config, SweepConfig, close, mlruns_dir
from fer_experiments.errors import UserError
from fer_experiments.search.identity import seed_of
from fer_experiments.search.recorded import find_sweep
from fer_experiments.search.space import ORACLES, active, check_space
from fer_experiments.search.state import State
from fer_experiments.search.transfer import as_asked, as_raw

BEST = 3  # trials of a sweep that are enqueued where no number is given


def check_sweep(config: Config) -> None:
    """Refuses a sweep that cannot be begun, before anything is loaded.

    Raises:
        UserError: naming the key, what is wrong with it and the remedy.
    """
    check_space(config)
    sweep = config.sweep
    assert sweep is not None
    sweeps = mlruns_dir(config) / "sweeps"
    if sweep.enqueue is None:
        return
    if ORACLES[sweep.oracle].ends:
        why = "tries every value anyway" if sweep.oracle == "grid" else "grants its first trials few epochs"
        raise UserError(f"sweep.enqueue: {sweep.oracle} {why}; leave it out, or say sweep.oracle=tpe")
    if isinstance(sweep.enqueue, list):
        _check_given(sweep)
    elif not any(sweeps.glob(f"{sweep.name}-*")):  # one that was begun has what it needs of the other
        _named(sweeps, sweep.enqueue)


def begin(state: State, folder: Path, config: Config) -> str:
    """Puts into the state of a new sweep what it begins with, and returns a line that says it, or "".

    Raises:
        UserError: nothing of the sweep that is named fits.
    """
    assert config.sweep is not None
    if config.sweep.enqueue is None or (folder / "state.json").exists():
        return ""
    said = ""
    if isinstance(config.sweep.enqueue, list):
        queue = _drawn(config.sweep, config.sweep.enqueue)
    else:
        other, most = _named(folder.parent, config.sweep.enqueue)
        queue, said = _best(state, other, most)
    state.queue = [raw for place, raw in enumerate(queue) if raw not in queue[:place]]
    return said


def words(state: State) -> str:
    """What a sweep has begun with, or ""."""
    count = len(state.queue)
    return f"{'the first trial was' if count == 1 else f'the first {count} trials were'} enqueued" if count else ""


def tags_of(state: State) -> dict[str, str]:
    """The same as tags of its run."""
    return {"fer.enqueued": str(len(state.queue))} if state.queue else {}


def _check_given(sweep: SweepConfig) -> None:
    """Refuses given configs that are not in the space."""
    if not sweep.enqueue or not all(isinstance(given, Mapping) and given for given in sweep.enqueue):
        raise UserError(
            f"sweep.enqueue={sweep.enqueue}: say a list of configs, each {{<key of the space>: <its value>}}, or a "
            "recorded sweep, <id or name>:<how many of its best>"
        )
    for given in sweep.enqueue:
        for path, value in given.items():
            if path not in sweep.space:
                raise UserError(f"sweep.enqueue: {path}={value}: no key of sweep.space{close(str(path), sweep.space)}")
            if as_raw(sweep.space[path], value) is None:
                entry = {key: said for key, said in sweep.space[path].items() if key != "when"}
                raise UserError(f"sweep.enqueue: {path}={value}: outside the space, {entry}")
        for path in given.keys() - active(sweep.space, given).keys():
            when = " and ".join(f"{key}={value}" for key, value in sweep.space[path]["when"].items())
            raise UserError(f"sweep.enqueue: {path}={given[path]}: only with {when}, which is to be given with it")


def _drawn(sweep: SweepConfig, configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The raw values of given configs; what is not given is drawn, from the sweep's seed and the config's place."""
    from fer_experiments.search.oracle import hyperparameters  # keras-tuner takes seconds

    drawn = []
    for place, given in enumerate(configs):
        chance = random.Random(f"{seed_of(sweep.seed, place)} enqueued")
        random_values = {
            hp.name: hp.random_sample(chance.randrange(2**31)) for hp in hyperparameters(sweep.space).space
        }
        drawn.append({**random_values, **{path: as_raw(sweep.space[path], value) for path, value in given.items()}})
    return drawn


def _named(sweeps: Path, text: Any) -> tuple[State, int]:
    """The recorded sweep that `sweep.enqueue` names, and how many of its best trials are wanted."""
    name, _, number = str(text).rpartition(":") if ":" in str(text) else (str(text), "", str(BEST))
    if not number.isdecimal() or not int(number) or not name:
        raise UserError(f"sweep.enqueue={text}: say <id or name of a sweep>:<how many of its best trials>")
    try:
        return find_sweep(sweeps, name)[0], int(number)
    except UserError as error:
        raise UserError(f"sweep.enqueue: {error}") from error


def _best(state: State, other: State, most: int) -> tuple[list[dict[str, Any]], str]:
    """The raw values of the best trials of another sweep that fit this one's space, and a line that says which."""
    fitting = [(trial, raw) for trial in other.ranked() if (raw := as_asked(state.identity, other, trial)) is not None]
    if not fitting:
        raise UserError(
            f"sweep.enqueue: none of the {len(other.ranked())} finished trials of {other.id} is in this sweep's space"
        )
    chosen = fitting[:most]
    numbers = ", ".join(str(trial.number) for trial, _ in chosen)
    left = len(other.ranked()) - len(fitting)
    return [raw for _, raw in chosen], f"sweep {state.id}: runs trials {numbers} of {other.id} first" + (
        f" ({left} do not fit its space)" if left else ""
    )
