"""What a sweep begins with: decided once, and kept in its state.

enqueue: what runs first: a list of {path: value} out of the space, where what is not given is drawn; or a recorded
sweep as <id or name>:<how many of its best>. warm_start: id or name of a recorded sweep whose trials the oracle is
told, as far as they fit the space.

Imports nothing heavy: `check_needs` says what is missing, for any command, before that.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fer_experiments.backbones.preprocessing import parse_scaling
from fer_experiments.backbones.weights import obtain_weights
from fer_experiments.config import Config, SweepConfig, close, mlruns_dir, without_password
from fer_experiments.data import find_source
from fer_experiments.data.cleaning import clean_steps
from fer_experiments.errors import UserError
from fer_experiments.executors.executor import Executor
from fer_experiments.search.checks import check_space
from fer_experiments.search.identity import seed_of
from fer_experiments.search.recorded import find_sweep
from fer_experiments.search.space import ORACLES, active, searched_backbones
from fer_experiments.search.state import State
from fer_experiments.search.transfer import as_asked, as_raw, differing, known_of, refusal

USERS = {"max_epochs": {"hyperband"}, "factor": {"hyperband", "asha"}, "min_epochs": {"asha"}}
BEST = 3  # trials of a sweep that are enqueued where no number is given


def check_reach(executor: Executor, uri: str) -> None:
    """Refuses workers on machines that cannot get at the store.

    Raises:
        UserError: naming the machines and the remedy.
    """
    hosts = executor.foreign_hosts()
    if not hosts:
        return
    remedy = (
        "start `make server` on a machine that all can reach, and say tracking=server tracking.uri=http://<it>:5000"
    )
    if uri.startswith("sqlite"):
        raise UserError(f"compute: workers on {', '.join(hosts)} cannot write to the SQLite file of {uri}; {remedy}")
    host = _host(uri)
    if host in ("localhost", "::1") or host.startswith(("127.", "/")):
        raise UserError(f"compute: {without_password(uri)} means another machine on {', '.join(hosts)}; {remedy}")


def _host(uri: str) -> str:
    """Of a server or a database, as its driver takes it: here where none is named; "" where that cannot be told."""
    if uri.startswith("http"):
        return urlsplit(uri).hostname or ""
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    asked = url.query.get("host", "")
    named = url.host or (asked if isinstance(asked, str) else asked[0])
    return named or ("" if url.query else "localhost")


def unused(sweep: SweepConfig) -> list[str]:
    """Lines on the settings of a sweep that its oracle and pruner make nothing of."""
    return [
        f"sweep.{key}={getattr(sweep, key)}: sweep.oracle={sweep.oracle} sweep.pruner={sweep.pruner} make nothing of it"
        for key, users in USERS.items()
        if getattr(sweep, key) != getattr(SweepConfig(), key) and not {sweep.oracle, sweep.pruner} & users
    ]


def check_sweep(config: Config) -> None:
    """Refuses a sweep that cannot be begun, before anything is loaded.

    Raises:
        UserError: naming the key, what is wrong with it and the remedy.
    """
    check_space(config)
    sweep = config.sweep
    assert sweep is not None
    row, sweeps = ORACLES[sweep.oracle], mlruns_dir(config) / "sweeps"
    if sweep.enqueue is not None and row.ends:
        why = "tries every value anyway" if sweep.oracle == "grid" else "grants its first trials few epochs"
        raise UserError(f"sweep.enqueue: {sweep.oracle} {why}; leave it out, or say sweep.oracle=tpe")
    if sweep.warm_start is not None and not row.learns:
        raise UserError(
            f"sweep.warm_start={sweep.warm_start}: the {sweep.oracle} oracle learns from no trial; say "
            "sweep.oracle=tpe or bayesian"
        )
    if sweep.enqueue is not None and not isinstance(sweep.enqueue, str):
        _check_given(sweep)
    if any(sweeps.glob(f"{sweep.name}-*")):
        return  # it may have been begun, and has what it needs of the others
    if isinstance(sweep.enqueue, str):
        _named(sweeps, sweep.enqueue)
    if sweep.warm_start is not None:
        _found(sweeps, sweep.warm_start, "warm_start")


def check_needs(config: Config, needs: str) -> None:
    """Looks for the data of a config, unless it needs "data" alone for its backbone, or those of its "space", too.

    Raises:
        UserError: naming what is missing, or what of it cannot be.
    """
    if needs == "space":
        check_sweep(config)
    clean_steps(config.data.clean)
    find_source(config.data)
    for backbone in [] if needs == "data" else searched_backbones(config) if needs == "space" else [config.backbone]:
        parse_scaling(backbone)
        obtain_weights(backbone)


def begin(state: State, folder: Path, config: Config) -> list[str]:
    """Puts into the state of a new sweep what it begins with, and returns lines that say it.

    Raises:
        UserError: nothing of a sweep that is named fits, or its scores are of something else.
    """
    sweep = config.sweep
    assert sweep is not None
    if (folder / "state.json").exists():
        return []
    said = []
    if isinstance(sweep.enqueue, str):
        said.append(_enqueue(state, *_named(folder.parent, sweep.enqueue)))
    elif sweep.enqueue is not None:
        queue = _drawn(sweep, sweep.enqueue)
        state.queue = [raw for place, raw in enumerate(queue) if raw not in queue[:place]]
    if sweep.warm_start is not None:
        said.append(_warm(state, _found(folder.parent, sweep.warm_start, "warm_start"), sweep.warm_start))
    return said


def words(state: State) -> str:
    """What a sweep has begun with, or ""."""
    first, warm = len(state.queue), len(state.warm)
    said = [f"the first {f'{first} trials were' if first > 1 else 'trial was'} enqueued"] if first else []
    if warm:
        said.append(f"its oracle was told {warm} trial{'s'[: warm != 1]} of {state.warm_from} at its beginning")
    return "; ".join(said)


def tags_of(state: State) -> dict[str, str]:
    """The same as tags of its run."""
    enqueued = {"fer.enqueued": str(len(state.queue))} if state.queue else {}
    return {**enqueued, "fer.warm_start": state.warm_from, "fer.told": str(len(state.warm))} if state.warm else enqueued


def _check_given(sweep: SweepConfig) -> None:
    """Refuses given configs that are not in the space."""
    queue = sweep.enqueue
    if not isinstance(queue, list) or not queue or not all(isinstance(given, Mapping) and given for given in queue):
        raise UserError(
            f"sweep.enqueue={sweep.enqueue}: say a list of configs, each {{<key of the space>: <its value>}}, or a "
            "recorded sweep, <id or name>:<how many of its best>"
        )
    for given in queue:
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


def _named(sweeps: Path, text: str) -> tuple[State, int]:
    """The recorded sweep that `sweep.enqueue` names, and how many of its best trials are wanted."""
    name, _, number = text.rpartition(":") if ":" in text else (text, "", str(BEST))
    if not number.isdecimal() or not int(number) or not name:
        raise UserError(f"sweep.enqueue={text}: say <id or name of a sweep>:<how many of its best trials>")
    return _found(sweeps, name, "enqueue"), int(number)


def _found(sweeps: Path, name: str, key: str) -> State:
    """The recorded sweep of this id or name, which this key of a sweep asks for."""
    try:
        return find_sweep(sweeps, name)[0]
    except UserError as error:
        raise UserError(f"sweep.{key}: {error}") from error


def _enqueue(state: State, other: State, most: int) -> str:
    """Has the best trials of another sweep that fit this one's space run first; returns a line that says which."""
    found = [(trial, raw) for trial in other.ranked() if (raw := as_asked(state.identity, other, trial)) is not None]
    # Hyperband has the same values in several rounds.
    fitting = [(trial, raw) for place, (trial, raw) in enumerate(found) if raw not in [r for _, r in found[:place]]]
    if not fitting:
        raise UserError(
            f"sweep.enqueue: none of the {len(other.ranked())} finished trials of {other.id} is in this sweep's space"
        )
    state.queue = [raw for _, raw in fitting[:most]]
    numbers = ", ".join(str(trial.number) for trial, _ in fitting[:most])
    left = len(other.ranked()) - len(found)
    return f"sweep {state.id}: runs trials {numbers} of {other.id} first" + (
        f" ({left} do not fit its space)" if left else ""
    )


def _warm(state: State, other: State, text: str) -> str:
    """Has the oracle told what another sweep's trials came to; returns a line that says it."""
    if reason := refusal(state.identity, other):
        raise UserError(f"sweep.warm_start={text}: {reason}; its scores say nothing here, leave it out")
    state.warm, state.warm_from = known_of(state.identity, other), other.id
    ended = sum(trial.finished for trial in other.trials)
    if not state.warm:
        raise UserError(f"sweep.warm_start={text}: none of the {ended} finished trials of {other.id} fits the space")
    searched = {*state.identity["sweep.space"], *other.identity["sweep.space"]}
    keys = [k for k in differing(state.identity, other.identity) if not k.startswith(("sweep.", "fer."))]
    apart = [key for key in keys if key not in searched]
    return f"sweep {state.id}: its oracle is told {len(state.warm)} of {ended} trials of {other.id}" + (
        f", which differs in {', '.join(apart)}" if apart else ""
    )
