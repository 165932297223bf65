"""The second stage of `training=finetune`, told live on its run; its state is in the cache for the same command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from fer_experiments import tracking
from fer_experiments.backbones.networks import Backbone, load_backbone
from fer_experiments.config import Config, cache_dir, flatten, to_dict
from fer_experiments.config.parts import FITTED_SECTIONS, YOUNGER
from fer_experiments.data import Dataset
from fer_experiments.experiment.prepare import Prepared
from fer_experiments.experiment.record import Live
from fer_experiments.files import holding
from fer_experiments.terminal import shown
from fer_experiments.training.finetuning import fine_tune, trainable_parameters, unfreeze
from fer_experiments.training.result import TrainingResult

Echo = Callable[[str], None]


def fit_digest(config: Config, tags: dict[str, str]) -> str:
    """What makes two fits the same: config (head, training, seed), and the fingerprints of what they were made of."""
    own = flatten({section: to_dict(config)[section] for section in FITTED_SECTIONS})
    own = {path: value for path, value in own.items() if path not in YOUNGER or value != YOUNGER[path]}
    if config.data.balance == "class_weight":  # the one thing of the data that no fingerprint covers
        own["data.balance"] = config.data.balance
    return hashlib.sha256(json.dumps([own, tags], sort_keys=True).encode()).hexdigest()[:16]


def unfrozen_backbone(dataset: Dataset, config: Config) -> Backbone:
    """The config's backbone, with what training.unfreeze says made trainable.

    Raises:
        UserError: it has no such layers.
    """
    backbone = load_backbone(config.backbone, (*dataset.images.shape[1:3], 1), config.training.precision)
    unfreeze(backbone.trunk, config.training)
    return backbone


def fine_tune_live(
    run: tracking.Run, backbone: Backbone, fit: TrainingResult, prepared: Prepared, config: Config, echo: Echo
) -> tuple[TrainingResult, Sequence[int]]:
    """Fine-tunes what was fitted; returns what came of it, and the epochs that are on the run already.

    Raises:
        UserError: another process trains the same. FitError: the loss is not a number.
    """
    assert config.training.finetune is not None
    how, before = config.training.finetune, len(fit.history)
    folder = cache_dir(config) / "finetune" / fit_digest(config, prepared.tags)
    counts = {"backbone": trainable_parameters(backbone.trunk), "head": trainable_parameters(fit.model)}
    head = float(fit.history["val/accuracy"].iloc[fit.best_epoch])
    run.log_metrics(
        {f"parameters/{part}": float(count) for part, count in counts.items()} | {"head/val_accuracy": head}
    )
    echo(
        f"the head alone: validation accuracy {head:.4f}; fine-tuning {counts['backbone']:,} parameters of "
        f"{config.backbone.name} and {counts['head']:,} of the head; state in {shown(folder)}"
    )
    live = Live(run, how.epochs, echo, before)
    with holding(folder / "lock", f"{folder}: another process trains the same network"):
        tuned = fine_tune(
            backbone, fit, prepared.dataset, prepared.features.views, config.training, folder, on_epoch=live
        )
    live.tell_earlier(len(tuned.history) - before)
    return tuned, live.epochs
