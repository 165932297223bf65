"""Config paths, and values put at them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_experiments.config import check, flatten, from_dict, to_dict, with_values
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError

BASE = compose(["sweep=quick"])


def test_a_config_survives_the_way_to_plain_containers_and_back():
    assert from_dict(to_dict(BASE)) == BASE


@given(l2=st.floats(1e-9, 1.0), widths=st.lists(st.integers(1, 4096), max_size=4), rate=st.floats(1e-6, 1.0))
def test_values_land_at_their_paths_and_nowhere_else(l2: float, widths: list[int], rate: float):
    changed = with_values(BASE, {"head.l2": l2, "head.dense_widths": widths, "training.learning_rate": rate})
    before, after = flatten(to_dict(BASE)), flatten(to_dict(changed))
    assert (after["head.l2"], after["head.dense_widths"], after["training.learning_rate"]) == (l2, widths, rate)
    differing = {key for key in before if before[key] != after[key]}
    assert differing <= {"head.l2", "head.dense_widths", "training.learning_rate"}


def test_an_unknown_path_names_the_close_ones():
    with pytest.raises(UserError, match=r"head.l3: no such config path; did you mean head.l2"):
        with_values(BASE, {"head.l3": 1.0})


def test_a_wrong_type_is_refused():
    with pytest.raises(UserError, match=r"head.l2"):
        with_values(BASE, {"head.l2": "much"})


def test_groups_of_emotions_stay_whole_when_flattened():
    assert flatten(to_dict(BASE))["data.classes"] == {"negative": ["angry", "fear", "sad"], "positive": ["happy"]}


UNUSABLE = [
    *[
        "head.dense_widths=[0]",
        "head.filters=[64,0]",
        "head.dropout=1",
        "head.dropout=nan",
        "head.l2=nan",
        "head.l2=inf",
        "head.dense_widths=[[1]]",
    ],
    *["head.name=transformer", "training.learning_rate=0", "training.learning_rate=inf", "training.patience=-1"],
    *["training.seed=-1", "training.seed=4294967296", "training.batch_size=0", "data.seed=-1", "data.folds=1"],
    *["data.fold=5", "data.fractions=[0.6,0.6,-0.2]", "data.fractions=[1]", "data.per_class=0", "data.limit=0"],
    *["backbone.channels=2", "backbone.input_size=0", "backbone.seed=-1", "backbone.layers=['']", "data.task=''"],
    *[
        "features.views=[flip,flip]",
        "features.views=[]",
        "features.views=[crop1,flip]",
        "compute.gpus_per_trial=1.5",
        "compute.cpus_per_trial=0",
    ],
    *["sweep.factor=1", "sweep.max_hours=nan", "sweep.target=nan", "sweep.seed=-1", "gate.alpha=0", "gate.alpha=1"],
    *["promote.ensemble=all", "promote.abstain=1", "promote.abstain=-0.1", "promote.refit=val", "promote.resamples=39"],
    *["gate.alpha=nan", "promote.seeds=0", "pretrain.widths=[48,0,160]", "pretrain.blocks=[1]"],
    *[
        f"{key}={value}"
        for key in ("data.task", "data.name", "backbone.name", "sweep.name", "pretrain.name")
        for value in ("../../../../x", "..", "a/b", "/tmp/x", "-x", "a*", '"a\x1b[2J"', '"a\nb"', "x" * 61, '"a\\b"')
    ],
    *["pretrain.ema=1", "pretrain.learning_rate=0", "pretrain.label_smoothing=1"],
    *["backbone.layers=[stage3,stage3]", "gate.recall={happy:1.1}", "gate.name=x", "promote.name=x"],
]
EVERYTHING = ["sweep=quick", "pretrain=pocket", "promote=default", "gate=default"]


@pytest.mark.parametrize("override", UNUSABLE)
def test_a_value_that_no_room_could_use_is_refused(override: str):
    key, _, _ = override.partition("=")
    with pytest.raises(UserError) as caught:
        compose([*EVERYTHING, override])
    assert f"{key}=" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["paths.cache", "paths.mlruns", "backbone.weights", "data.path"])
def test_a_path_that_is_not_utf_8_is_refused_in_a_line_that_is(key: str):
    with pytest.raises(UserError, match=rf"^{key}=faces.*: is no text in UTF-8") as refused:
        compose([f"{key}=faces\udcff"])
    assert "\n" not in str(refused.value)


def test_the_limits_of_a_gate_are_numbers():
    with pytest.raises(UserError, match=r"gate.floors=.*: each must be a finite number"):
        compose([*EVERYTHING, "+gate.floors.accuracy=nan"])


@pytest.mark.parametrize("key", ["seeds", "top_k"])
def test_an_ensemble_of_one_head_is_refused(key: str):
    with pytest.raises(UserError, match=f"promote.ensemble={key}: it takes two heads; set promote.{key} above 1"):
        compose([*EVERYTHING, f"promote.ensemble={key}", f"promote.{key}=1"])


def test_a_promotion_on_record_from_before_a_temperature_had_none():
    container = to_dict(compose(EVERYTHING))
    assert container["promote"]["temperature"] is True
    for key in ("temperature", "ensemble", "abstain", "refit"):
        del container["promote"][key]
    older = from_dict(container).promote
    assert older is not None and (older.temperature, older.ensemble, older.abstain) == (False, "none", None)
    assert older.refit == "train"


def test_a_network_that_keeps_its_best_epoch_is_not_fitted_without_a_validation_split():
    with pytest.raises(UserError, match=r"promote.refit=train\+val: training=finetune keeps its best epoch on the"):
        compose([*EVERYTHING, "promote.refit=train+val", "training=finetune", "training.unfreeze=all"])
    drawn = ["promote.refit=train+val", "data.balance=undersample", "data.per_class=5"]
    with pytest.raises(UserError, match=r"promote.refit=train\+val: data.per_class=5 is of training images"):
        compose([*EVERYTHING, *drawn])
    compose([*EVERYTHING, *drawn, "data.split=stratified"])  # of which it is drawn before the split


def test_a_value_of_a_space_is_checked_as_one_that_is_typed():
    with pytest.raises(UserError, match=r"head.dense_widths=\[64, -3\]: each must be greater than 0"):
        check(with_values(BASE, {"head.dense_widths": [64, -3]}))
    check(with_values(BASE, {"head.dense_widths": [64, 3], "head.dropout": 0.0, "training.patience": 0}))


def test_an_empty_text_in_a_yaml_is_refused(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("paths: {cache: ''}\n")
    with pytest.raises(UserError, match=r"paths.cache=: must not be empty"):
        compose([f"experiment={path}"])
