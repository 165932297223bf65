"""A sweep: ask the oracle, run the trials, tell the scores; killed at any instant, the same command goes on."""

from __future__ import annotations

import concurrent.futures
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from fer_experiments import termination, tracking
from fer_experiments.config import Config, check, recorded, to_yaml
from fer_experiments.executors.executor import Executor, open_executor
from fer_experiments.executors.inline import Inline
from fer_experiments.experiment.prepare import Preparations, smoke
from fer_experiments.experiment.record import describe_run
from fer_experiments.files import is_held
from fer_experiments.search import budget, keep, leaderboard, mending
from fer_experiments.search.bookkeeping import Sweep, conclude, is_of, outcome, record_of, repeated, twin_in_flight
from fer_experiments.search.identity import exact_for_all, identity_of, of_all_trials, tags_of_all, trial_config
from fer_experiments.search.on_end import on_end, on_failure
from fer_experiments.search.oracle import ask, make_oracle, replay
from fer_experiments.search.recorded import find_state, is_begun
from fer_experiments.search.space import decode, is_prepared_per_trial
from fer_experiments.search.start import begin, check_reach, check_sweep, tags_of, unused
from fer_experiments.search.state import State, load_state, only_one
from fer_experiments.search.stop import heard
from fer_experiments.search.trial import Job, impossible_trial, limits, run_trial
from fer_experiments.search.trials import Outcome, Trial
from fer_experiments.terminal import Echo, say
from fer_experiments.tracking import said_in_a_line


def run_sweep(config: Config, echo: Echo = say) -> State:
    """Runs a sweep to its end, from where it stopped if it did.

    Raises:
        UserError: a space, data, weights or a store that cannot be used; another process that runs it; three failed
            trials in a row; a store or a disk that is lost on the way. What was recorded until then stays.
    """
    config = smoke(config)
    check_sweep(config)
    assert config.sweep is not None
    store = tracking.connect(config)
    tracking.close_orphans(store, echo)
    with open_executor(config.compute, echo) as executor:
        check_reach(executor, store.uri)
        preparations = Preparations(executor, echo)
        sweeps, settings = store.mlruns / "sweeps", config.sweep
        config = preparations.decided(
            exact_for_all(config), lambda each: is_begun(each, sweeps, tags_of_all(each, preparations))
        )
        tags = tags_of_all(config, preparations)
        known = partial(mending.is_recorded if settings.fresh else mending.is_running, store)
        state, folder, said = find_state(
            sweeps, settings.name, identity_of(config, tags), fresh=settings.fresh, known=known
        )
        begins = begin(state, folder, config)
        begun = Sweep(config, settings, store, state, folder, preparations, echo)
        if not is_prepared_per_trial(settings.space):
            with nullcontext() if _is_at_its_end(begun) or is_held(folder / "lock") else on_failure(begun):
                preparations.of(config)
        with only_one(folder, state.id):
            state = begun.state = load_state(folder) or state  # written by a process that held the lock until now
            with nullcontext() if _is_at_its_end(begun) else on_failure(begun):
                state.sections = mending.unchanged_sections(state, config)
            if not (folder / "state.json").exists():
                state.save(folder)  # who gives the same command now finds it
            for line in filter(None, (said, *begins, *unused(settings))):
                echo(line)
            sweep = Sweep(config, settings, store, state, folder, preparations, echo)
            shown = state.status == "finished" and state.prefer == settings.prefer  # another is taken otherwise
            over = shown and (budget.over(state, settings) or _exhausted(sweep))
            if over and not (_to_retry(sweep) or mending.lost(sweep, mending.of_sweep(sweep))):
                echo(f"sweep {state.id} is finished: {budget.counted(state)} ({over}; sweep.fresh=true starts anew)")
            else:
                try:
                    _go(sweep, executor, tags)
                except KeyboardInterrupt as error:
                    error.args = (f"`{sweep.command}` goes on",) if settings.fresh and sweep.command else ()
                    raise
            echo(leaderboard.text(state, config, folder))
    return state


def _go(sweep: Sweep, executor: Executor, tags: dict[str, str]) -> None:
    """The parent run, and the trials in it."""
    with on_end(sweep):
        mending.check_store(sweep)
        _run_in_store(sweep, executor, tags, _bring_back(sweep))


