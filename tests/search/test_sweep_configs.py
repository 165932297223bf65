"""Trials of a sweep are each prepared from their own config."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_sweeps import SMALL, folder_of, run, runs_of, with_space

from fer_experiments.backbones.weights import POCKET_WEIGHTS
from fer_experiments.config import Config
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.features import engine
from fer_experiments.search.state import State
from fer_experiments.training import precision

MIXED = """\
defaults:
  - override /data: demo
  - override /backbone: pocket
  - override /head: linear
sweep:
  oracle: grid
  max_trials: null
  space:
    backbone.layers: {type: choice, values: [[stage2], [stage3]]}
    backbone.pooling: {type: choice, values: [none, avg]}
    head: {type: choice, values: [conv, linear]}
    head.filters: {type: choice, values: [[8], [4, 4]], when: {head: conv}}
"""


@pytest.fixture(scope="module")
def mixed(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, State, list[str]]:
    """A grid over cut layers, pooling and heads: two of four feature sets suit no convolutional head."""
    file = tmp_path_factory.mktemp("mixed") / "mixed.yaml"
    file.write_text(MIXED)
    config = compose([f"sweep={file}", *SMALL, *paths, "training.deterministic=true"])
    return (config, *run(config))


def test_each_trial_is_fitted_on_the_features_that_it_records(mixed: tuple[Config, State, list[str]]):
    config, state, said = mixed
    made: dict[tuple[str, str], set[str]] = {}
    for trial in runs_of(config, sweep_id=state.id, kind="trial"):
        if trial.status == "FINISHED":
            combination = (trial.params["backbone.layers"], trial.params["backbone.pooling"])
            made.setdefault(combination, set()).add(trial.tags["fer.features"])
    assert len(made) == 4 and all(len(fingerprints) == 1 for fingerprints in made.values())
    assert len(set.union(*made.values())) == 4
    extracted = [line for line in said if "images through pocket" in line or "no image forwarded" in line]
    assert len(extracted) == 4  # each set once, though several trials stand on it
    finished = [t for t in state.trials if t.status == "finished"]
    scores = {(str(t.values["backbone.layers"]), t.values["backbone.pooling"]): t.metrics for t in finished
              if t.values["head"] == "linear"}  # fmt: skip
    losses = {combination: metrics["final/val_loss"] for combination, metrics in scores.items()}
    assert len(set(losses.values())) > 2  # other features, other results; a mean over a map is the pooled layer's


def test_what_cannot_be_built_fails_as_a_trial_and_stops_no_sweep(mixed: tuple[Config, State, list[str]]):
    config, state, said = mixed
    failed = [t for t in state.trials if t.status == "failed"]
    assert len(failed) == 4 and state.status == "finished"  # more than three in a row would do of another kind
    assert {(t.values["head"], t.values["backbone.pooling"]) for t in failed} == {("conv", "avg")}
    by_id = {r.run_id: r for r in runs_of(config, sweep_id=state.id, kind="trial")}
    assert all(by_id[t.run_id].status == "FAILED" for t in failed)
    assert all("head=conv needs a spatial map" in by_id[t.run_id].tags["fer.error"] for t in failed)
    assert any("FAILED: head=conv needs a spatial map" in line for line in said)


def test_a_key_whose_condition_does_not_hold_is_absent_from_the_record(mixed: tuple[Config, State, list[str]]):
    config, state, said = mixed
    linear = [t for t in state.trials if t.values["head"] == "linear"]
    assert all("head.filters" not in t.values for t in linear)
    assert sorted(t.status for t in linear) == ["finished"] * 4 + ["repeated"] * 4  # two filters, the same trial
    table = pd.read_csv(folder_of(config, state) / "leaderboard.csv")
    assert table.loc[table["head"] == "linear", "head.filters"].isna().all()
    assert "| absent" in said[-1]


def test_the_best_config_alone_gives_its_score_to_the_last_bit(
    mixed: tuple[Config, State, list[str]], paths: list[str]
):
    from fer_experiments.experiment.train import train

    config, state, _ = mixed
    best = state.best()
    assert best is not None
    final = train(compose([f"experiment={folder_of(config, state) / 'best.yaml'}", *paths]), echo=lambda line: None)
    assert {name: final[name] for name in best.metrics} == best.metrics


def test_the_parent_run_shows_what_the_best_trial_had(mixed: tuple[Config, State, list[str]]):
    config, state, _ = mixed
    best = state.best()
    assert best is not None
    (parent,) = runs_of(config, sweep_id=state.id, kind="sweep")
    assert parent.metrics["final/val_accuracy"] == pytest.approx(best.score)
    assert parent.tags["fer.best_trial"] == str(best.number)
    assert parent.tags["fer.best.head"] == best.values["head"]
    assert parent.tags["fer.best.backbone.pooling"] == best.values["backbone.pooling"]
    filters = best.values.get("head.filters")
    assert parent.tags["fer.best.head.filters"] == (json.dumps(filters) if filters else "absent")
    searched = ("backbone.layers", "backbone.pooling", "head.", "training.seed", "sweep.max_trials")
    assert not [name for name in parent.params if name.startswith(searched)]  # of no trial, and of this one least
    assert {"backbone.name", "training.batch_size", "sweep.space"} <= set(parent.params)


def test_trials_of_worker_processes_are_prepared_from_their_own_config(
    mixed: tuple[Config, State, list[str]], tmp_path: Path
):
    config, state, _ = mixed
    elsewhere = replace(
        config,
        paths=replace(config.paths, mlruns=str(tmp_path / "mlruns"), cache=str(tmp_path / "cache")),
        compute=replace(config.compute, name="processes", workers=2),
    )
    other, _ = run(elsewhere)
    assert [(t.values, t.status, t.score) for t in other.trials] == [
        (t.values, t.status, t.score) for t in state.trials
    ]
    tags = [
        {r.tags["fer.trial_number"]: r.tags.get("fer.features") for r in runs_of(c, kind="trial", sweep_id=state.id)}
        for c in (config, elsewhere)
    ]
    assert tags[0] == tags[1]


def test_weights_that_changed_since_the_first_trials_are_refused(paths: list[str], tmp_path: Path):
    weights = tmp_path / "own.npz"
    shutil.copy(POCKET_WEIGHTS, weights)
    entry = f"backbone.weights: {{type: choice, values: ['{weights}', embedded]}}"
    entry += "\n    head.l2: {type: choice, values: [1.0e-3, 1.0e-2]}"
    folder = [f"paths.mlruns={tmp_path}/mlruns", paths[1]]
    first, _ = run(with_space(tmp_path, folder, entry, "sweep.max_trials=1"))
    assert first.trials[0].values == {"backbone.weights": str(weights), "head.l2": 1e-3}
    content = dict(np.load(weights))
    name = next(key for key in content if content[key].ndim == 4)
    np.savez(weights, **(content | {name: content[name] * np.float16(1.5)}))
    with pytest.raises(UserError, match=r"its backbone and features changed since its first trials; bring back"):
        run(with_space(tmp_path, folder, entry, "sweep.max_trials=2"))


def test_a_sweep_goes_on_with_the_engine_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = [f"paths.mlruns={tmp_path}/mlruns", f"paths.cache={tmp_path}/cache"]
    entry = "head.l2: {type: choice, values: [1.0e-3, 1.0e-2, 1.0e-1]}"
    said = ["features.engine=tensorflow", "features.precision=float32"]
    begun, _ = run(with_space(tmp_path, paths, entry, "sweep.max_trials=1", *said))
    shutil.rmtree(tmp_path / "cache")  # as on another machine, which is fast with something else
    config = with_space(tmp_path, paths, entry, "sweep.max_trials=2")
    monkeypatch.setattr(engine, "hardware", lambda: {"cpu_features": ["avx512_bf16"], "gpus": []})
    more, lines = run(config)
    assert more.id == begun.id and len(more.ended) == 2
    assert any("(tensorflow, float32)" in line for line in lines)
    fresh = with_space(tmp_path, paths, entry, "sweep.max_trials=1", "sweep.fresh=true")
    made_with = [_engine_of_trials(fresh, run(fresh)[0])]  # what the cache has
    shutil.rmtree(tmp_path / "cache")
    made_with += [_engine_of_trials(fresh, run(fresh)[0]), _engine_of_trials(config, more)]
    assert made_with == [{("tensorflow", "float32")}, {("openvino", "bfloat16")}, {("tensorflow", "float32")}]


def _engine_of_trials(config: Config, state: State) -> set[tuple[str, str]]:
    runs = runs_of(config, sweep_id=state.id, kind="trial")
    return {(run.params["features.engine"], run.params["features.precision"]) for run in runs}


def test_a_sweep_goes_on_with_the_precision_that_it_began_with(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    entry = "head.l2: {type: choice, values: [1.0e-3, 1.0e-2, 1.0e-1]}"
    paper = [f"paths.mlruns={tmp_path}/mlruns", paths[1], "head=paper", "head.filters=[4]"]
    monkeypatch.setattr(precision, "computes_products_in_bfloat16", lambda: False)
    begun, _ = run(with_space(tmp_path, paper, entry, "sweep.max_trials=1"))
    monkeypatch.setattr(precision, "computes_products_in_bfloat16", lambda: True)
    for options, expected in (["sweep.max_trials=2"], "float32"), (["sweep.fresh=true"], "mixed_bfloat16"):
        config = with_space(tmp_path, paper, entry, *options)
        state, _ = run(config)
        assert (state.id == begun.id) == (expected == "float32")
        runs = runs_of(config, sweep_id=state.id, kind="trial")
        assert {one.params["training.precision"] for one in runs} == {expected}


def test_balance_touches_training_images_alone_also_of_limited_data(paths: list[str], tmp_path: Path):
    config = with_space(
        tmp_path,
        paths,
        "data.balance: {type: choice, values: [none, undersample, class_weight]}",
        "data.limit=20",
    )
    state, _ = run(config)
    assert [t.status for t in state.trials] == ["finished"] * 3
    runs = {r.tags["fer.trial_number"]: r for r in runs_of(config, sweep_id=state.id, kind="trial")}
    assert [runs[str(n)].params["data.balance"] for n in range(3)] == ["none", "undersample", "class_weight"]
    assert runs["0"].tags["fer.dataset"] != runs["1"].tags["fer.dataset"]
    assert runs["0"].tags["fer.features"] == runs["2"].tags["fer.features"]
