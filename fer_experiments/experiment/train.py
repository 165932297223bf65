"""Fits a head, fine-tunes it where asked, and records it: for trials, refits, `fer train` and its multiruns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fer_experiments import tracking
from fer_experiments.backbones.networks import Backbone, seen_near_twins
from fer_experiments.config import Config, flatten, mlruns_dir, recorded
from fer_experiments.data import Dataset
from fer_experiments.errors import FitError, UserError
from fer_experiments.experiment.finetune import REFIT, fine_tune_live, fit_digest, unfrozen
from fer_experiments.experiment.prepare import Echo, Prepared, prepare, smoke
from fer_experiments.experiment.pretrain import run_pretrain
from fer_experiments.experiment.record import Live, describe_run, record
from fer_experiments.experiment.repeats import Fits, fit_all
from fer_experiments.features.extraction import check_fingerprint
from fer_experiments.terminal import say
from fer_experiments.training.result import trainable_parameters


def train(config: Config, *, parent: str | None = None, echo: Echo = say) -> dict[str, float]:
    """One logged run of kind `train`; returns its final metrics. With a recipe for pocket that is what is trained."""
    if config.pretrain is not None:
        return run_pretrain(config, parent=parent, echo=echo)
    config = smoke(config)
    started = time.perf_counter()
    store = tracking.connect(config)
    tracking.close_orphans(store)
    prepared = prepare(config, echo)
    config = prepared.config
    name = f"{config.backbone.name}-{config.head.name}"
    tags = {**prepared.tags, REFIT: fit_digest(config, prepared.tags)}
    with tracking.start_run(store, "train", name, recorded(config), tags=tags, parent=parent) as run:
        describe_run(run, prepared.dataset, recorded(config))
        fits, final = fit_and_record(run, prepared, config, echo, description=config.head.name)
        run.log_metrics({"time/total_s": time.perf_counter() - started})
    echo(summary(prepared.dataset, final, fits))
    return final


def fit_and_record(
    run: tracking.Run, prepared: Prepared, config: Config, echo: Echo = say, **options: Any
) -> tuple[Fits, dict[str, float]]:
    """Fits the config's head on the prepared features, with the options of `fit_all`, and where the config says so
    fine-tunes it with its backbone; the fits go on the run, with the head or the whole network."""
    tuned = config.training.unfreeze is not None
    if tuned and (len(prepared.parts) > 1 or options.get("repeats", 1) > 1):
        raise UserError("training=finetune: is of one network; say data.fold=<number>, and sweep.repeats=1")
    network = None
    if tuned:  # before hours, if it cannot be
        check_fingerprint(config.backbone, prepared.tags["fer.backbone"])
        network = unfrozen(prepared.dataset, config)
    live = Live(run)
    logged: Sequence[int] = live.epochs
    if not tuned and options.get("repeats", 1) == len(prepared.parts) == 1:  # of several, the curves are means
        options["on_epoch"] = live
    fits = fit_all(prepared, config, **options)
    trained = None
    if network is not None:
        upper = network.trunk if isinstance(network, Backbone) else network
        trained = trainable_parameters(upper) + trainable_parameters(fits.kept.model)
        fits.results[0], logged = fine_tune_live(run, network, fits.kept, prepared, config, echo)
    final = record(run, prepared.dataset, fits.results, fits.kept, repeats=fits.repeats, logged=logged, trained=trained)
    if len(fits.results) > 1:
        run.log_json(fits.table(), "metrics/fits.json")
    if near := seen_near_twins(config.backbone, prepared.dataset):
        run.set_tags({"fer.seen_near_twins": f"{near} of {len(prepared.dataset.val)} validation images"})
    run.log_head(fits.kept.model, "uint8" if config.training.on_pixels else prepared.features.dtype)
    return fits, final


def train_many(configs: Sequence[Config], echo: Echo = say) -> None:
    """The jobs of a multirun, each a run under one parent run; one whose fit comes to nothing does not keep the others.

    Raises:
        UserError: after the last job, naming those that failed; at once for what would fail every job.
    """
    if len({(config.tracking.uri, mlruns_dir(config), config.data.task) for config in configs}) > 1:
        raise UserError(
            "the jobs of a multirun are under one run: give them one data.task, paths.mlruns and tracking.uri"
        )
    failed: list[int] = []
    with tracking.start_run(
        tracking.connect(configs[0]),
        "train",
        f"multirun of {len(configs)}",
        tags={"fer.multirun": str(len(configs))},
        system_metrics=False,
    ) as parent:
        parent.log_environment()
        for number, config in enumerate(configs):
            echo(f"job {number + 1} of {len(configs)}: {differences(config, configs)}")
            try:
                train(config, parent=parent.id, echo=echo)
            except FitError as error:
                failed.append(number + 1)
                echo(f"job {number + 1} failed: {error}")
        if failed:
            raise UserError(
                f"{len(failed)} of {len(configs)} jobs failed ({', '.join(map(str, failed))}); the others are recorded"
            )


def differences(config: Config, configs: Sequence[Config]) -> str:
    """The config paths of one job that are not the same in all jobs, with their values."""
    flat = [flatten(recorded(c)) for c in configs]
    own = flatten(recorded(config))
    return ", ".join(f"{path}={value}" for path, value in own.items() if any(f.get(path) != value for f in flat))


def summary(dataset: Dataset, final: dict[str, float], fits: Fits) -> str:
    """The result of a run in two lines, the accuracy with its 95 % interval."""
    low, high = (final[f"final/val_accuracy_{end}"] for end in ("low", "high"))
    shown = {k: v for k, v in final.items() if "accuracy" not in k and not k.endswith("_std")}
    others = "  ".join(f"{k.removeprefix('final/val_')} {v:.4f}" for k, v in shown.items())
    std = final.get("final/val_accuracy_std")
    spread = "" if std is None else f" ± {std:.4f} over {len(fits.results)} fits"
    accuracy = f"{final['final/val_accuracy']:.4f}{spread}"
    kept = fits.kept
    epochs = f"best epoch {kept.best_epoch} of {kept.began} to {kept.history.index[-1]}"
    return (
        f"validation accuracy {accuracy} (95 % interval {low:.4f} to {high:.4f}, {len(dataset.val):,} images), "
        f"{epochs}, fitted in {fits.seconds:.0f} s\n{others}"
    )
