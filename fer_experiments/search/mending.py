"""A store and a sweep's state that do not belong together: one of them was put back from a copy, or is another's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fer_experiments import tracking
from fer_experiments.config import Config, recorded, to_yaml, without_password
from fer_experiments.config.parts import YOUNGER
from fer_experiments.errors import UserError
from fer_experiments.search.identity import sections, trial_config
from fer_experiments.search.space import ORACLES, is_prepared_per_trial
from fer_experiments.search.state import State
from fer_experiments.search.trials import Trial
from fer_experiments.tracking import FoundRun, Store, sqlite

if TYPE_CHECKING:
    from fer_experiments.search.bookkeeping import Sweep

ABSENT = object()  # no value
AGAIN = "fer.recorded_again"  # tag of a run that was made of the sweep's state


def name_of(store: Store) -> str:
    """What tells a store from others, wherever its folder is today."""
    database = sqlite.database_of(store.uri)
    if database is None or not database.is_relative_to(store.mlruns):
        return str(store)
    return f"sqlite:///<mlruns>/{database.relative_to(store.mlruns)}"


def check_store(sweep: Sweep) -> None:
    """Refuses to go on in another store, or another of its experiments, than the one that has the sweep's runs, and
    beside a process that runs it with another copy of its state.

    Raises:
        UserError: naming both.
    """
    own, now = without_password(sweep.state.store or ""), name_of(sweep.store)
    if sweep.state.run_id and own and own != now:
        raise UserError(
            f"sweep {sweep.state.id}: its runs are in {own}, and this is {now}; name that store, or say "
            "sweep.fresh=true for a new sweep here"
        )
    experiment = tracking.experiment_of(sweep.store, sweep.state.run_id) if sweep.state.run_id else None
    if experiment not in (None, sweep.store.experiment):
        raise UserError(
            f"sweep {sweep.state.id}: its runs are in the experiment {experiment}, and would be recorded in "
            f"{sweep.store.experiment}; rename that back in MLflow's UI, or say sweep.fresh=true for a new sweep"
        )
    run = tracking.find_run(sweep.store, sweep.state.run_id) if sweep.state.run_id else None
    if run and run.status == "RUNNING" and tracking.runs_elsewhere(run):
        raise UserError(
            f"sweep {sweep.state.id}: a process runs it with another paths.mlruns; wait for that, or say "
            "sweep.fresh=true for a new sweep"
        )


def is_recorded(store: Store, sweep_id: str) -> bool:
    """Whether a store has runs of a sweep with this id, deleted ones too."""
    return bool(tracking.find_runs(store, {"fer.sweep_id": sweep_id}, deleted=True))


def is_running(store: Store, sweep_id: str) -> bool:
    """Whether a process runs a sweep with this id in a store."""
    return sweep_id in tracking.running_sweeps(store)


def of_sweep(sweep: Sweep) -> dict[str, FoundRun]:
    """The runs of its trials that the store has, deleted ones too, by their ids."""
    tags = {"fer.sweep_id": sweep.state.id, "fer.kind": "trial"}
    return {run.run_id: run for run in tracking.find_runs(sweep.store, tags, deleted=True)}


def lost(sweep: Sweep, runs: dict[str, FoundRun]) -> list[int]:
    """The numbers of the ended trials whose runs the store does not have: it is an older copy."""
    own = (trial for trial in sweep.state.ended if trial.run_id and trial.status != "repeated")
    return [trial.number for trial in own if trial.run_id not in runs]


def record_again(sweep: Sweep, numbers: list[int]) -> list[int]:
    """Records lost trials as the state has them, without curves and heads, and returns those that must run again.

    These are all where the oracle goes on with heads (Hyperband).
    """
    if not numbers:
        return []
    said = f"trials {', '.join(map(str, numbers))}: their runs are not in the store (an older copy of it?)"
    if ORACLES[sweep.sweep.oracle].grants:
        sweep.echo(f"{said}; they run again")
        return numbers
    sweep.echo(f"{said}; recorded again as the sweep's state has them, without curves and heads")
    for number in numbers:
        trial = sweep.state.trials[number]
        trial.run_id = _record(sweep, trial)
        for other in sweep.state.trials:
            if other.of == number:
                other.run_id = trial.run_id
    sweep.save()
    return []


def _record(sweep: Sweep, trial: Trial) -> str:
    """The id of a new run with what the state has of a trial, ended as it ended."""
    config = trial_config(sweep.config, trial)
    of_all = {tag: value for tag, value in sweep.state.identity.items() if tag.startswith("fer.")}
    own = sweep.state.prepared.get(prepared_key(trial.values), {})
    tags = {"fer.sweep_id": sweep.state.id, "fer.trial_number": str(trial.number), AGAIN: "from the sweep's state"}
    with (
        suppress(UserError),
        tracking.start_run(
            sweep.store,
            "trial",
            f"trial {trial.number}",
            recorded(config),
            tags={**of_all, **own, **tags},
            parent=sweep.state.run_id,
            system_metrics=False,
        ) as run,
    ):
        run.log_text(to_yaml(recorded(config)), "config.yaml")
        run.log_metrics(trial.metrics)
        if trial.failed:
            raise UserError(trial.error)
        run.log_json(replace(trial.outcome, run_id=run.id).json(), tracking.RECORD)
    return run.id


def prepared_key(values: Mapping[str, Any]) -> str:
    """What a trial is prepared of that others are not: the key of `State.prepared`."""
    return json.dumps({path: value for path, value in values.items() if is_prepared_per_trial([path])}, sort_keys=True)


def check_unchanged(sweep: Sweep, number: int, tags: dict[str, str]) -> None:
    """Refuses fingerprints that differ from those of earlier trials; what all trials share is the sweep's identity.

    Raises:
        UserError: naming both.
    """
    values = sweep.state.trials[number].values
    own = {path: value for path, value in values.items() if is_prepared_per_trial([path])}
    known = sweep.state.prepared.setdefault(prepared_key(values), tags) if own else tags
    if changed := [tag.removeprefix("fer.") for tag in tags if tags[tag] != known.get(tag)]:
        what = ", ".join(f"{path}={value}" for path, value in own.items())
        raise UserError(
            f"sweep {sweep.state.id}: {what}: its {' and '.join(changed)} changed since its first trials; bring back "
            "what it was, or say sweep.fresh=true"
        )


def unchanged_sections(state: State, config: Config) -> dict[str, dict[str, dict[str, Any]]]:
    """What each value of a group that is searched as a whole stands for, as `State.sections` has it.

    Raises:
        UserError: it is another by now than it was for the first trials, which a leaderboard would not tell.
    """
    now = sections(config)
    for group, known in state.sections.items():
        for name, then in known.items():
            before = {path.removeprefix(f"{group}."): value for path, value in YOUNGER.items()} | then
            if keys := [key for key, value in now[group][name].items() if before.get(key, ABSENT) != value]:
                raise UserError(
                    f"sweep {state.id}: {group}={name}: its YAML has another {', '.join(keys)} than for its trials; "
                    "bring back what it was, or say sweep.fresh=true"
                )
    return now


def ahead(sweep: Sweep, runs: dict[str, FoundRun]) -> dict[int, FoundRun]:
    """The trials that the store has and the state has never heard of, which is an older copy: by number."""
    first = len(sweep.state.trials)
    ended = [run for run in runs.values() if run.status == "FINISHED" and "fer.trial_number" in run.tags]
    return {number: run for run in ended if (number := int(run.tags["fer.trial_number"])) >= first}
