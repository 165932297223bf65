"""What trials stand on: data and features by config, each distinct value prepared once and shared with the workers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from fer_experiments.backbones import networks
from fer_experiments.backbones.upper import load_upper
from fer_experiments.config import BackboneConfig, Config, FeaturesConfig, cache_dir, to_dict
from fer_experiments.config.parts import PREPARED_SECTIONS
from fer_experiments.data import Dataset, load_dataset, remarks
from fer_experiments.errors import UserError
from fer_experiments.executors.executor import Executor, Shared, open_executor
from fer_experiments.features import engine
from fer_experiments.features.cache import FeatureSet, Unstored, decided, extract_features, features_fingerprint
from fer_experiments.features.travel import Travelling, pack
from fer_experiments.terminal import Echo, say
from fer_experiments.training import precision
from fer_experiments.training.finetuning import passed
from fer_experiments.training.fit import feature_moments
from fer_experiments.training.heads import Moments, check_head


@dataclass(frozen=True)
class Prepared:
    """What a fit stands on: the data and its stored features. tags: the fingerprints, as tags of a run.

    config: what it was prepared from, `auto` decided.
    """

    config: Config
    dataset: Dataset
    features: FeatureSet
    tags: dict[str, str]

    @cached_property
    def parts(self) -> list[Dataset]:
        """What a config is fitted on: of data.fold=all a dataset a fold."""
        return self.dataset.parts()

    @cached_property
    def moments(self) -> list[list[Moments]]:
        """Of the features of each part's training split; computed once."""
        return [feature_moments(self.features, part.train) for part in self.parts]

    @cached_property
    def above(self) -> Unstored:
        """What the layers above the only cut layer make of the features; computed once."""
        return passed(load_upper(self.config.backbone), self.features, len(self.dataset.images))


@dataclass(frozen=True)
class Sent:
    """A Prepared on its way to a worker. travelling: the features' files, for a machine that does not have them."""

    config: Config
    dataset: Shared
    features: FeatureSet
    tags: dict[str, str]
    travelling: Travelling | None

    @cached_property
    def here(self) -> Prepared:
        """The same on this machine, with the features in its cache."""
        features = self.travelling.unpack(cache_dir(self.config)) if self.travelling else self.features
        return Prepared(self.config, self.dataset.get(), features, self.tags)


class Preparations:
    """Prepares configs, those that say the same of data, backbone and features once; the first is the base.

    The validation images of all are those of the first: else their scores could not be compared.
    """

    def __init__(self, executor: Executor | None = None, echo: Echo = say) -> None:
        self._executor, self._echo = executor, echo
        self._datasets: dict[str, Dataset] = {}
        self._prepared: dict[str, Prepared] = {}
        self._sent: dict[str, Shared] = {}
        self._shared_datasets: dict[str, Shared] = {}

    def dataset(self, config: Config) -> Dataset:
        """The data of a config.

        Raises:
            UserError: data that cannot be read, or other validation images than those of the first config.
        """
        key = _key(config, "data")
        if key not in self._datasets:
            loaded = load_dataset(config.data, smoke=config.training.smoke, cache=cache_dir(config))
            for line in remarks(loaded):
                self._echo(line)
            first = next(iter(self._datasets.values()), loaded)
            if not _same_validation(first, loaded):
                raise UserError("data: its validation images are others than those of the other trials")
            self._datasets[key] = loaded
        return self._datasets[key]

    def of(self, config: Config) -> Prepared:
        """Data and features of a config, the features from the cache or through the backbone, where the executor runs.

        Raises:
            UserError: data, weights or a cut layer that are not there; a backbone that cannot be built so, or that has
                seen the validation images.
        """
        key = _key(config, *PREPARED_SECTIONS)
        if key not in self._prepared:
            check_head(config.head)  # before the pass through the backbone
            config = self.decided(config)
            features = _features(config, self.dataset(config), self._echo, self._executor)
            self._prepared[key] = Prepared(config, self.dataset(config), features, self.tags(config))
        return self._prepared[key]

    def decided(self, config: Config, begun: Callable[[Config], bool] = lambda config: False) -> Config:
        """The config with what `auto` comes to in it; begun: with which it was begun already."""
        ways = precision.decisions(config.training, config.head)
        for features, training in product(engine.decisions(config.features), ways):
            if begun(chosen := replace(config, features=features, training=training)):
                return chosen
        made_of = _made_of(config, self.dataset(config))
        features = decided(*made_of, echo=self._echo, executor=_spread(self._executor))
        return replace(config, features=features, training=ways[0])

    def tags(self, config: Config) -> dict[str, str]:
        """The fingerprints of data and features of a decided config, as tags of a run; nothing is computed."""
        dataset = self.dataset(config)
        return {
            "fer.dataset": dataset.fingerprint,
            "fer.backbone": networks.backbone_fingerprint(config.backbone),
            "fer.features": features_fingerprint(dataset.images_fingerprint, config.backbone, config.features),
        }

    def shared(self, config: Config) -> Shared:
        """A handle of `of(config)` for the executor's calls, which get a Sent; a dataset is sent once."""
        prepared, executor = self.of(config), self._executor
        assert executor is not None
        key = _key(config, *PREPARED_SECTIONS)
        if key not in self._sent:
            data = _key(config, "data")
            if data not in self._shared_datasets:
                self._shared_datasets[data] = executor.share(prepared.dataset)
            travelling = pack(prepared.features, executor) if executor.foreign_hosts() else None
            parts = (prepared.config, self._shared_datasets[data], prepared.features, prepared.tags, travelling)
            self._sent[key] = executor.share(Sent(*parts))
        return self._sent[key]


