"""One experiment: prepare data and features, fit a head, record the run."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from fer_experiments import backbones, metrics, plots, tracking
from fer_experiments.config import Config, cache_dir, flatten, mlruns_dir, project_root, to_dict
from fer_experiments.data import Dataset, load_dataset
from fer_experiments.executors import Executor
from fer_experiments.features import FeatureSet, Travelling, extract_features, pack
from fer_experiments.heads import Moments
from fer_experiments.sheets import counts_table, near_twins, sample_faces
from fer_experiments.training import FitResult, feature_moments, fit_head

if TYPE_CHECKING:
    from fer_experiments.pocket_training import PretrainResult

Echo = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """What every trial of a sweep shares: the data and its stored features. tags: the fingerprints, as tags of a run.

    travelling: the features' files, when a trial may run on a machine that does not have them.
    """

    config: Config
    dataset: Dataset
    features: FeatureSet
    tags: dict[str, str]
    travelling: Travelling | None = None

    @cached_property
    def moments(self) -> list[Moments]:
        """Of the training split's features; computed once."""
        return feature_moments(self.features, self.dataset.train)

    @cached_property
    def here(self) -> Prepared:
        """The same on this machine, with the features in its cache."""
        if self.travelling is None:
            return self
        return replace(self, features=self.travelling.unpack(cache_dir(self.config)), travelling=None)


def smoke(config: Config) -> Config:
    """The same config with a few images and one step of everything, when training.smoke asks for it."""
    if not config.training.smoke:
        return config
    sweep = config.sweep and replace(config.sweep, max_trials=2, max_epochs=1)
    return replace(
        config,
        data=replace(config.data, demo_size=min(config.data.demo_size, 400)),
        training=replace(config.training, epochs=1, batch_size=16),
        tracking=replace(config.tracking, system_metrics=False),
        sweep=sweep,
    )


def prepare(config: Config, echo: Echo = print, executor: Executor | None = None) -> Prepared:
    """Loads and splits the data, and takes its features from the cache or through the backbone, where `executor` runs.

    Raises:
        UserError: data, weights or a cut layer that are not there; a backbone that has seen the validation images.
    """
    dataset = load_dataset(config.data, smoke=config.training.smoke, cache=cache_dir(config))
    backbones.check_not_seen(config.backbone, dataset)
    if executor is not None and executor.slots == 1 and not executor.foreign_hosts():
        executor = None
    features = extract_features(
        dataset.images,
        dataset.images_fingerprint,
        config.backbone,
        config.features,
        cache_dir(config),
        echo=echo,
        executor=executor,
    )
    tags = {
        "fer.dataset": dataset.fingerprint,
        "fer.backbone": backbones.backbone_fingerprint(config.backbone),
        "fer.features": features.fingerprint,
    }
    foreign = executor is not None and executor.foreign_hosts()
    return Prepared(config, dataset, features, tags, pack(features, executor) if executor and foreign else None)


def describe_run(run: tracking.Run, dataset: Dataset, container: dict[str, Any]) -> None:
    """What a run was made of goes on it: the config (as plain containers), data and cleaning, the environment."""
    run.log_text(OmegaConf.to_yaml(OmegaConf.create(container)), "config.yaml")
    run.log_json(dataset.cleaning, "data/cleaning.json")
    run.log_csv(counts_table(dataset), "data/counts.csv")
    run.log_bytes(_sheet(dataset, sample_faces), "data/faces.png")
    if dataset.twins:
        run.log_bytes(_sheet(dataset, near_twins), "data/near_twins.png")
    run.log_dataset(dataset)
    run.log_environment(project_root() / "requirements.lock")


# By dataset: every trial of a sweep shows the same faces, and drawing takes a while.
_sheets: dict[tuple[str, str], bytes] = {}


def _sheet(dataset: Dataset, draw: Callable[[Dataset], Figure]) -> bytes:
    """Sample faces, or pairs of near twins, as a PNG."""
    key = (dataset.fingerprint, draw.__name__)
    if key not in _sheets:
        png = io.BytesIO()
        draw(dataset).savefig(png)
        _sheets[key] = png.getvalue()
    return _sheets[key]


def fit_and_record(
    run: tracking.Run, prepared: Prepared, config: Config, **options: Any
) -> tuple[FitResult, dict[str, float]]:
    """Fits the config's head on the prepared features, with the options of `fit_head`; fit and head go on the run."""
    fit = fit_head(
        prepared.features,
        prepared.dataset,
        config.head,
        config.training,
        moments=prepared.moments if config.head.normalize else None,
        **options,
    )
    final = record(run, prepared.dataset, fit)
    run.log_head(fit.model, prepared.features.dtype)
    return fit, final