def _run_in_store(sweep: Sweep, executor: Executor, tags: dict[str, str], oracle: Any) -> None:
    state, config = sweep.state, sweep.config
    with (
        said_in_a_line(sweep.store, f"sweep {state.id}: ", sweep.again),
        tracking.start_run(
            sweep.store,
            "sweep",
            state.id,
            of_all_trials(config),
            tags={**tags, **tags_of(state), "fer.sweep_id": state.id},
            resume=state.run_id,
            system_metrics=False,  # the trials have them
        ) as parent,
    ):
        if not (state.run_id and (state.store or state.trials)):
            state.run_id = parent.id
            sweep.save()  # a kill within the seconds of the next line leaves no second run
            describe_run(parent, sweep.preparations.dataset(config), recorded(config))
        else:
            parent.log_text(to_yaml(recorded(config)), "config.yaml")  # its budget may be another by now
            parent.log_environment(f"environment/after_{len(state.ended)}_trials")
        state.store = mending.name_of(sweep.store)
        state.status, state.reason, state.prefer = "running", None, sweep.sweep.prefer
        sweep.save()
        if config.compute.name != "inline":
            sweep.echo(f"trials run {executor.where}")
        try:
            with heard(sweep, parent):
                state.reason = _run_trials(sweep, oracle, executor, parent)
        except BaseException:
            with suppress(Exception):  # what ended it is what its user must hear of
                leaderboard.write(state, config, sweep.folder)
            raise
        finally:
            executor.close()  # what still runs is killed, so that its runs can be closed
            _close_killed(sweep)
            sweep.save()
        keep.drop(sweep.heads, sweep.store, state, sweep.sweep, sweep.echo)  # what a promotion may have held
        leaderboard.write(state, config, sweep.folder)
        leaderboard.log(parent, sweep.folder)
        parent.set_tags({"fer.ended_by": state.reason})
        state.status = "running" if state.reason == sweep.request else "finished"  # by no process: stopped
        sweep.save()
        sweep.echo(f"sweep {state.id}: ended by {state.reason}")