def prepare(config: Config, echo: Echo = say, executor: Executor | None = None) -> Prepared:
    """Data and features of one config; see `Preparations.of`."""
    return Preparations(executor, echo).of(config)


def prepare_features(config: Config) -> None:
    """`fer features`: the features of a config, made where its executor runs."""
    with open_executor(config.compute) as executor:
        prepare(smoke(config), executor=executor)


def _features(config: Config, dataset: Dataset, echo: Echo, executor: Executor | None) -> FeatureSet:
    networks.check_not_seen(config.backbone, dataset)
    if near := networks.seen_near_twins(config.backbone, dataset):
        echo(
            f"backbone={config.backbone.name} has learned from near twins of {near:,} of the {len(dataset.val):,} "
            "validation images, which flatters its scores"
        )
    return extract_features(*_made_of(config, dataset), echo=echo, executor=_spread(executor))


def _made_of(config: Config, dataset: Dataset) -> tuple[np.ndarray, str, BackboneConfig, FeaturesConfig, Path]:
    """What features are made of, and where they are kept."""
    return dataset.images, dataset.images_fingerprint, config.backbone, config.features, cache_dir(config)


def _spread(executor: Executor | None) -> Executor | None:
    """The executor, if features are made faster by it than in this process."""
    alone = executor is None or (executor.slots == 1 and not executor.foreign_hosts())
    return None if alone else executor


def _same_validation(one: Dataset, other: Dataset) -> bool:
    return one is other or (
        np.array_equal(one.images[one.val], other.images[other.val])
        and np.array_equal(one.labels[one.val], other.labels[other.val])
    )


def _key(config: Config, *sections: str) -> str:
    """What tells the configs of two trials apart in these sections."""
    container: dict[str, Any] = to_dict(config)
    return json.dumps({section: container[section] for section in sections}, sort_keys=True)


def smoke(config: Config) -> Config:
    """The same config with a few images and one step of everything, when training.smoke asks for it."""
    if not config.training.smoke:
        return config
    sweep = config.sweep and replace(config.sweep, max_trials=2, max_epochs=1)
    finetune = config.training.finetune and replace(config.training.finetune, epochs=1, batch_size=16)
    return replace(
        config,
        data=replace(config.data, demo_size=min(config.data.demo_size, 400)),
        training=replace(config.training, epochs=1, batch_size=16, finetune=finetune),
        tracking=replace(config.tracking, system_metrics=False),
        sweep=sweep,
    )
