"""A real run of seven classes on drawn faces: repeated over seeds, promoted, and asked."""

from __future__ import annotations

import io
import json
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from fer_experiments import tracking
from fer_experiments.config import Config
from fer_experiments.config.compose import compose
from fer_experiments.data import open_test_split
from fer_experiments.data.faces import EMOTIONS
from fer_experiments.errors import FitError, UserError
from fer_experiments.evaluation.seeds import spread
from fer_experiments.experiment.finetune import REFIT
from fer_experiments.experiment.train import train
from fer_experiments.registry import noise
from fer_experiments.registry.promote import promote
from fer_experiments.report.entries import entries
from fer_experiments.serving.loading import load_model
from fer_experiments.tracking import FoundRun, Store, find_runs
from fer_experiments.tracking.store import client_of

SMALL = [
    "data=demo", "data.classes=null", "data.demo_size=1000", "backbone=pocket", "training.epochs=6",
    "tracking.system_metrics=false",
]  # fmt: skip


class Room(NamedTuple):
    """A run of seven classes, and three seeds of it. said: what that told its user."""

    config: Config
    store: Store
    run: FoundRun
    said: list[str]

    def parents(self) -> list[FoundRun]:
        return [run for run in find_runs(self.store) if run.tags.get("fer.seeds") == self.run.run_id]

    def children(self, parent: FoundRun) -> list[FoundRun]:
        return [run for run in find_runs(self.store) if run.tags.get("mlflow.parentRunId") == parent.run_id]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    folder = tmp_path_factory.mktemp("seeds")
    paths = [f"paths.mlruns={folder}/mlruns", f"paths.cache={folder}/cache"]
    made = compose([*SMALL, "head=pooled", *paths])
    train(made, echo=lambda line: None)
    store = tracking.connect(made)
    (run,) = find_runs(store)
    client_of(store).delete_tag(run.run_id, REFIT)  # as runs of earlier versions are: fitted again
    config = compose(["promote=default", "tracking.system_metrics=false", *paths])
    said: list[str] = []
    noise.repeat(config, run.run_id, "3", said.append)
    return Room(config, store, run, said)


def test_every_seed_is_a_run_and_their_spread_is_on_the_one_above(room: Room):
    (parent,) = room.parents()
    children = room.children(parent)
    assert [run.params["training.seed"] for run in children] == ["0", "1", "2"]
    assert (parent.status, parent.tags["fer.kind"], parent.metrics["seeds/count"]) == ("FINISHED", "train", 3)
    for name in ("accuracy", "f1", "loss"):
        found = spread([run.metrics[f"final/val_{name}"] for run in children])
        values = [parent.metrics[f"seeds/val_{name}_{end}"] for end in ("mean", "std", "low", "high")]
        high = found.high if name == "loss" else min(found.high, 1)
        assert values == pytest.approx([found.mean, found.std, max(found.low, 0), high])
    text = tracking.artifact_text(room.store, parent.run_id, "seeds.csv")
    assert text is not None and list(pd.read_csv(io.StringIO(text))["run_id"]) == [run.run_id for run in children]
    mean = spread([run.metrics["final/val_accuracy"] for run in children]).mean
    assert any(line.startswith("val_accuracy") and f"{mean:.4f}" in line for line in room.said[-3].splitlines())
    assert room.said[-2].startswith(f"the run itself: val_accuracy {room.run.metrics['final/val_accuracy']:.4f}")
    assert f"compare {room.run.run_id}" in room.said[-1]


def test_the_seed_that_the_run_had_comes_to_the_same(room: Room):
    first = room.children(room.parents()[0])[0]
    assert room.run.params["training.seed"] == "0"
    assert first.metrics["final/val_loss"] == pytest.approx(room.run.metrics["final/val_loss"], abs=2e-3)


def test_what_the_run_itself_came_to_is_not_fitted_again(room: Room):
    words = [f"paths.{name}={getattr(room.config.paths, name)}" for name in ("mlruns", "cache")]
    train(compose([*SMALL, "head=linear", *words]), echo=lambda line: None)
    (own,) = [run for run in find_runs(room.store, {"fer.kind": "train"}) if run.params.get("head.name") == "linear"]
    said: list[str] = []
    noise.repeat(room.config, own.run_id, "2", said.append)
    assert any("seed 0: final/val_accuracy" in line and f"on record as run {own.run_id[:8]}" in line for line in said)
    (parent,) = [run for run in find_runs(room.store) if run.tags.get("fer.seeds") == own.run_id]
    assert [run.params["training.seed"] for run in room.children(parent)] == ["1"]
    fits = pd.read_csv(io.StringIO(tracking.artifact_text(room.store, parent.run_id, "seeds.csv") or ""))
    assert fits["run_id"][0] == own.run_id and fits["final/val_loss"][0] == own.metrics["final/val_loss"]
    # As the run of a trial has it that was fitted several times (sweep.repeats).
    tracking.Run(room.store, own.run_id).log_json([{"seed": 0}, {"seed": 1}], "metrics/fits.json")
    noise.repeat(room.config, own.run_id, "2", said.append)
    accuracy = own.metrics["final/val_accuracy"]
    assert said[-2] == f"the run itself: val_accuracy {accuracy:.4f}, itself a mean of 2 fits"


def test_a_comparison_shows_the_spread_of_the_run_and_of_its_repetition(room: Room):
    (parent,) = room.parents()
    (own,), (same,) = (entries(room.config, [name]) for name in (room.run.run_id, parent.run_id))
    scores = [run.metrics["final/val_accuracy"] for run in room.children(parent)]
    assert own == same and own.classes == 7
    assert own.seeds is not None and own.seeds.count == 3 and own.seeds.mean == pytest.approx(spread(scores).mean)


