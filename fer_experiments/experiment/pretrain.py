"""`fer pretrain`, `fer train experiment=pocket`: the pocket backbone from scratch, and its run."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from fer_experiments import tracking
from fer_experiments.backbones import pocket
from fer_experiments.config import ALL_FOLDS, Config, PretrainConfig, cache_dir, check, recorded
from fer_experiments.config.folders import expanded
from fer_experiments.data import Dataset, load_dataset
from fer_experiments.errors import UserError
from fer_experiments.experiment.record import Live, describe_run, log_scores, open_sealed_test, record
from fer_experiments.files import digest, holding
from fer_experiments.terminal import Echo, say
from fer_experiments.training.pixels import on_devices
from fer_experiments.training.pretraining import PretrainResult, predict, pretrain, recipe

SECTIONS = ("data", "pretrain", "tracking", "paths")  # of the config: what a pretraining depends on


def run_pretrain(config: Config, *, parent: str | None = None, echo: Echo = say) -> dict[str, float]:
    """One logged run of kind `train`; returns its final metrics.

    A training that was stopped goes on, and one that is finished is only recorded: its state is in the cache, under
    a hash of recipe and dataset. With pretrain.open_test the test split is opened, once the epoch has been chosen.

    Raises:
        UserError: no recipe, one that makes no network, or data that are not 48x48 gray faces.
    """
    started = time.perf_counter()
    config, settings = _settings(config)
    dataset = load_dataset(config.data, smoke=config.training.smoke, cache=cache_dir(config))
    if dataset.images.shape[1:] != (pocket.SIZE, pocket.SIZE):
        shape = "x".join(map(str, dataset.images.shape[1:]))
        raise UserError(f"data={config.data.name}: images of {shape}; pocket learns from 48x48 gray faces")
    folder = checkpoint_dir(config, settings, dataset)
    may_train = not folder.is_dir() or os.access(folder, os.W_OK)  # else what is finished is recorded
    busy = f"{folder}: another process trains the same network"
    with holding(folder / "lock", busy) if may_train else nullcontext():
        return _trained(config, settings, dataset, folder, parent, echo, started)


def _trained(
    config: Config,
    settings: PretrainConfig,
    dataset: Dataset,
    folder: Path,
    parent: str | None,
    echo: Echo,
    started: float,
) -> dict[str, float]:
    """The run, by the one process that trains this network."""
    described = {name: section for name, section in recorded(config).items() if name in SECTIONS}
    with tracking.start_run(
        tracking.connect(config),
        "train",
        f"pretrain-{settings.name}",
        described,
        tags={"fer.dataset": dataset.fingerprint},
        parent=parent,
    ) as run:
        describe_run(run, dataset, described)
        live = Live(run, settings.epochs, echo)
        shared = on_devices(dataset, settings)
        echo(f"training {settings.epochs} epochs on {len(dataset.train):,} faces{shared}; state in {folder}")
        result = pretrain(dataset, settings, checkpoint_dir=folder, on_epoch=live)
        live.tell_earlier(len(result.history))
        final = record(run, dataset, [result], result, logged=live.epochs)
        _write_weights(run, settings, result)
        if settings.open_test:
            final |= _open_test(run, config, dataset, result)
        run.log_metrics({"time/total_s": time.perf_counter() - started})
    echo("  ".join(f"{name.removeprefix('final/')} {value:.4f}" for name, value in final.items()))
    return final


def checkpoint_dir(config: Config, settings: PretrainConfig, dataset: Dataset) -> Path:
    """Return where the state of this recipe on this dataset is kept."""
    weighted = ["class_weight"] if dataset.class_weight else []  # which no fingerprint covers
    backend = [] if os.environ["KERAS_BACKEND"] == "tensorflow" else [os.environ["KERAS_BACKEND"]]
    return cache_dir(config) / "pretrain" / digest([recipe(settings), dataset.fingerprint, *weighted, *backend])[:16]


def _settings(config: Config) -> tuple[Config, PretrainConfig]:
    """Return the config and its recipe, made small where training.smoke asks for it."""
    if config.pretrain is None:
        raise UserError("pretrain: no recipe; say pretrain=pocket")
    check(config)
    if config.data.fold == ALL_FOLDS:
        raise UserError("data.fold=all: a pretraining is of one network; say data.fold=<number>")
    settings = config.pretrain
    if config.training.smoke:
        settings = replace(settings, epochs=1, batch_size=16, widths=[8] * len(settings.widths))
        config = replace(config, pretrain=settings, tracking=replace(config.tracking, system_metrics=False))
    if settings.output:
        _check_output(expanded(settings.output, "pretrain.output"))
    return config, settings


def _check_output(path: Path) -> None:
    """Refuses, before an hour's training, a place where no file can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"pretrain.output={path}: cannot be written ({error.strerror}); name another file") from error
    if path.is_dir():
        raise UserError(f"pretrain.output={path}: is a folder; name a file in it, such as {path / 'pocket.npz'}")


def _write_weights(run: tracking.Run, settings: PretrainConfig, result: PretrainResult) -> None:
    """Log the weights as they ship, in float16, and write them to pretrain.output."""
    run.log_head(result.model, dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "pocket.npz"
        pocket.save(weights, settings.widths, settings.blocks, result.weights)
        run.log_file(weights, "weights/pocket.npz")
    if settings.output:
        pocket.save(expanded(settings.output, "pretrain.output"), settings.widths, settings.blocks, result.weights)


def _open_test(run: tracking.Run, config: Config, dataset: Dataset, result: PretrainResult) -> dict[str, float]:
    """Score the sealed test split; return its metrics."""
    test = open_sealed_test(run, config, dataset)
    return log_scores(run, "test", [(test.labels, predict(result.model, test.images))], test.classes)
