"""The ids of sweeps, which are on disk and in stores: another version of this program finds them again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fer_experiments.config.compose import compose
from fer_experiments.search.identity import exact_for_all, identity_of
from fer_experiments.search.recorded import find_state

THEN = ("features.engine=tensorflow", "features.precision=float32")  # what `auto` comes to for a sweep of those days
TAGS = {"fer.dataset": "d", "fer.backbone": "b", "fer.features": "f"}


@pytest.mark.parametrize(
    ("overrides", "sweep"),
    [
        (["sweep=quick", "data=demo"], "quick-754bd4d1"),
        (["sweep=paper", "sweep.oracle=bayesian", "sweep.pruner=none"], "paper-409bbad9"),
        (["sweep=facenet", "sweep.oracle=hyperband"], "facenet-52cf7c87"),
        (["sweep=quick", "head=linear"], "quick-d370c44c"),
        (["sweep=quick", "head=conv", "training.smoke=true"], "quick-bcf40c78"),
        (["sweep=quick", "data=fer2013", "data.emotions={1:sad}"], "quick-0c5f0752"),
        (["sweep=quick", "data.clean=[constant,conflicting,duplicates]"], "quick-754bd4d1"),
        (["sweep=quick", "gate=strict", "promote=default"], "quick-9e839a36"),
        (["sweep=quick", "gate=strict", "promote=default", "promote.corruptions=7"], "quick-9e839a36"),
        (["sweep=quick", "gate=strict", "promote=default", "+gate.worse.emotion_sad=0.1"], "quick-9e839a36"),
    ],
)
def test_a_sweep_has_the_id_that_it_had(overrides: list[str], sweep: str, tmp_path: Path):
    config = compose([*overrides, *THEN])
    if config.training.precision == "auto":
        config = replace(config, training=replace(config.training, precision="float32"))
    identity = identity_of(config, TAGS)
    assert find_state(tmp_path, sweep.split("-")[0], identity, fresh=False)[0].id == sweep


@pytest.mark.parametrize(
    "elsewhere",
    [
        ["data.path=/x", "paths.cache=/c", "paths.mlruns=/m", "tracking=server", "tracking.system_metrics=false"],
        ["compute=processes", "compute.workers=2", "features.batch_size=3", "features.shard_size=9"],
        ["sweep.max_trials=3", "sweep.max_hours=1", "sweep.target=0.5", "sweep.fresh=true", "sweep.retry_failed=true"],
        ["sweep.patience=3", "sweep.prefer=simple", "sweep.repeats=1"],
    ],
)
def test_place_speed_and_budget_make_no_other_sweep(elsewhere: list[str]):
    this = ["sweep=quick", "data=fer2013"]
    same = identity_of(compose(this), TAGS)
    assert identity_of(compose([*this, *elsewhere]), TAGS) == same
    assert identity_of(compose([*this, "sweep.max_trial_minutes=3"]), TAGS) != same
    assert identity_of(compose([*this, "sweep.repeats=2"]), TAGS) != same


def test_a_sweep_over_backbones_has_exact_features_unless_it_says_otherwise():
    heads = compose(["sweep=quick"])
    assert exact_for_all(heads) == heads and heads.features.precision == "auto"
    for path in ("backbone", "backbone.layers"):
        space = {path: {"type": "choice", "values": ["pocket", "facenet"]}}
        searched = replace(heads, sweep=replace(heads.sweep, space=space))
        assert exact_for_all(searched).features.precision == "float32"
        rough = replace(searched, features=replace(searched.features, precision="bfloat16"))
        assert exact_for_all(rough) == rough


def test_a_sweep_over_heads_fits_them_exactly_unless_it_says_otherwise():
    paper = compose(["sweep=quick", "head=paper", "backbone.pooling=none"])
    assert exact_for_all(paper) == paper and paper.training.precision == "auto"
    space = {"head": {"type": "choice", "values": ["paper", "conv"]}}
    searched = replace(paper, sweep=replace(paper.sweep, space=space))
    assert exact_for_all(searched).training.precision == "float32"
    rough = replace(searched, training=replace(searched.training, precision="mixed_bfloat16"))
    assert exact_for_all(rough) == rough
