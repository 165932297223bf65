"""The heads to register, fitted once more on training and validation images together, when all else is chosen."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

from fer_experiments import tracking
from fer_experiments.config import TRAIN_VAL
from fer_experiments.data import images_digest, train_and_val
from fer_experiments.errors import FitError, UserError
from fer_experiments.experiment.prepare import Preparations, Prepared
from fer_experiments.experiment.record import FITTED
from fer_experiments.registry.assembly import Ensemble
from fer_experiments.registry.candidates import Refitted, refit
from fer_experiments.terminal import Echo
from fer_experiments.tracking import IMAGES


def fit_on_both(
    run: tracking.Run, ensemble: Ensemble, refits: list[Refitted], preparations: Preparations, echo: Echo
) -> Ensemble:
    """The same with each head fitted on both splits, a run under the promotion's; temperature and threshold stay.

    It has as many epochs as the best one of its config's refits is, in the median (of two in the middle the lower one),
    and no early stopping. What is on record is taken.

    Raises:
        UserError: such a fit comes to nothing.
    """
    made: dict[str, dict[str, Any]] = {}
    for refitted in refits:
        seeds = {seed: of for seed, of in refitted.runs.items() if of in ensemble.runs}
        if not seeds:
            continue
        best = best_epochs(run.store, refitted)
        epochs, config = statistics.median_low(best), refitted.candidate.config
        prepared = together(preparations.of(config))
        longest = replace(config, training=replace(config.training, epochs=epochs))
        candidate = replace(refitted.candidate, config=longest)
        for seed, of in seeds.items():
            label = f"{candidate.name}, seed {seed}, {TRAIN_VAL}"
            try:
                run_id, _, how = refit(candidate, seed, label, None, prepared, run, echo)
            except FitError as error:
                raise UserError(f"{label}: {error}; or leave out promote.refit={TRAIN_VAL}") from error
            echo(f"{label}: {len(prepared.dataset.train):,} images, {how}")
            made[of] = {"config": candidate.name, "seed": seed, "run_id": run_id, "of": of, "epochs": epochs}
            made[of]["best_epochs"] = best
    fits = [made[of] for of in ensemble.runs]
    run.log_json(fits, "final_fits.json")
    run.set_tags({FITTED: TRAIN_VAL})
    runs = tuple(fit["run_id"] for fit in fits)
    heads = [tracking.load_head(run.store, name) for name in runs]
    return replace(ensemble, runs=runs, heads=heads, epochs=tuple(fit["epochs"] for fit in fits))


def how_fitted(ensemble: Ensemble) -> list[str]:
    """What a card says of it: a line, or none where no head was fitted so."""
    if not ensemble.epochs:
        return []
    epochs = ", ".join(map(str, dict.fromkeys(ensemble.epochs)))
    return [
        f"fitted on train and val together, for {epochs} epochs (the median of the best ones of the refits on train "
        "alone) and without early stopping: what is registered has no validation score, those below are of these refits"
    ]


def together(prepared: Prepared) -> Prepared:
    """The same features, with both splits to train on; its tags say which images these are."""
    dataset = train_and_val(prepared.dataset, prepared.config.data)
    rows = dataset.train
    digest = images_digest(dataset.images[rows], dataset.labels[rows], dataset.classes)
    return replace(prepared, dataset=dataset, tags={**prepared.tags, IMAGES["train"]: digest})


def best_epochs(store: tracking.Store, refitted: Refitted) -> list[int]:
    """The best epochs, from 1, of a config's refits: of every seed, and of every fold that it was fitted on."""
    best: list[float] = []
    for run_id in refitted.runs.values():
        remedy = "bring it back from a copy, or say promote.refit=train"
        several = tracking.artifact_json(store, run_id, "metrics/fits.json", [{"best_epoch": 0}], remedy)
        best += [fit["best_epoch"] for fit in several or [tracking.Run(store, run_id).metrics]]
    return [int(epoch) + 1 for epoch in best]
