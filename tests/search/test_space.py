"""A space that cannot be searched is refused before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from fer_experiments.config import Config
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.search.checks import check_space
from fer_experiments.search.space import ORACLES, apply, decode, searched_backbones

BASE = compose(["sweep=quick"])


def with_sweep(**changes: Any) -> Config:
    assert BASE.sweep is not None
    return replace(BASE, sweep=replace(BASE.sweep, **changes))


@pytest.mark.parametrize(
    ("path", "entry", "message"),
    [
        ("head.l3", {"type": "float", "min": 0, "max": 1}, "head.l3: no such config path; did you mean head.l2"),
        ("head.l2", {"type": "float", "min": 1.0, "max": 1.0}, "min 1.0 must be less than max 1.0"),
        ("head.l2", {"type": "float", "min": 2.0, "max": 1.0}, "min 2.0 must be less than max 1.0"),
        ("head.l2", {"type": "float", "min": 0.0, "max": 1.0, "sampling": "log"}, "needs min greater than 0"),
        ("head.l2", {"type": "float", "max": 1.0}, "a float needs min"),
        ("head.l2", {"type": "float", "min": 0.0, "max": 1.0, "values": [1]}, "values: no key of a float"),
        ("head.l2", {"type": "number"}, "type: number: choose one of float, int, choice, bool"),
        ("head.l2", 3, "choose one of float"),
        ("head.l2", {"type": ["float"], "min": 0, "max": 1}, "type: ['float']: choose one of float"),
        ("head.l2", {"type": "float", "min": 0.0, "max": 1.0, 3: 4, None: 1}, "3, None: no key of a float"),
        ("training.batch_size", {"type": "float", "min": 1.0, "max": 64.0}, "training.batch_size"),
        ("training.batch_size", {"type": "float", "min": 1.0, "max": 64.0, "step": 0.5}, "training.batch_size"),
        ("head.l2", {"type": "float", "min": "a", "max": 1.0}, "min: a is not a number"),
        ("training.epochs", {"type": "int", "min": 0.5, "max": 2}, "min: 0.5 is not a whole number"),
        ("head.l2", {"type": "float", "min": 0.0, "max": 1.0, "step": 0}, "step 0 must be greater than 0"),
        ("head.l2", {"type": "float", "min": 0.1, "max": 1.0, "sampling": "cubic"}, "sampling: cubic: choose one of"),
        ("head.l2", {"type": "float", "min": 0.0, "max": 1.0, "step": math.nan}, "head.l2: step: nan is no number"),
        ("head.l2", {"type": "float", "min": 0.0, "max": math.inf}, "head.l2: max: inf is no number"),
        ("head.l2", {"type": "float", "min": -math.inf, "max": 1.0}, "head.l2: min: -inf is no number"),
        ("training.epochs", {"type": "int", "min": 1, "max": 10**400}, "training.epochs: max: 1000"),
        (
            "head.l2",
            {"type": "float", "min": 0.0, "max": 1.0, "step": 1e-12},
            "head.l2: step 1e-12 makes 1e+12 values; say a larger one, or none",
        ),
        (
            "head.l2",
            {"type": "float", "min": 1e-6, "max": 1.0, "sampling": "log", "step": 1.000000001},
            "head.l2: step 1.000000001 makes 1e+10 values",
        ),
        ("head.dense_widths", {"type": "choice", "values": []}, "at least one value"),
        ("features.precision", {"type": "choice", "values": ["auto"]}, "auto is decided once for all trials; name"),
        ("head.dense_widths", {"type": "choice", "values": [["a"]]}, "head.dense_widths"),
        (
            "head.dense_widths",
            {"type": "choice", "values": [[64], [], [64]]},
            "values: [64] given twice; say each once",
        ),
    ],
)
def test_a_bad_entry_names_its_key_and_the_remedy(path: str, entry: Any, message: str):
    with pytest.raises(UserError) as caught:
        check_space(with_sweep(space={path: entry}))
    assert message in str(caught.value)


def choice(*values: Any, **more: Any) -> dict[str, Any]:
    return {"type": "choice", "values": list(values), **more}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("data.seed", "data.seed: it moves the validation images"),
        ("data.limit", "of data only data.balance and data.per_class can be searched"),
        ("data.clean", "it moves the validation images"),
        ("data.demo_size", "it moves the validation images"),
        ("data", "it moves the validation images"),
        ("paths.cache", "says where or how long trials run, not what they are; leave it out"),
        ("tracking.system_metrics", "says where or how long"),
        ("compute.workers", "says where or how long"),
        ("sweep.seed", "says where or how long"),
        ("promote.top_k", "says where or how long"),
        ("gate.alpha", "says where or how long"),
        ("pretrain.epochs", "says where or how long"),
        ("training", "as a whole only backbone and head can be searched"),
        ("backbone.name", "search the group backbone"),
        ("backbone.seen", "declares what the weights have seen"),
        ("features.batch_size", "changes how fast features are made"),
        ("features.shard_size", "changes how features are stored"),
        ("training.deterministic", "holds for a whole process"),
        ("training.smoke", "is for trying a command"),
        ("training.learningrate", "no such config path; did you mean training.learning_rate"),
        ("hed", "no such config path; did you mean head"),
        ("nonsense.key", "no such config path"),
    ],
)
def test_what_is_no_setting_of_a_single_trial_is_refused_with_the_reason(path: str, message: str):
    with pytest.raises(UserError) as caught:
        check_space(with_sweep(space={path: choice(1, 2)}))
    assert message in str(caught.value) and str(caught.value).startswith(f"sweep.space: {path}: ")


def test_a_random_split_draws_its_validation_images_after_balancing_so_that_balance_cannot_be_searched():
    config = compose(["sweep=quick", "data.split=stratified"])
    assert config.sweep is not None
    space = {"data.balance": choice("none", "undersample")}
    check_space(with_sweep(space=space))
    with pytest.raises(UserError, match=r"data.balance: with data.split=stratified it moves the validation images"):
        check_space(replace(config, sweep=replace(config.sweep, space=space)))


def test_an_unknown_oracle_is_refused_with_those_that_there_are():
    with pytest.raises(UserError, match=f"sweep.oracle=divine: choose one of {', '.join(ORACLES)}"):
        check_space(with_sweep(oracle="divine"))


def test_hyperband_grants_epochs_itself():
    entry = {"training.epochs": {"type": "int", "min": 2, "max": 9}}
    check_space(with_sweep(space=entry))
    with pytest.raises(UserError, match="hyperband grants the epochs itself"):
        check_space(with_sweep(space=entry, oracle="hyperband"))
    with pytest.raises(UserError, match=r"sweep.pruner=median: hyperband ends hopeless trials itself"):
        check_space(with_sweep(pruner="median", oracle="hyperband"))


def test_a_value_that_no_combination_can_have_is_refused_and_one_that_some_can_is_not():
    """A spatial head on pooled features: refused where the head is given, a failed trial where it is searched too."""
    pooling = choice("none", "avg")
    with pytest.raises(UserError, match="head=conv needs a spatial map"):
        check_space(
            replace(compose(["sweep=quick", "head=conv"]), sweep=with_sweep(space={"backbone.pooling": pooling}).sweep)
        )
    check_space(with_sweep(space={"backbone.pooling": pooling, "head": choice("conv", "pooled")}))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"backbone": choice("pocket", "facnet")}, "backbone=facnet: no such config; choose one of"),
        ({"head.l2": choice(0.1, 0.2, when={"head": "conv"})}, "head.l2: when: head: no choice that comes before it"),
        (
            {"head.l2": choice(0.1, 0.2, when={"head": "conv"}), "head": choice("conv", "pooled")},
            "head.l2: when: head: no choice that comes before it",
        ),
        (
            {"head": choice("conv", "pooled"), "head.l2": choice(0.1, 0.2, when={"head": "linear"})},
            "head.l2: when: head: linear: not among its values ['conv', 'pooled']",
        ),
        ({"head": choice("conv", "pooled"), "head.l2": choice(0.1, 0.2, when="conv")}, "head.l2: when: conv: say {"),
        (
            {"head": choice("conv", "pooled"), "head.l2": choice(0.1, 0.2, when={"head": []})},
            "head.l2: when: head: []: name one of its values",
        ),
    ],
)
def test_a_bad_group_or_condition_is_refused(space: dict[str, Any], message: str):
    with pytest.raises(UserError) as caught:
        check_space(with_sweep(space=space))
    assert message in str(caught.value)


def test_a_group_as_a_whole_is_its_yaml_with_what_was_said_otherwise():
    config = compose(["sweep=quick", "backbone.pooling=avg", "head.dropout=0.1"])
    made = apply(config, {"backbone": "mobilenet_v2", "head": "conv", "head.l2": 0.5})
    plain = compose(["backbone=mobilenet_v2", "head=conv", "backbone.pooling=none"])
    assert made.backbone == replace(plain.backbone, pooling="avg")
    assert made.head == replace(plain.head, dropout=0.1, l2=0.5)
    assert made.data == config.data


def test_what_is_not_active_is_no_value_of_a_trial():
    space = {
        "head": choice("conv", "pooled", "linear"),
        "head.filters": choice([32], [64], when={"head": "conv"}),
        "head.dense_widths": choice([8], [], when={"head": ["pooled", "conv"]}),
        "head.dropout": choice(0.1, 0.2, when={"head.dense_widths": [[8]]}),
    }
    raw = {"head": "linear", "head.filters": "[64]", "head.dense_widths": "[8]", "head.dropout": 0.2}
    check_space(with_sweep(space=space))
    assert decode(space, raw) == {"head": "linear"}
    assert decode(space, raw | {"head": "pooled"}) == {"head": "pooled", "head.dense_widths": [8], "head.dropout": 0.2}
    assert list(decode(space, raw | {"head": "conv"})) == list(space)


def test_the_backbones_of_a_space_are_known_before_it_runs():
    files = choice("a.npz", "b.npz", when={"backbone": "pocket"})
    space = {
        "backbone": choice("pocket", "facenet"),
        "backbone.weights": files,
        "backbone.pooling": choice("none", "avg"),
    }
    found = [(backbone.name, backbone.weights) for backbone in searched_backbones(with_sweep(space=space))]
    assert found[:2] == [("pocket", "a.npz"), ("pocket", "b.npz")] and {name for name, _ in found} == {
        "pocket",
        "facenet",
    }
    assert len(found) == 3
    assert [b.name for b in searched_backbones(with_sweep(space={"head.l2": choice(0.1)}))] == ["pocket"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {}}, "sweep.space is empty"),
        ({"max_trials": None}, "the random oracle never ends by itself"),
        ({"max_trials": None, "oracle": "tpe"}, "the tpe oracle never ends by itself"),
        ({"objective": "val_accuracy"}, "choose one of final/val_accuracy"),
        ({"objective": "final/val_loss"}, "say min"),
        ({"direction": "min"}, "say max"),
    ],
)
def test_a_bad_sweep_is_refused(changes: dict[str, Any], message: str):
    with pytest.raises(UserError) as caught:
        check_space(with_sweep(**changes))
    assert message in str(caught.value)


def test_lists_travel_through_the_oracle_as_json():
    space = {"head.dense_widths": {"type": "choice", "values": [[], [64, 32]]}, "head.l2": {"type": "float"}}
    assert decode(space, {"head.dense_widths": "[64, 32]", "head.l2": 0.1, "tuner/epochs": 3}) == {
        "head.dense_widths": [64, 32],
        "head.l2": 0.1,
    }