def record(
    run: tracking.Run, dataset: Dataset, fit: FitResult | PretrainResult, *, logged: Sequence[int] = ()
) -> dict[str, float]:
    """What a fit gave goes on its run, epochs in `logged` being there already; returns the final metrics by name."""
    final = log_scores(run, "val", dataset.labels[dataset.val], fit.val_probabilities, dataset.classes)
    run.log_epochs(fit.history.drop(index=list(logged)))
    run.log_metrics({"time/fit_s": fit.seconds, "best_epoch": float(fit.best_epoch)})
    run.log_figure(plots.learning_curves(fit.history, fit.best_epoch), "plots/learning_curves.png")
    run.log_csv(fit.history.rename_axis("epoch").reset_index(), "metrics/history.csv")
    return final


def log_scores(
    run: tracking.Run, split: str, labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]
) -> dict[str, float]:
    """Metrics and figures of a split ("val" or "test") go on the run; returns the metrics, accuracy with interval."""
    suffix = "" if split == "val" else f"_{split}"
    scores = metrics.classification_metrics(labels, probabilities)
    low, high = metrics.bootstrap_interval(labels, probabilities)
    scores |= {"accuracy_low": low, "accuracy_high": high}
    final = {f"final/{split}_{name}": value for name, value in scores.items()}
    matrix = metrics.confusion(labels, probabilities)
    run.log_metrics(final)
    run.log_figure(plots.confusion_matrix(matrix, classes), f"plots/confusion_matrix{suffix}.png")
    run.log_figure(plots.roc_curve(labels, probabilities, classes), f"plots/roc_curve{suffix}.png")
    run.log_json({"classes": list(classes), "matrix": matrix.tolist()}, f"metrics/confusion_matrix{suffix}.json")
    return final


def train(config: Config, *, parent: str | None = None, echo: Echo = print) -> dict[str, float]:
    """One logged run of kind `train`; returns its final metrics."""
    config = smoke(config)
    started = time.perf_counter()
    uri = tracking.connect(config.tracking, mlruns_dir(config))
    tracking.close_orphans(uri, f"fer/{config.data.task}")
    prepared = prepare(config, echo)
    with tracking.start_run(
        uri=uri,
        mlruns=mlruns_dir(config),
        experiment=f"fer/{config.data.task}",
        kind="train",
        name=f"{config.backbone.name}-{config.head.name}",
        config=to_dict(config),
        tags=prepared.tags,
        parent=parent,
        system_metrics=config.tracking.system_metrics,
    ) as run:
        describe_run(run, prepared.dataset, to_dict(config))
        fit, final = fit_and_record(run, prepared, config, description=config.head.name)
        run.log_metrics({"time/total_s": time.perf_counter() - started})
    echo(summary(prepared.dataset, final, fit))
    return final


def train_many(configs: Sequence[Config], echo: Echo = print) -> None:
    """The jobs of a multirun, each a run under one parent run."""
    first = configs[0]
    with tracking.start_run(
        uri=tracking.connect(first.tracking, mlruns_dir(first)),
        mlruns=mlruns_dir(first),
        experiment=f"fer/{first.data.task}",
        kind="train",
        name=f"multirun of {len(configs)}",
        config={},
        tags={"fer.multirun": str(len(configs))},
        system_metrics=False,
    ) as parent:
        for number, config in enumerate(configs):
            echo(f"job {number + 1} of {len(configs)}: {differences(config, configs)}")
            train(config, parent=parent.id, echo=echo)


def differences(config: Config, configs: Sequence[Config]) -> str:
    """The config paths of one job that are not the same in all jobs, with their values."""
    flat = [flatten(to_dict(c)) for c in configs]
    own = flatten(to_dict(config))
    return ", ".join(f"{path}={value}" for path, value in own.items() if any(f.get(path) != value for f in flat))


def summary(dataset: Dataset, final: dict[str, float], fit: FitResult) -> str:
    """The result of a run in two lines, the accuracy with its 95 % interval."""
    accuracy, low, high = (final[f"final/val_accuracy{end}"] for end in ("", "_low", "_high"))
    others = "  ".join(f"{k.removeprefix('final/val_')} {v:.4f}" for k, v in final.items() if "accuracy" not in k)
    return (
        f"validation accuracy {accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}, {len(dataset.val):,} images), "
        f"best epoch {fit.best_epoch} of {len(fit.history)}, fitted in {fit.seconds:.0f} s\n{others}"
    )
