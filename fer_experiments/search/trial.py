"""One trial, wherever it runs: fit a head on what was prepared for it, and record it as a run under its sweep."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from fer_experiments import termination, tracking
from fer_experiments.config import Config, SweepConfig, recorded, to_yaml
from fer_experiments.errors import UserError
from fer_experiments.evaluation.metrics import OF_A_FIT, recorded_as
from fer_experiments.executors.executor import Lost, Shared
from fer_experiments.experiment.prepare import Prepared
from fer_experiments.experiment.record import describe_run
from fer_experiments.experiment.train import fit_and_record
from fer_experiments.search.trials import Outcome, Trial
from fer_experiments.tracking import StoreLost
from fer_experiments.training.fit import forget
from fer_experiments.training.pruning import REASONS, medians, rungs
from fer_experiments.training.stopping import Ending, Pruning


@dataclass(frozen=True)
class Job:
    """What a worker is told of a trial.

    config: resolved, with the trial's values and seed. driver: `this_process` of the sweep. came_from: id of the run
    whose head the fit goes on with (Hyperband), at initial_epoch. limits: by epoch, where pruner ends hopeless ones.
    repeats: of the fit, with other seeds. max_seconds: of all its fits.
    """

    number: int
    config: Config
    store: tracking.Store
    sweep_id: str
    parent: str
    driver: str
    objective: str
    direction: str
    came_from: str | None = None
    initial_epoch: int = 0
    repeats: int = 1
    pruner: str = "none"
    limits: Sequence[float] = ()
    max_seconds: float | None = None


def limits(sweep: SweepConfig, ended: Sequence[Trial]) -> list[float]:
    """What a sweep's pruner asks of a trial that begins now, by epoch; ended: the trials whose scores are known."""
    if sweep.pruner == "median":
        return medians([trial.compared(sweep.objective) for trial in ended if trial.finished], sweep.direction)
    if sweep.pruner == "asha":
        curves = [trial.compared(sweep.objective) for trial in ended]
        return rungs(curves, sweep.direction, sweep.min_epochs, sweep.factor)
    return []


def run_trial(shared: Shared, job: Job) -> Outcome:
    """Runs a trial and returns what its sweep keeps of it; an exception in it fails the trial alone.

    Raises:
        StoreLost: the store is gone, or its disk is full.
    """
    started = time.perf_counter()
    done = Outcome()
    try:
        _fit_and_record(shared.get().here, job, done, started)
    except Exception as error:
        return _failed(job, done.run_id, error, started)
    finally:
        forget()
    return done


def impossible_trial(job: Job, reason: Exception) -> Outcome:
    """Records a trial for which nothing could be prepared, and returns what its sweep keeps of it.

    Raises:
        StoreLost: the store is gone, or its disk is full.
    """
    started = time.perf_counter()
    run_id: str | None = None
    try:
        with _open_run(job, {}) as run:
            run_id = run.id
            run.log_text(to_yaml(recorded(job.config)), "config.yaml")
            raise reason
    except Exception as error:
        done = _failed(job, run_id, error, started)
    # Of these values many in a row stop no sweep; of this machine (its cache, its workers) they do.
    done.impossible = isinstance(reason, UserError) and not isinstance(reason.__cause__, (OSError, Lost))
    return done


def _failed(job: Job, run_id: str | None, error: Exception, started: float) -> Outcome:
    termination.check()  # what a library made of a signal is no failure of the trial
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    text = f"{kind}{' '.join(str(error).split())}"[:1000]
    if tracking.is_lost(error):
        raise StoreLost(tracking.what_is_lost(job.store, error)) from None
    return Outcome(status="failed", run_id=run_id, error=text, seconds=round(time.perf_counter() - started, 2))


def _open_run(job: Job, tags: Mapping[str, str]) -> AbstractContextManager[tracking.Run]:
    return tracking.start_run(
        job.store,
        "trial",
        f"trial {job.number}",
        recorded(job.config),
        tags={**tags, "fer.sweep_id": job.sweep_id, "fer.trial_number": str(job.number)},
        parent=job.parent,
        driver=job.driver,
    )


def _fit_and_record(prepared: Prepared, job: Job, done: Outcome, started: float) -> None:
    config = job.config
    with _open_run(job, prepared.tags) as run:
        done.run_id = run.id
        describe_run(run, prepared.dataset, recorded(config), sheets=False)
        pruning = _pruning(prepared, job) if job.pruner != "none" else None
        ending = Ending(pruning, job.max_seconds, job.repeats * len(prepared.parts))
        fits, final = fit_and_record(
            run,
            prepared,
            config,
            repeats=job.repeats,
            objective=job.objective,
            initial_epoch=job.initial_epoch,
            initial_weights=tracking.load_head(job.store, job.came_from).get_weights() if job.came_from else None,
            callbacks=ending.callbacks,
            description=f"trial {job.number}",
        )
        if not math.isfinite(final[job.objective]):
            raise UserError(f"{job.objective} is not a number on these validation images; say another sweep.objective")
        done.status, done.score, done.metrics = "finished", final[job.objective], final
        done.scores = fits.scores if len(fits.scores) > 1 else []
        done.parameters = fits.kept.model.count_params()
        done.epochs, done.best_epoch, done.fit_s = fits.epochs, fits.kept.best_epoch, round(fits.seconds, 2)
        _note_ending(run, ending, done)
        done.seconds = round(time.perf_counter() - started, 2)
        run.log_metrics({"time/total_s": done.seconds})
        run.log_json(done.json(), tracking.RECORD)  # the last thing: a sweep that dies now takes it from here


def _pruning(prepared: Prepared, job: Job) -> Pruning:
    """Of the trial's first fit."""
    part = prepared.parts[0]
    metric = next(name for name in OF_A_FIT if job.objective == f"final/val_{recorded_as(name)}")
    return Pruning(job.pruner, metric, part.labels[part.val], job.direction, job.limits)


def _note_ending(run: tracking.Run, ending: Ending, done: Outcome) -> None:
    """Whether its fits were ended before their time, on the run and in what its sweep keeps."""
    pruning = ending.pruning
    if pruning is not None:
        done.objectives = pruning.curve
        if pruning.epoch is not None:
            done.status = "pruned"
            run.set_tags({"fer.pruned": f"{REASONS[pruning.pruner]} after epoch {pruning.epoch}"})
    if ending.seconds is not None and any(deadline.over for deadline in ending.deadlines):
        done.out_of_time = True
        run.set_tags({"fer.out_of_time": f"sweep.max_trial_minutes={ending.seconds / 60:g}"})
