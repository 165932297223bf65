"""What makes two sweeps the same, and the config of each of their trials."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments.config import AUTO, Config, flatten, is_place, recorded, to_dict
from fer_experiments.config.parts import BUDGET_PATHS, YOUNGER
from fer_experiments.search.space import GROUPS, ORACLES, apply, is_prepared_per_trial
from fer_experiments.search.trials import Trial

if TYPE_CHECKING:
    from fer_experiments.experiment.prepare import Preparations

CLEAN_ALL = ["constant", "conflicting", "duplicates"]  # what data.clean=all meant to those


def trial_config(config: Config, trial: Trial) -> Config:
    """The base config with a trial's values, its seed, and the epochs that Hyperband grants it."""
    assert config.sweep is not None
    extra: dict[str, Any] = {"training.seed": seed_of(config.sweep.seed, trial.number + 1)}
    if trial.grant.epochs is not None:
        extra["training.epochs"] = int(trial.grant.epochs)
    return replace(apply(config, {**extra, **trial.values}), sweep=None)


def sections(config: Config) -> dict[str, dict[str, dict[str, Any]]]:
    """By group that is searched as a whole, the section of a trial's config that each of its values makes."""
    assert config.sweep is not None
    searched = {path: entry["values"] for path, entry in config.sweep.space.items() if path in GROUPS}
    return {
        group: {str(name): to_dict(apply(config, {group: name}))[group] for name in names}
        for group, names in searched.items()
    }


def of_all_trials(config: Config) -> dict[str, Any]:
    """The config, flat, without what trials differ in and without the budget, which a later start may change."""
    assert config.sweep is not None
    space = config.sweep.space
    groups = tuple(f"{path}." for path in space if path in GROUPS)
    own = {*space, "training.seed", *(["training.epochs"] if ORACLES[config.sweep.oracle].grants else [])}
    return {
        path: value
        for path, value in flatten(recorded(config)).items()
        if path not in own and path not in BUDGET_PATHS and not path.startswith(groups)
    }


def exact_for_all(config: Config) -> Config:
    """The config; where trials differ in backbones or heads, not all of which may bear bfloat16, auto is float32."""
    assert config.sweep is not None
    features, training = config.features, config.training
    if features.precision == AUTO and any(path.partition(".")[0] == "backbone" for path in config.sweep.space):
        features = replace(features, precision="float32")
    if training.precision == AUTO and "head" in config.sweep.space:
        training = replace(training, precision="float32")
    return replace(config, features=features, training=training)


def tags_of_all(config: Config, preparations: Preparations) -> dict[str, str]:
    """The fingerprints that all trials of a sweep share."""
    assert config.sweep is not None
    tags = preparations.tags(config)
    return {"fer.dataset": tags["fer.dataset"]} if is_prepared_per_trial(config.sweep.space) else tags


def identity_of(config: Config, tags: dict[str, str]) -> dict[str, Any]:
    """What makes two sweeps the same, flat: space, oracle, objective, base config, fingerprints of all its trials."""
    flat = flatten(to_dict(config))
    kept = {k: v for k, v in flat.items() if k not in BUDGET_PATHS and not is_place(k)}
    kept = {k: v for k, v in kept.items() if not _makes_none_other(k, v)}
    if kept["data.clean"] == CLEAN_ALL:  # the dataset's fingerprint tells it from what `all` means now
        kept["data.clean"] = "all"
    return {**kept, **tags}


def _makes_none_other(path: str, value: Any) -> bool:
    """Whether sweeps older than this path go on with the value: it was so then, or it is asked of models alone."""
    key = ".".join(path.split(".")[:2])
    return key in YOUNGER and (value == YOUNGER[key] or path.startswith(("promote.", "gate.")))


def seed_of(seed: int, number: int) -> int:
    """The seed of a trial: from the sweep's seed and the trial's number, below 2**31."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)