def _run_trials(sweep: Sweep, oracle: Any, executor: Executor, parent: tracking.Run) -> str:
    """Asks, runs and tells until the budget is spent or the space exhausted; returns which it was."""
    state = sweep.state
    running: dict[concurrent.futures.Future[Outcome], int] = {}
    waiting = _recover(sweep, oracle, parent)  # asked before a stop, and not ended, failed or lost ones: these first
    reason, saved = None, 0
    while True:
        termination.check()
        sweep.clock()
        waiting = [] if sweep.request else waiting  # they run first when it goes on
        while reason is None and len(waiting) + len(running) < executor.slots:
            reason = sweep.request or budget.over(state, sweep.sweep)
            if reason is None:
                number, reason = _ask(sweep, oracle, bool(waiting or running))
                if number is None:
                    break
                if repeated(sweep, oracle, number, parent) or _is_ahead(sweep, oracle, number, parent):
                    break  # there may be thousands one after the other: the clock, a signal and the state between them
                waiting.append(number)
        if len(state.order) != saved:
            sweep.save()  # a trial is on record before it runs, so that a kill loses no suggestion
            saved = len(state.order)
        for number in list(waiting):
            if len(running) < executor.slots and not twin_in_flight(sweep, number, running.values()):
                waiting.remove(number)
                if not repeated(sweep, oracle, number, parent):
                    running[_start(sweep, executor, number)] = number
        if not running:
            if waiting or reason is None:
                continue  # twins of trials that ended
            if not sweep.request and reason.startswith("sweep.") and not budget.over(state, sweep.sweep):
                reason = None  # it counted trials that others have answered since
                continue
            return sweep.request if sweep.request and state.in_flight else reason
        ended, _ = concurrent.futures.wait(running, timeout=1.0, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in sorted(ended, key=running.__getitem__):
            number = running.pop(future)
            done = outcome(sweep, number, future)
            if done is None:
                waiting.append(number)
            else:
                conclude(sweep, oracle, number, done, parent)


def _ask(sweep: Sweep, oracle: Any, flying: bool) -> tuple[int | None, str | None]:
    """The number of a new trial; or why there is none: (None, None) when the oracle waits for one in flight."""
    state = sweep.state
    number = len(state.trials)
    trial = ask(oracle, number)
    if trial.status == "IDLE" and flying:
        return None, None
    if trial.status != "RUNNING":
        return None, f"the {sweep.sweep.oracle} oracle, {budget.NOTHING_MORE}"
    raw = dict(trial.hyperparameters.values)
    values = decode(sweep.sweep.space, raw)
    state.trials.append(Trial(number=number, trial_id=trial.trial_id, values=values, raw=raw))
    state.order.append(number)
    sweep.trials[number] = trial
    return number, None


def _start(sweep: Sweep, executor: Executor, number: int) -> concurrent.futures.Future[Outcome]:
    """Prepares a trial from its own config and hands it to a worker; one for which nothing can be made has failed.

    Raises:
        UserError: what an earlier trial of the same values was made of is something else by now.
    """
    job = _job(sweep, number)
    try:
        check(job.config)
        shared = sweep.preparations.shared(job.config)
    except Exception as error:
        if tracking.is_lost(error):
            raise
        return Inline().submit(impossible_trial, job, error)
    mending.check_unchanged(sweep, number, sweep.preparations.of(job.config).tags)
    return executor.submit(run_trial, shared, job)


def _bring_back(sweep: Sweep) -> Any:
    """The oracle as it was when the sweep stopped."""
    state = sweep.state
    oracle = make_oracle(replace(sweep.sweep, max_trials=None), state.queue, state.warm)  # the budget is the sweep's
    sweep.trials = replay(oracle, [(trial.raw, trial.told) for trial in state.trials], state.order)
    return oracle


def _recover(sweep: Sweep, oracle: Any, parent: tracking.Run) -> list[int]:
    """The trials to run first: in flight at the stop, failed and to be retried, or lost by store and state; those whose
    run ended all the same are told."""
    again = []
    flying = [trial.number for trial in sweep.state.in_flight]
    runs = mending.of_sweep(sweep)
    sweep.ahead, sweep.before = mending.ahead(sweep, runs), frozenset(runs)
    lost = mending.record_again(sweep, mending.lost(sweep, runs))
    for number in dict.fromkeys([*flying, *_to_retry(sweep), *lost]):
        record = record_of(sweep, number)
        if record is None or (record.status == "failed" and (number not in flying or sweep.sweep.retry_failed)):
            again.append(number)
        else:
            conclude(sweep, oracle, number, record, parent, found=True)
    return again


def _is_ahead(sweep: Sweep, oracle: Any, number: int, parent: tracking.Run) -> bool:
    """Whether the store has this very trial though the state, an older copy, did not; it is not run again."""
    if number not in sweep.ahead or not is_of(sweep.ahead[number], sweep, number):
        return False
    record = record_of(sweep, number)
    if record is not None:
        conclude(sweep, oracle, number, record, parent, found=True)
    return record is not None


def _to_retry(sweep: Sweep) -> list[int]:
    """The trials that ended without a score, when they are to run again."""
    return [t.number for t in sweep.state.ended if t.score is None] if sweep.sweep.retry_failed else []


def _job(sweep: Sweep, number: int) -> Job:
    state, settings = sweep.state, sweep.sweep
    assert state.run_id is not None
    trial = state.trials[number]
    parents = [t.run_id for t in state.trials if t.trial_id == trial.grant.trial_id]
    return Job(
        number=number,
        config=trial_config(sweep.config, trial),
        store=sweep.store,
        sweep_id=state.id,
        parent=state.run_id,
        driver=tracking.this_process(),
        objective=settings.objective,
        direction=settings.direction,
        came_from=parents[0] if parents else None,
        initial_epoch=int(trial.grant.initial_epoch or 0),
        repeats=settings.repeats,
        pruner=settings.pruner,
        limits=limits(settings, [state.trials[n] for n in state.told]),
        max_seconds=settings.max_trial_minutes and settings.max_trial_minutes * 60,
    )


def _is_at_its_end(sweep: Sweep) -> bool:
    """Whether there is nothing left to run: what goes wrong then ends no sweep."""
    ended = budget.NOTHING_MORE in (sweep.state.reason or "") or budget.over(sweep.state, sweep.sweep)
    return sweep.state.status == "finished" and bool(ended) and not _to_retry(sweep)


def _exhausted(sweep: Sweep) -> str | None:
    """Why the oracle of a finished sweep would ask nothing more, or None."""
    oracle = _bring_back(sweep)
    return None if ask(oracle, len(sweep.state.trials)).status == "RUNNING" else sweep.state.reason


def _close_killed(sweep: Sweep) -> None:
    """Closes the runs of trials that were killed with the workers."""
    try:
        tracking.close_runs(sweep.store, sweep.own, "KILLED", "the sweep was stopped")
    except Exception as error:
        if not tracking.is_lost(error):  # else the next start closes them: their process is dead
            raise