def test_more_seeds_fit_what_is_not_on_record_and_one_that_fails_is_left_out(
    room: Room, monkeypatch: pytest.MonkeyPatch
):
    real = noise.refit

    def failing(candidate: Any, seed: int, *given: Any) -> Any:
        if seed == 1:
            raise FitError("the loss is not a number")
        return real(candidate, seed, *given)

    monkeypatch.setattr(noise, "refit", failing)
    said: list[str] = []
    noise.repeat(room.config, room.run.run_id, "4", said.append)
    parent = room.parents()[-1]
    assert [run.params["training.seed"] for run in room.children(parent)] == ["3"]
    assert parent.metrics["seeds/count"] == 3
    text = "\n".join(said)
    assert text.count("on record as run") == 2 and "seed 1: FAILED: the loss is not a number" in text
    with pytest.raises(UserError, match="1 of 2 fits came to anything"):
        noise.repeat(room.config, room.run.run_id, "2", said.append)
    assert room.parents()[-1].status == "FAILED"


def test_a_model_of_seven_classes_is_tested_gated_and_asked_by_class(room: Room):
    """What a promotion of two classes does not show: a condition, a column and an answer for each of seven."""
    gate = ["gate=default", "gate.floors.roc_auc=0.5", "gate.recall.every=0", "+gate.recall.happy=0.1"]
    words = [f"paths.{name}={getattr(room.config.paths, name)}" for name in ("mlruns", "cache")]
    config = compose(["promote=default", "promote.seeds=1", "tracking.system_metrics=false", *gate, *words])
    version = promote(config, run_id=room.run.run_id, echo=lambda line: None)
    assert version is not None and version.name == "fer-demo"
    (row,) = entries(config, ["fer-demo"])  # its head was fitted under the seeds' run
    assert row.hardware is not None and row.hardware == entries(config, [room.run.run_id])[0].hardware
    asked = [c["asked"] for c in json.loads(tracking.artifact_text(room.store, version.run_id, "gate.json") or "")]
    recalls = [f"recall of {name} at least {0.1 if name == 'happy' else 0}" for name in EMOTIONS]
    assert sorted(word for word in asked if word.startswith("recall")) == sorted(recalls)
    test = open_test_split(compose(["data=demo", "data.classes=null", "data.demo_size=1000"]).data)
    _, classifier = load_model(compose(["data=demo", *words]), "champion")
    said = classifier.probabilities(test.images)
    assert tuple(classifier.classes) == test.classes and sorted(test.classes) == sorted(EMOTIONS)
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-5)
    (row,) = entries(room.config, ["fer-demo"])
    assert row.classes == 7 and row.accuracy == np.mean(said.argmax(axis=1) == test.labels) and row.accuracy > 0.3
    run = tracking.find_run(room.store, version.run_id)
    assert run is not None
    shares = {name: run.metrics[f"final/test_recall_{name}"] for name in test.classes}
    for label, name in enumerate(test.classes):
        assert shares[name] == pytest.approx(np.mean(said.argmax(axis=1)[test.labels == label] == label))


def test_a_run_that_has_no_head_is_refused_in_the_words_of_the_verb(room: Room):
    with tracking.start_run(room.store, "sweep", "above", system_metrics=False) as above:
        pass
    with pytest.raises(UserError, match=r"a sweep's run: name one of its trials; fer seeds takes a finished trial"):
        noise.repeat(room.config, above.id, "2")


@pytest.mark.parametrize(
    ("run", "count", "message"),
    [
        ("", "3", "say run=<id>"),
        ("0" * 32, "3", "run=0{32}: no such run"),
        ("0" * 32, "1", "n=1: must be a number of seeds, from 2"),
        ("0" * 32, "few", "n=few: must be a number"),
    ],
)
def test_what_cannot_be_repeated_is_named(room: Room, run: str, count: str, message: str):
    with pytest.raises(UserError, match=message):
        noise.repeat(room.config, run, count)


def test_the_interval_of_a_share_ends_at_0_and_1_and_that_of_a_loss_at_0(room: Room, monkeypatch: pytest.MonkeyPatch):
    scores = {"final/val_accuracy": [0, 0.3, 0.9], "final/val_f1": [0.5, 0.51, 0.52], "final/val_loss": [0.1, 0.2, 9]}

    def made_up(candidate: Any, seed: int, label: str, metric: str, prepared: Any, parent: Any, echo: Any) -> Any:
        with tracking.start_run(parent.store, "train", label, parent=parent.id, system_metrics=False) as run:
            run.log_metrics({name: values[seed] for name, values in scores.items()})
        return run.id, scores[metric][seed], "made up"

    monkeypatch.setattr(noise, "refit", made_up)
    said: list[str] = []
    noise.repeat(room.config, room.run.run_id, "3", said.append)
    found = room.parents()[-1].metrics
    ends = {name: (found[f"seeds/val_{name}_low"], found[f"seeds/val_{name}_high"]) for name in ("accuracy", "loss")}
    assert ends["accuracy"] == (0, 1) and ends["loss"][0] == 0
    assert ends["loss"][1] == pytest.approx(spread(scores["final/val_loss"]).high) and ends["loss"][1] > 9
    within = spread(scores["final/val_f1"])
    assert (found["seeds/val_f1_low"], found["seeds/val_f1_high"]) == pytest.approx((within.low, within.high))
    assert any("0.0000 to 1.0000" in line for text in said for line in text.splitlines())
