"""Which configs are worth a refit: the best of a sweep, or that of one run; and their refits over seeds."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import Any

from fer_experiments import tracking
from fer_experiments.config import Config, check, experiment, from_dict, read_yaml, recorded, to_dict
from fer_experiments.config.commands import command, ui_command
from fer_experiments.errors import UserError
from fer_experiments.evaluation.metrics import cost
from fer_experiments.experiment.finetune import REFIT, fit_digest
from fer_experiments.experiment.prepare import Preparations, Prepared
from fer_experiments.experiment.record import describe_run
from fer_experiments.experiment.train import fit_and_record
from fer_experiments.search.recorded import find_sweep
from fer_experiments.search.spread import taken
from fer_experiments.terminal import Echo
from fer_experiments.training.fit import FitError, forget

KINDS = ("trial", "train")


@dataclass(frozen=True)
class Candidate:
    """A recorded config. values: what its sweep searched, by config path. tags: of its run."""

    name: str
    run_id: str
    config: Config
    values: dict[str, Any]
    tags: dict[str, str]


@dataclass(frozen=True)
class Choice:
    """What is to be promoted: candidates, the best first, and the metric that ranks them (direction: max | min)."""

    name: str
    candidates: list[Candidate]
    objective: str
    direction: str
    sweep_id: str | None = None


@dataclass(frozen=True)
class Refitted:
    """A candidate after its refits. scores: the objective by seed; runs: their ids by seed."""

    candidate: Candidate
    scores: dict[int, float]
    runs: dict[int, str]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return statistics.fmean(self.scores.values())

    @property
    def spread(self) -> str:
        """Mean ± standard deviation, as text; of one seed the score alone."""
        if len(self.scores) == 1:
            return f"{self.mean:.4f} (1 seed)"
        return f"{self.mean:.4f} ± {statistics.stdev(self.scores.values()):.4f} ({len(self.scores)} seeds)"

    def best_seed(self, direction: str) -> int:
        """The seed with the best score; the smallest of equals."""
        return min(self.scores, key=lambda seed: (cost(self.scores[seed], direction), seed))


def choose(
    config: Config, store: tracking.Store, sweep: str | None, run_id: str | None, verb: str = "promote"
) -> Choice:
    """The candidates that the command line of a verb names: of a sweep (id, name, None: the last one), or one run.

    Raises:
        UserError: no such sweep or run, or nothing in it that finished.
    """
    assert config.promote is not None
    if run_id is not None:
        candidate = _candidate(config, store, run_id, None, {}, verb)
        return Choice(f"run {candidate.name}", [candidate], "final/val_accuracy", "max")
    state, _ = find_sweep(store.mlruns / "sweeps", sweep)
    objective, direction = (state.identity[f"sweep.{key}"] for key in ("objective", "direction"))
    best = state.ranked()[: config.promote.top_k]
    if state.prefer != "best" and (chosen := taken(state)):
        best = [chosen]  # a mean of refits would choose otherwise
    if not best:
        raise UserError(f"sweep {state.id}: no trial has finished; its command, without sweep.fresh, goes on")
    candidates = [_candidate(config, store, t.run_id, f"trial {t.number}", t.values) for t in best if t.run_id]
    return Choice(f"sweep {state.id}", candidates, objective, direction, state.id)


def _candidate(
    config: Config, store: tracking.Store, run_id: str, name: str | None, values: dict[str, Any], verb: str = "promote"
) -> Candidate:
    """A recorded run's config, at work here."""
    run = tracking.find_run(store, run_id)
    if run is None:
        raise UserError(
            f"run={run_id}: no such run in {store}; `{ui_command(config, store.uri)}` shows their ids, "
            f"`{command('sweeps', config=config)}` the sweeps"
        )
    tags = run.tags
    text = tracking.artifact_text(store, run_id, "config.yaml")
    fitted = tags.get("fer.kind") in KINDS and run.status == "FINISHED" and "head.name" in run.params
    if fitted and text is None:
        raise UserError(f"{name or 'run'} ({run_id}): its config.yaml is gone from {store}; bring it back from a copy")
    if not fitted or text is None:
        what = f"{tags.get('fer.kind', 'no')} run, {run.status.lower()}"
        if tags.get("fer.kind") == "sweep":
            whole = f", or give `{command('promote', f'sweep={run_id}', config=config)}`" if verb == "promote" else ""
            what = f"sweep's run: name one of its trials{whole}"
        raise UserError(f"run={run_id}: a {what}; fer {verb} takes a finished trial or `fer train` run with a head")
    # Its place and what is done with it are this command's.
    made = from_dict({**to_dict(config), **experiment(read_yaml(text))})
    check(made)
    if config.data.path is not None:  # the data may lie elsewhere today
        made = replace(made, data=replace(made.data, path=config.data.path))
    if made.training.smoke:
        raise UserError(f"run={run_id}: made with training.smoke=true, which is no result; name a real one")
    return Candidate(name or run.name, run_id, made, values, tags)


