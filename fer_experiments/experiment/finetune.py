"""The second stage of `training=finetune`, told live on its run; its state is in the cache for the same command."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from fer_experiments import tracking
from fer_experiments.backbones.networks import Backbone, load_backbone
from fer_experiments.backbones.upper import load_upper
from fer_experiments.config import Config, cache_dir, flatten, to_dict
from fer_experiments.config.parts import FITTED_SECTIONS, YOUNGER
from fer_experiments.data import Dataset
from fer_experiments.errors import UserError
from fer_experiments.experiment.prepare import Prepared
from fer_experiments.experiment.record import Live
from fer_experiments.files import digest, holding, write_atomically
from fer_experiments.terminal import Echo, shown
from fer_experiments.training.finetuning import fine_tune, fine_tune_above, unfreeze
from fer_experiments.training.fit import make_reproducible
from fer_experiments.training.pixels import STATE, on_devices
from fer_experiments.training.result import TrainingResult, trainable_parameters

if TYPE_CHECKING:
    import keras


HEAD = "head.json"  # beside the state of a fine-tuning: the fit of the head that it began with
REFIT = "fer.refit"  # tag of a run: `fit_digest` of what it fits, which promotions and `fer seeds` take from there


def fit_digest(config: Config, tags: dict[str, str]) -> str:
    """What makes two fits the same: config (head, training, seed), and the fingerprints of what they were made of."""
    own = flatten({section: to_dict(config)[section] for section in FITTED_SECTIONS})
    own = {path: value for path, value in own.items() if path not in YOUNGER or value != YOUNGER[path]}
    if config.data.balance == "class_weight":  # the one thing of the data that no fingerprint covers
        own["data.balance"] = config.data.balance
    if (backend := os.environ["KERAS_BACKEND"]) != "tensorflow":  # digests are older than the other one
        own["backend"] = backend
    return digest([own, tags])[:16]


def unfrozen(dataset: Dataset, config: Config) -> Backbone | keras.Model:
    """The config's backbone, or from features what is above its cut layer; what training.unfreeze says is trainable.

    Raises:
        UserError: it has no such layers, or the head cannot be on top of them.
    """
    make_reproducible(config.training)  # a network in mixed precision is a copy, whose dropout draws its own seed
    if config.training.on_pixels:
        backbone = load_backbone(config.backbone, (*dataset.images.shape[1:3], 1), config.training.precision)
        unfreeze(backbone.trunk, config.training)
        return backbone
    upper = load_upper(config.backbone, config.training.precision)
    unfreeze(upper, config.training)
    if config.head.spatial and any(len(output.shape) != 4 for output in upper.outputs):
        raise UserError(
            f"head={config.head.name} needs a map, and {config.backbone.name} ends in none: take head=pooled"
        )
    return upper


def fine_tune_live(
    run: tracking.Run,
    network: Backbone | keras.Model,
    fit: TrainingResult,
    prepared: Prepared,
    config: Config,
    echo: Echo,
) -> tuple[TrainingResult, Sequence[int]]:
    """Fine-tunes `unfrozen` layers under the fitted head; returns what came of it, and the epochs on the run by now.

    Raises:
        UserError: another process trains the same. FitError: the loss is not a number.
    """
    assert config.training.finetune is not None
    how = config.training.finetune
    trunk = network.trunk if isinstance(network, Backbone) else network
    folder = cache_dir(config) / "finetune" / fit_digest(config, prepared.tags)
    counts = {"backbone": trainable_parameters(trunk), "head": trainable_parameters(fit.model)}
    run.log_metrics({f"parameters/{part}": float(count) for part, count in counts.items()})
    with holding(folder / "lock", f"{folder}: another process trains the same network"):
        fit = _begun_with(fit, folder)
        before, head = len(fit.history), float(fit.history["val/accuracy"].iloc[fit.best_epoch])
        run.log_metrics({"head/val_accuracy": head})
        echo(
            f"the head alone: validation accuracy {head:.4f}; fine-tuning {counts['backbone']:,} parameters of "
            f"{config.backbone.name} and {counts['head']:,} of the head{on_devices(prepared.dataset, how)}; state in "
            f"{shown(folder)}"
        )
        live = Live(run, how.epochs, echo, before)
        rest = (config.training, folder, live)
        if isinstance(network, Backbone):
            tuned = fine_tune(network, fit, prepared.dataset, prepared.features.views, *rest)
        else:
            tuned = fine_tune_above(network, fit, prepared.dataset, prepared.features, *rest)
    live.tell_earlier(len(tuned.history) - before)
    if (best := float(tuned.history["val/accuracy"].iloc[tuned.best_epoch])) < head:
        echo(
            f"the head alone was better: validation accuracy {head:.4f}, fine-tuned {best:.4f}; more epochs, or a "
            "smaller training.finetune.learning_rate, may mend that"
        )
    return tuned, live.epochs


def _begun_with(fit: TrainingResult, folder: Path) -> TrainingResult:
    """The fit of the head; of a training that goes on, what the one had to show that it began with."""
    path = folder / HEAD
    if (folder / STATE).exists():
        try:
            told = json.loads(path.read_text())
            return replace(fit, **told | {"history": pd.DataFrame(told["history"]).rename_axis("epoch")})
        except (OSError, ValueError, KeyError, TypeError):
            return fit  # of an earlier version, which kept none
    told = {"history": fit.history.to_dict("records"), "best_epoch": fit.best_epoch, "seconds": fit.seconds}
    write_atomically(path, lambda file: file.write(json.dumps(told).encode()))
    return fit
