"""`training=finetune` as a command runs it: recorded, promoted, and refused where it cannot be."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from in_memory import make_dataset
from stores import store_in

from fer_experiments import tracking
from fer_experiments.config import Config, HeadConfig, TrainingConfig, check, flatten, from_dict, to_dict, with_values
from fer_experiments.config.commands import train_command
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.experiment.finetune import fit_digest, unfrozen
from fer_experiments.experiment.train import train
from fer_experiments.registry.promote import promote
from fer_experiments.search.checks import check_space
from fer_experiments.search.identity import identity_of
from fer_experiments.serving.loading import load_model
from fer_experiments.tracking import find_runs, load_head

ABOVE = ["training.from_features=true", "training.unfreeze=all", "backbone.layers=[low]"]
TUNED = ["training=finetune", "training.unfreeze=2", "training.finetune.epochs=2", "training.finetune.batch_size=32"]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("tuned")
    keras.utils.set_random_seed(0)
    face = keras.Input((16, 16, 1))
    x = keras.layers.Conv2D(4, 3, strides=4, name="low")(face)
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(8, 3, name="high")(x))
    keras.Model(face, x).save(folder / "trunk.keras")
    return [
        *("data=demo", "data.demo_size=600", "backbone=keras_file", f"backbone.weights={folder}/trunk.keras"),
        *("backbone.input_size=16", "backbone.channels=1", "backbone.scaling={mean:127.5,scale:127.5}"),
        *("backbone.layers=[]", "features.engine=tensorflow", "features.precision=float32", "head=linear"),
        *("training.epochs=2", "tracking.system_metrics=false", "gate=none", "promote=default", "promote.seeds=1"),
        *(f"paths.mlruns={folder}/mlruns", f"paths.cache={folder}/cache"),
    ]


def tuned(options: list[str], *more: str) -> Config:
    return compose([*TUNED, *options, *more])


def test_a_fine_tuned_network_is_recorded_and_promoted(options: list[str]):
    config, lines = tuned(options), list[str]()
    final = train(config, echo=lines.append)
    assert any("fine-tuning 296 parameters of keras_file and 9 of the head" in line for line in lines)
    assert sum(line.startswith("epoch ") for line in lines) == 2
    store = store_in(Path(config.paths.mlruns))
    (run,) = find_runs(store, {"fer.kind": "train"}, "FINISHED")
    assert run.params["training.unfreeze"] == "2" and run.params["training.finetune.mixup"] == "0.0"
    assert {name: run.metrics[name] for name in final} == pytest.approx(final)
    assert (run.metrics["parameters/backbone"], run.metrics["parameters/head"]) == (296, 9)
    assert run.metrics["model/trainable_parameters"] == 296 + 9
    history = tracking.artifact_text(store, run.run_id, "metrics/history.csv")
    assert history is not None and len(history.splitlines()) == 1 + 2 + 2
    assert tracking.artifact_text(store, run.run_id, "metrics/confusion_matrix.json")

    lines.clear()
    version = promote(config, run_id=run.run_id, echo=lines.append)
    assert version is not None and version.number == 1
    assert not any(line.startswith("epoch ") for line in lines), "the refit is found in the cache"
    _, classifier = load_model(config, "champion")
    assert list(classifier.classes) == ["negative", "positive"]
    promoted = tracking.find_run(store, version.run_id)
    assert promoted is not None and promoted.metrics["model/trainable_parameters"] == 296 + 9
    card = tracking.artifact_text(store, version.run_id, "model_card.md")
    assert card is not None and "Backbone keras_file (fine-tuned with its head, training.unfreeze=2)" in card

    before = len(find_runs(store))
    with pytest.raises(UserError, match=r"promote\.ensemble=seeds: fine-tuned networks have no backbone in common"):
        promote(tuned(options, "promote.seeds=2", "promote.ensemble=seeds"), run_id=run.run_id, echo=lines.append)
    assert len(find_runs(store)) == before, "no refit is made first"


def test_one_that_goes_on_has_the_head_that_it_began_with_and_says_where_that_was_better(options: list[str]):
    config, lines = tuned(options, "training.seed=9"), list[str]()
    train(config, echo=lines.append)
    assert any("best epoch 2 of 2 to 3, " in line or "best epoch 3 of 2 to 3, " in line for line in lines)
    path = max(Path(config.paths.cache).glob("finetune/*/head.json"), key=lambda each: each.stat().st_mtime_ns)
    told = json.loads(path.read_text())
    for row in told["history"]:  # as where threads have summed in another order
        row["val/accuracy"] = 0.999
    path.write_text(json.dumps(told))

    lines.clear()
    train(config, echo=lines.append)
    assert any(line.startswith("the head alone: validation accuracy 0.9990") for line in lines)
    assert any(
        line.startswith("the head alone was better: validation accuracy 0.9990, fine-tuned 0.") for line in lines
    )
    store = store_in(Path(config.paths.mlruns))
    run = find_runs(store, {"fer.kind": "train"}, "FINISHED")[-1]
    history = tracking.artifact_text(store, run.run_id, "metrics/history.csv")
    assert history is not None and history.count("0.999,") == 2 and run.metrics["head/val_accuracy"] == 0.999


def test_what_is_fine_tuned_on_stored_features_is_recorded_and_promoted_as_a_head(options: list[str]):
    promoting = ["promote.seeds=2", "promote.ensemble=seeds", "promote.dry_run=true", "promote.corruptions=0"]
    config, lines = tuned(options, *ABOVE, *promoting), list[str]()
    train(config, echo=lines.append)
    assert any("fine-tuning 296 parameters of keras_file and 9 of the head" in line for line in lines)
    store = store_in(Path(config.paths.mlruns))
    (run,) = (run for run in find_runs(store, {"fer.kind": "train"}) if run.params["training.from_features"] == "true")
    assert run.metrics["model/trainable_parameters"] == 296 + 9
    assert (run.metrics["parameters/backbone"], run.metrics["parameters/head"]) == (296, 9)
    assert load_head(store, run.run_id).input_shape == (None, 4, 4, 4)

    lines.clear()
    promote(config, run_id=run.run_id, echo=lines.append)
    assert any("assembled: agrees with the stored features on 378 images" in line for line in lines)
    assert any(line.lstrip().startswith("2 heads") for line in lines)
    cards = [
        tracking.artifact_text(store, r.run_id, "model_card.md") for r in find_runs(store, {"fer.kind": "promotion"})
    ]
    assert any("training.unfreeze=all, on stored features of low)" in str(card) for card in cards)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["training=default", "training.from_features=true"], "training.from_features=true: is a key of training=fin"),
        (["training.from_features=true", "backbone.layers=[]"], "training.from_features=true: backbone.layers=[]"),
        (["training.from_features=true", "backbone.layers=[stage2,stage3]"], "training.from_features=true: backbone.l"),
        (["training.from_features=true", "backbone.pooling=avg", "head=pooled"], "training.from_features=true: backb"),
        (["training=default", "training.unfreeze=all"], "training.unfreeze=all: is a key of training=finetune"),
        (["training.unfreeze=null"], "training.unfreeze=null: say all, a number of layers, or a layer"),
        (["data.split=kfold", "data.fold=all"], "training=finetune: is of one network; say data.fold=<number>"),
        (["training.unfreeze=0"], "training.unfreeze=0: say all, a number of layers of at least 1"),
        (["training.unfreeze=00"], "training.unfreeze=00: say all, a number of layers of at least 1"),
        (["training.unfreeze=9999999999"], "training.unfreeze=9999999999: say all, a number of layers of at least 1"),
        (["training.finetune.epochs=0"], "training.finetune.epochs=0: must be greater than 0"),
        (["training.finetune.layer_decay=1.5"], "training.finetune.layer_decay=1.5: must be at most 1"),
        (["training.finetune.fill=wrap"], "training.finetune.fill=wrap: choose one of nearest, reflect"),
        (["training.finetune.rate=1"], "training.finetune.rate: no such config path"),
        (
            ["training=default", "training.finetune.mixup=1", "training.epochs=2"],
            "training.finetune.mixup: say training=finetune too",
        ),
    ],
)
def test_half_of_a_fine_tuning_is_refused(more: list[str], message: str):
    given = [word for word in TUNED[:2] if word.partition("=")[0] not in {m.partition("=")[0] for m in more}]
    if "training=default" in more:
        given = []
    with pytest.raises(UserError) as caught:
        compose([*given, "data=demo", "backbone=pocket", *more])
    assert str(caught.value).startswith(message)


def test_a_layer_that_is_not_there_is_said_before_anything_is_fitted(options: list[str]):
    with pytest.raises(UserError, match=r"training\.unfreeze=middle: keras_file has no such layer"):
        train(tuned(options, "training.unfreeze=middle"), echo=lambda line: None)
    with pytest.raises(UserError, match=r"training\.unfreeze=low: keras_file_above_low has no such layer"):
        train(tuned(options, *ABOVE, "training.unfreeze=low"), echo=lambda line: None)


def test_a_head_that_needs_a_map_is_refused_where_the_network_ends_in_none():
    words = "training=finetune training.from_features=true training.precision=float32 backbone=pocket head=conv"
    flat = compose([*words.split(), "backbone.layers=[stage2]"])
    with pytest.raises(UserError, match=r"head=conv needs a map, and pocket ends in none: take head=pooled"):
        unfrozen(make_dataset(np.arange(2), ("one", "other")), flat)


def test_what_is_older_than_fine_tuning_is_what_it_was(monkeypatch: pytest.MonkeyPatch):
    config = compose(["sweep=quick"])
    old = to_dict(config)
    assert (old["training"].pop("unfreeze"), old["training"].pop("finetune")) == (None, None)
    assert old["training"].pop("from_features") is False
    assert from_dict(old) == config
    assert not any(word in path for path in identity_of(config, {}) for word in ("unfreeze", "finetune", "from_feat"))
    # As before there was fine-tuning: refits that are on record are found.
    plain = Config(head=HeadConfig(name="linear"), training=TrainingConfig(precision="float32"))  # as these have it
    assert fit_digest(plain, {"fer.dataset": "d"}) == "d0d12c5d6cecad56"
    with monkeypatch.context() as other:
        other.setenv("KERAS_BACKEND", "jax")
        assert fit_digest(plain, {"fer.dataset": "d"}) != "d0d12c5d6cecad56"
    weighted = replace(plain, data=replace(plain.data, balance="class_weight"))  # which no fingerprint covers
    assert fit_digest(weighted, {"fer.dataset": "d"}) != "d0d12c5d6cecad56"


def test_a_fine_tuning_survives_the_way_to_plain_containers_and_is_searched_by_its_keys():
    config = compose(["sweep=quick", *TUNED, "training.from_features=true"])
    assert from_dict(to_dict(config)) == config
    assert compose(shlex.split(train_command(to_dict(config)))[2:]).training == config.training
    changed = with_values(config, {"training.finetune.learning_rate": 1e-5, "training.unfreeze": "all"})
    check(changed)
    before, after = flatten(to_dict(config)), flatten(to_dict(changed))
    assert {k for k in before if before[k] != after[k]} == {"training.finetune.learning_rate", "training.unfreeze"}


@pytest.mark.parametrize(
    "more",
    [["sweep.oracle=hyperband"], ["sweep.pruner=median"], ["sweep.max_trial_minutes=5"], ["sweep.repeats=2"], []],
)
def test_a_sweep_that_ends_trials_early_takes_no_fine_tuning(more: list[str]):
    config = compose(["sweep=quick", *TUNED, *more])
    if not more:
        check_space(config)
        return
    with pytest.raises(UserError, match=r"training=finetune: its trials are one fit each and not ended"):
        check_space(config)


@pytest.mark.parametrize("key", ["rotation", "gamma", "flip", "fill"])
def test_what_changes_no_trial_on_stored_features_is_not_searched(key: str, tmp_path: Path):
    entry = {"flip": "{type: bool}", "fill": "{type: choice, values: [nearest, reflect]}"}
    entry |= {"either": "{type: float, min: 0.1, max: 0.2}"}
    both = "training.from_features: {type: bool}\n    " if key == "gamma" else ""
    (tmp_path / "s.yaml").write_text(
        f"sweep:\n  space:\n    {both}training.finetune.{key}: {entry.get(key, entry['either'])}\n"
    )
    own = [f"sweep={tmp_path}/s.yaml", "data=demo", "backbone=pocket", "backbone.layers=[stage2]", *TUNED]
    check_space(compose(own))
    config = compose([*own, "training.from_features=true"])
    if both:
        check_space(config)  # of half the trials it changes something
        return
    said = rf"^sweep\.space: training\.finetune\.{key}: training\.from_features=true augments by features\.views alone"
    with pytest.raises(UserError, match=said):
        check_space(config)
    value = {"flip": "false", "fill": "reflect"}.get(key, "0.1")
    with pytest.raises(UserError, match=said.replace(r"sweep\.space: ", "")):
        compose([*own, "training.from_features=true", f"training.finetune.{key}={value}"])
    compose([*own, f"training.finetune.{key}={value}"])