def check_inputs(choice: Choice, preparations: Preparations) -> None:
    """Prepares the candidates, and refuses those that were made of other data or features than there are now.

    Raises:
        UserError: naming what differs; what `Preparations.of` raises.
    """
    for candidate in choice.candidates:
        for tag, now in preparations.of(candidate.config).tags.items():
            if candidate.tags.get(tag) != now:
                then = candidate.tags.get(tag, "none")
                raise UserError(
                    f"{choice.name}, {candidate.name}: its {tag.removeprefix('fer.')} was {then[:8]} and is {now[:8]} "
                    "now; bring back what it was made of, or sweep again"
                )


def refit_all(choice: Choice, preparations: Preparations, parent: tracking.Run, echo: Echo) -> list[Refitted]:
    """Fits every candidate with every seed, each a run under the promotion's; returns them, the best mean first.

    A fit that is on record, by `fer train` or an earlier promotion that was stopped or tried, is taken from there. A
    candidate with a fit that fails is left out.

    Raises:
        UserError: none is left.
    """
    done: list[Refitted] = []
    for candidate in choice.candidates:
        assert candidate.config.promote is not None
        prepared = preparations.of(candidate.config)
        scores: dict[int, float] = {}
        runs: dict[int, str] = {}
        try:
            for seed in range(candidate.config.promote.seeds):
                label = f"{candidate.name}, seed {seed}"
                runs[seed], scores[seed], how = refit(candidate, seed, label, choice.objective, prepared, parent, echo)
                echo(f"{label}: {choice.objective} {scores[seed]:.4f}, {how}")
        except FitError as error:
            echo(f"{label}: FAILED: {error}; {candidate.name} is left out")
            continue
        done.append(Refitted(candidate, scores, runs))
    if not done:
        raise UserError(f"{choice.name}: no refit came to anything; lower training.learning_rate and sweep again")
    return sorted(done, key=lambda refitted: cost(refitted.mean, choice.direction))


def refit(
    candidate: Candidate,
    seed: int,
    label: str,
    objective: str | None,
    prepared: Prepared,
    parent: tracking.Run,
    echo: Echo,
) -> tuple[str, float, str]:
    """Run id and score of a candidate's fit with a seed, and how it came about: one that is on record is taken.

    objective: None of a fit without a validation split, whose score is nan and its kind `refit`: nothing takes it up.

    Raises:
        FitError: it came to nothing.
    """
    config = replace(candidate.config, training=replace(candidate.config.training, seed=seed), promote=None, gate=None)
    digest = fit_digest(config, prepared.tags)
    for found in tracking.find_runs(parent.store, {REFIT: digest}, "FINISHED"):
        if objective is None or objective in found.metrics:
            return found.run_id, found.metrics.get(objective or "", math.nan), f"on record as run {found.run_id[:8]}"
    try:
        with tracking.start_run(
            parent.store,
            "train" if objective else "refit",
            label,
            recorded(config),
            tags={**prepared.tags, REFIT: digest},
            parent=parent.id,
        ) as run:
            describe_run(run, prepared.dataset, recorded(config))
            fits, final = fit_and_record(run, prepared, config, echo, description=label)
    finally:
        forget()
    return run.id, final[objective] if objective else math.nan, f"{fits.epochs} epochs in {fits.seconds:.0f} s"
