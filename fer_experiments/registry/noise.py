"""`fer seeds`: how much of what a run came to is noise: its config fitted again with other seeds."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pandas as pd

from fer_experiments import tracking
from fer_experiments.config import Config
from fer_experiments.config.commands import command
from fer_experiments.errors import FitError, UserError
from fer_experiments.evaluation.seeds import Spread, spread
from fer_experiments.executors.executor import open_executor
from fer_experiments.experiment.prepare import Preparations
from fer_experiments.registry.candidates import Candidate, check_inputs, choose, refit
from fer_experiments.terminal import Echo, say, table

MOST = 1000  # seeds
PREFIX = "final/val_"


def repeat(config: Config, run_id: str = "", count: str = "10", echo: Echo = say) -> None:
    """Fits a recorded run's config with the seeds from 0, each a run under one of kind `train` that has their spread.

    A fit that is on record is taken from there, as a promotion's refit is; one that fails is named and left out.

    Args:
        config: where things are recorded and run; data, backbone and head are the run's.
        run_id: of a finished trial or `fer train` run.
        count: how many seeds.

    Raises:
        UserError: no such run, other data or features than it was made of, or fewer than two fits come to anything.
    """
    if not run_id:
        raise UserError("say run=<id>: of a trial or a `fer train` run")
    if not count.isdecimal() or not 2 <= int(count) <= MOST:
        raise UserError(f"n={count}: must be a number of seeds, from 2 to {MOST}")
    store = tracking.connect_existing(config, write=True)
    with tracking.said_in_a_line(store), open_executor(config.compute, echo) as executor:
        choice = choose(config, store, None, run_id, "seeds")
        (candidate,) = choice.candidates
        store = store.of(candidate.config.data.task)
        tracking.close_orphans(store, echo)
        preparations = Preparations(executor, echo)
        check_inputs(choice, preparations)
        tags = {tracking.SEEDS: run_id, **preparations.of(candidate.config).tags}
        name = f"seeds of {candidate.name}"
        with tracking.start_run(store, "train", name, tags=tags, system_metrics=False) as run:
            run.log_environment()
            fits = _fits(candidate, int(count), preparations, run, echo)
            _report(fits, candidate, run, echo)
    echo(f"beside others: {command('compare', run_id, config=config)}")


def _fits(
    candidate: Candidate, count: int, preparations: Preparations, parent: tracking.Run, echo: Echo
) -> pd.DataFrame:
    """A row a seed that came to something: seed, run_id, and its validation metrics."""
    prepared, rows = preparations.of(candidate.config), []
    for seed in range(count):
        label = f"{candidate.name}, seed {seed}"
        try:
            made, score, how = refit(candidate, seed, label, f"{PREFIX}accuracy", prepared, parent, echo)
        except FitError as error:
            echo(f"{label}: FAILED: {error}")
            continue
        echo(f"{label}: {PREFIX}accuracy {score:.4f}, {how}")
        metrics = tracking.Run(parent.store, made).metrics
        values = {k: v for k, v in metrics.items() if k.startswith(PREFIX) and not k.endswith(("_low", "_high"))}
        rows.append({"seed": seed, "run_id": made, **values})
    if len(rows) < 2:
        raise UserError(f"{candidate.name}: {len(rows)} of {count} fits came to anything, and a spread takes two")
    return pd.DataFrame(rows)


def _report(fits: pd.DataFrame, candidate: Candidate, run: tracking.Run, echo: Echo) -> None:
    """The spread of each metric goes on the run and the terminal, with where the repeated run lies in it."""
    names = [name for name in map(str, fits) if name.startswith(PREFIX) and fits[name].map(math.isfinite).all()]
    spreads = {name.removeprefix("final/"): _possible(name, spread(list(fits[name]))) for name in names}
    run.log_csv(fits, "seeds.csv")
    run.log_metrics({"seeds/count": len(fits)})
    for name, s in spreads.items():
        values = {"mean": s.mean, "std": s.std, "low": s.low, "high": s.high}
        run.log_metrics({f"seeds/{name}_{end}": value for end, value in values.items()})
    rows = [[name, f"{s.mean:.4f}", f"{s.std:.4f}", f"{s.low:.4f} to {s.high:.4f}"] for name, s in spreads.items()]
    echo(table([[f"over {len(fits)} seeds", "mean", "std", "95 % interval of the mean"], *rows]))
    own = tracking.Run(run.store, candidate.run_id).metrics.get(f"{PREFIX}accuracy")
    if own is not None:
        several = tracking.artifact_json(run.store, candidate.run_id, "metrics/fits.json", [{}]) or [{}]
        repeats = max(Counter(fit.get("fold") for fit in several).values())
        echo(_place(own, spreads["val_accuracy"], repeats))


def _possible(name: str, found: Spread) -> Spread:
    """The interval without what the metric cannot be: all but the loss are shares."""
    most = math.inf if name.endswith("_loss") else 1.0
    return replace(found, low=max(found.low, 0.0), high=min(found.high, most))


def _place(own: float, found: Spread, repeats: int) -> str:
    said = f"the run itself: val_accuracy {own:.4f}"
    if repeats > 1:  # which lies nearer to the mean than any of them
        return f"{said}, itself a mean of {repeats} fits"
    return f"{said}, {(own - found.mean) / found.std:+.1f} standard deviations from their mean" if found.std else said
