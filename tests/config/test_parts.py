"""What is the experiment and what only its place: said once, by the schema."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fer_experiments.config import check, decides_results, experiment, flatten, from_dict, is_place, options, to_dict
from fer_experiments.config.compose import compose
from fer_experiments.config.parts import BUDGET_PATHS, EXPERIMENT_SECTIONS
from fer_experiments.errors import UserError

WHOLE = compose(["sweep=quick", "pretrain=pocket", "promote=default", "gate=default"])


def test_an_experiment_is_data_backbone_features_head_and_training():
    assert tuple(experiment(to_dict(WHOLE))) == EXPERIMENT_SECTIONS
    assert EXPERIMENT_SECTIONS == ("data", "backbone", "features", "head", "training")


def test_place_and_budget_decide_no_result():
    places = {path for path in flatten(to_dict(WHOLE)) if is_place(path) and path.split(".")[0] in EXPERIMENT_SECTIONS}
    assert places == {"data.path", "features.batch_size", "features.shard_size"}
    assert not any(map(decides_results, [*places, *BUDGET_PATHS, "compute.address", "paths.cache", "sweep.seed"]))
    assert all(map(decides_results, ["data.clean", "backbone.weights", "features.dtype", "head.l2", "training.seed"]))


@pytest.mark.parametrize("name", options("head"))
def test_a_head_is_spatial_as_its_yaml_says(name: str):
    config = compose([f"head={name}"])
    assert config.head.spatial == (name in ("conv", "paper"))
    assert replace(compose([]).head, name=name).spatial == config.head.spatial
    flat = flatten(to_dict(config))
    assert "head.spatial" not in flat, "neither recorded nor part of an identity"
    assert from_dict(to_dict(config)) == config, "as a config that was recorded before the key was there"


def test_a_head_is_not_made_spatial_by_an_override():
    with pytest.raises(UserError, match=r"head.spatial=true: the YAML in conf/head says it, and nothing else can"):
        compose(["head=linear", "head.spatial=true"])
    recorded = to_dict(compose(["head=linear", "backbone.pooling=avg"]))
    recorded["head"]["spatial"] = True
    check(from_dict(recorded))


def test_a_spatial_head_takes_no_pooled_features():
    with pytest.raises(UserError, match="head=conv needs a spatial map"):
        compose(["head=conv", "backbone.pooling=avg"])
    with pytest.raises(UserError, match="head=paper needs a spatial map"):
        compose(["head=linear", "head.name=paper", "backbone.pooling=avg"])
