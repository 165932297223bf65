"""Promotion: from a real sweep on demo faces into a real registry, and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import Command
from forked import run as fer
from PIL import Image
from promoted_sweep import MODEL, Room, promoted_sweep

from fer_experiments import cli, tracking
from fer_experiments.config import DataConfig
from fer_experiments.config.commands import override
from fer_experiments.config.compose import compose
from fer_experiments.data import open_test_split
from fer_experiments.errors import UserError
from fer_experiments.evaluation import metrics
from fer_experiments.experiment.train import train
from fer_experiments.registry.promote import promote
from fer_experiments.registry.sealed import recorded_probabilities
from fer_experiments.registry.versions import crown, list_models, rollback
from fer_experiments.report.entries import entries
from fer_experiments.tracking import models, openings
from fer_experiments.tracking.digests import TAG, digests
from fer_experiments.tracking.store import client_of


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return promoted_sweep(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def first_again(room: Room) -> Iterator[None]:
    """Version 1 is the champion at the start, whatever other tests have promoted."""
    one = models.find_version(room.store, MODEL, "1")
    assert one is not None
    models.set_alias(room.store, one, "champion")
    yield


def data_of(room: Room) -> DataConfig:
    return compose(["data=demo", "data.demo_size=1500"]).data


def test_the_best_mean_over_seeds_is_taken_and_shown(room: Room):
    refits = room.runs(kind="train")
    assert len(refits) == 4 and {run.params["training.seed"] for run in refits} == {"0", "1"}
    (promotion,) = [r for r in room.runs(kind="promotion") if r.tags.get("fer.version") == "1"]
    table = json.loads(Path(client_of(room.store).download_artifacts(promotion.run_id, "refits.json")).read_text())
    scores = {run.run_id: run.metrics["final/val_accuracy"] for run in refits}
    for row in table:
        assert row["mean"] == pytest.approx(np.mean([scores[run] for run in row["runs"].values()]))
    assert table[0]["mean"] >= table[1]["mean"]
    best_two = sorted(room.state.trials, key=lambda t: -t.score)[:2]
    assert {row["run_id"] for row in table} == {trial.run_id for trial in best_two}
    text = "\n".join(room.said)
    assert "± " in text and f"taken: {table[0]['config']} with seed" in text


def test_the_test_split_is_opened_once_and_its_metrics_are_those_of_the_registered_model(room: Room):
    version = models.find_version(room.store, MODEL, "1")
    assert version is not None
    test = open_test_split(data_of(room))
    ledger = openings(room.store, test.fingerprint)
    assert ledger[0].run_id == version.run_id and len(room.opened) == 1
    assert "opening number 1 on record" in "\n".join(room.said)
    classifier = models.load_classifier(models.fetch_model(room.store, version, Path("/nonexistent")))
    probabilities = classifier.probabilities(test.images)
    recorded = recorded_probabilities(room.store, version.run_id, test)
    assert recorded is not None
    np.testing.assert_allclose(probabilities, recorded, atol=1e-5)
    run = client_of(room.store).get_run(version.run_id)
    expected = metrics.classification_metrics(test.labels, probabilities)
    for name, value in expected.items():
        assert run.data.metrics[f"final/test_{name}"] == pytest.approx(value, abs=1e-6)
        assert run.data.metrics[f"final/test_{name}_low"] <= value <= run.data.metrics[f"final/test_{name}_high"]
    for name in ("average_precision", "brier_score", "expected_calibration_error"):
        assert f"final/test_{name}" in run.data.metrics
    assert 0 < run.data.metrics["final/val_accuracy"] <= 1
    assert run.data.params["head.name"] == "pooled" and run.data.tags["fer.kind"] == "promotion"
    plots = {Path(f.path).name for f in client_of(room.store).list_artifacts(version.run_id, "plots")}
    names = ("confusion_matrix", "roc_curve", "precision_recall", "calibration", "emotion_errors", "worst_mistakes")
    assert {f"{name}_test.png" for name in names} <= plots


def test_it_is_a_row_beside_its_sweep_with_what_only_a_promotion_knows(room: Room):
    version = models.find_version(room.store, MODEL, "1")
    assert version is not None
    trial, row = entries(room.config(), [room.state.id, f"{MODEL}/1"])
    run = client_of(room.store).get_run(version.run_id)
    assert (row.accuracy, row.mb) == (run.data.metrics["final/test_accuracy"], run.data.metrics["model/mb"])
    best = room.state.best()
    assert best is not None and (trial.accuracy, trial.source) == (best.score, best.run_id)
    network = models.load_classifier(models.fetch_model(room.store, version, Path("/nonexistent"))).network
    assert row.parameters == network.count_params() and row.trainable and 0 < row.trainable < row.parameters
    assert row.seeds is not None and row.seeds.count == 2 and row.epochs and row.training_s
    assert trial.seeds is not None and trial.validated == row.validated is not None
    assert row.split == "test, official" and row.chosen.startswith("nothing; opened ")
    predictions = row.predictions()
    assert predictions is not None
    assert np.mean(predictions[1].argmax(axis=1) == predictions[0]) == row.accuracy


def test_a_version_says_what_it_is(room: Room):
    version = models.find_version(room.store, MODEL, "1")
    assert version is not None
    for tag in (
        "dataset",
        "backbone",
        "features",
        "sweep_id",
        "config",
        "test_accuracy",
        "git_commit",
        "user",
        "promoted",
    ):
        assert version.tags[f"fer.{tag}"], tag
    assert version.tags["fer.sweep_id"] == room.state.id
    described = client_of(room.store).get_model_version(MODEL, "1").description
    for part in (
        "# fer-demo",
        "Made in a test.",
        "## Intended use",
        "## Known biases and limits",
        "| accuracy",
        "happy",
    ):
        assert part in described, part
    from mlflow.models import get_model_info

    signature = get_model_info(str(models.fetch_model(room.store, version, Path("/nonexistent")))).signature
    assert signature.inputs.inputs[0].type == np.dtype("uint8") and signature.inputs.inputs[0].shape == (-1, 48, 48)
    assert signature.outputs.input_names() == ["label", "probability_negative", "probability_positive"]
    assert MODEL in list_models(room.config()) and "champion" in list_models(room.config())


def test_another_run_is_promoted_the_old_champion_is_previous_and_rollback_swaps_them(room: Room, first_again: None):
    trial = room.state.trials[0].run_id
    before = len(openings(room.store, open_test_split(data_of(room)).fingerprint))
    said: list[str] = []
    options = [f"run={trial}", "promote.seeds=1", "gate=none", *room.options]
    assert cli.main(["promote", *options]) == 0
    newest = models.versions(room.store, MODEL)[0].number
    assert room.aliases() == {"champion": newest, "previous": 1}
    assert len(openings(room.store, open_test_split(data_of(room)).fingerprint)) == before + 1
    said.append(rollback(room.config("data=demo")))
    assert room.aliases() == {"champion": 1, "previous": newest}
    assert f"version 1 is the champion again, version {newest} is previous" in said[0]
    rollback(room.config("data=demo"))
    assert room.aliases() == {"champion": newest, "previous": 1}
    rollback(room.config("data=demo"), "1")
    assert room.aliases() == {"champion": 1, "previous": newest}


def test_a_dry_run_says_what_would_happen_and_registers_nothing(room: Room, capsys: pytest.CaptureFixture[str]):
    before, aliases = models.versions(room.store, MODEL), room.aliases()
    options = [f"sweep={room.state.id}", "promote.top_k=2", "promote.seeds=2", "promote.dry_run=true", *room.options]
    assert cli.main(["promote", *options]) == 0
    told = capsys.readouterr().out
    assert "dry run: it would be registered as fer-demo" in told
    assert told.count("on record as run") == 4  # what an earlier promotion has fitted is not fitted again
    assert (models.versions(room.store, MODEL), room.aliases()) == (before, aliases)


def test_a_worse_model_is_refused_with_each_reason(room: Room, first_again: None, capsys: pytest.CaptureFixture[str]):
    bad = ["data=demo", "data.demo_size=1500", "backbone=pocket", "head=linear", "training.epochs=1"]
    train(compose([*bad, "training.learning_rate=1e-6", *room.options]), echo=lambda line: None)
    worse = [run for run in room.runs(kind="train") if "fer.refit" not in run.tags][-1]
    before, aliases = models.versions(room.store, MODEL), room.aliases()
    options = [f"run={worse.run_id}", "promote.seeds=1", "+gate.ceilings.brier_score=0.01", *room.options]
    assert cli.main(["promote", *options]) == 3
    error = capsys.readouterr().err
    assert "not worse than the champion, version 1" in error and "McNemar" in error
    assert "brier_score at most 0.01 (it is 0." in error and len(error.strip().splitlines()) == 1
    assert (models.versions(room.store, MODEL), room.aliases()) == (before, aliases)
    refused = room.runs(kind="promotion")[-1]
    assert (refused.status, refused.tags["fer.gate"]) == ("FINISHED", "refused")


def test_a_model_that_does_not_load_in_a_fresh_process_leaves_the_registry(
    room: Room, first_again: None, monkeypatch: pytest.MonkeyPatch
):
    add_version = models.add_version

    def broken(*args: Any) -> models.Version:
        version = add_version(*args)
        network = next(models.fetch_model(room.store, version, Path("/nonexistent")).rglob("network.keras"))
        network.write_bytes(network.read_bytes()[:1000])
        return replace(version, tags={**version.tags, TAG: json.dumps(digests(network.parents[1]))})

    monkeypatch.setattr(models, "add_version", broken)
    before, aliases = models.versions(room.store, MODEL), room.aliases()
    with pytest.raises(UserError, match="cannot be used in a fresh process"):
        promote(room.config("promote.seeds=1", "gate=none"), run_id=room.state.trials[0].run_id, echo=lambda line: None)
    assert (models.versions(room.store, MODEL), room.aliases()) == (before, aliases)


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(room: Room):
    before = models.versions(room.store, MODEL)[0].number
    command = ["promote", f"run={room.state.trials[0].run_id}", "promote.seeds=1", "gate=none", *room.options]
    said = {process.wait(): process.stderr for process in [Command(*command) for _ in range(2)]}
    assert said.keys() == {0, 2}
    assert "another process is promoting or rolling back; wait for it" in said[2]
    newest = models.versions(room.store, MODEL)[0].number
    assert room.aliases()["champion"] == newest > before


def test_a_champion_that_another_machine_has_made_meanwhile_is_not_overwritten(room: Room, first_again: None):
    one = models.find_version(room.store, MODEL, "1")
    assert one is not None
    aliases = room.aliases()
    with pytest.raises(UserError, match="was version 99 when this promotion compared itself, and is version 1 now"):
        crown(room.store, replace(one, number=98), replace(one, number=99))
    with pytest.raises(UserError, match="was none"):
        crown(room.store, one, None)
    assert room.aliases() == aliases


def test_what_cannot_be_promoted_is_named(room: Room):
    for run, said in (("0" * 32, "no such run"), (room.state.run_id, "a sweep's run: say sweep=")):
        with pytest.raises(UserError, match=said):
            promote(room.config(), run_id=run, echo=lambda line: None)
    with pytest.raises(UserError, match="sweep=quik: no such sweep"):
        promote(room.config(), sweep="quik", echo=lambda line: None)
    with pytest.raises(UserError, match="version=77: fer-demo has no such version"):
        rollback(room.config("data=demo"), "77")
    with pytest.raises(UserError, match="nothing is registered"):
        rollback(room.config("data=fer2013"))
    with pytest.raises(UserError, match=r"gate\.recall: glad is no class"):
        promote(room.config("+gate.recall.glad=0.5"), sweep=room.state.id, echo=lambda line: None)


def test_other_data_than_the_trial_had_are_refused(room: Room):
    client, run = client_of(room.store), room.state.trials[0].run_id
    was = client.get_run(run).data.tags["fer.dataset"]
    client.set_tag(run, "fer.dataset", "0" * 64)
    try:
        with pytest.raises(UserError, match=r"its dataset was 00000000 and is \w{8} now"):
            promote(room.config(), run_id=run, echo=lambda line: None)
    finally:
        client.set_tag(run, "fer.dataset", was)


def test_a_store_that_was_moved_goes_on_where_it_is(room: Room, tmp_path: Path):
    """Sweep, report, promotions and a prediction find everything, and leave nothing in the old place.

    In other processes: MLflow keeps in mind where a run's artifacts were.
    """
    old, new = Path(room.options[1].partition("=")[2]), tmp_path / "a b?#"
    shutil.move(old, new)
    where = [room.options[0], override("paths.mlruns", str(new)), room.options[2]]
    Image.fromarray(np.zeros((48, 48), "uint8")).save(tmp_path / "face.png")
    once = ["promote.top_k=1", "promote.seeds=1", "gate=none", *where]
    verbs = [
        ["sweep", "sweep=quick", "data.demo_size=1500", "training.epochs=8", "sweep.max_trials=4", *where],
        ["report", f"sweep={room.state.run_id}", *where],
        ["promote", f"sweep={room.state.id}", "promote.dry_run=true", *once],
        ["promote", f"sweep={room.state.run_id}", *once],
        ["predict", str(tmp_path / "face.png"), "data=demo", *where],
        ["models", *where],
    ]
    try:
        done = [fer(*verb) for verb in verbs]
        assert [one.returncode for one in done] == [0] * len(verbs), [one.stderr for one in done]
        swept, reported, dry, promoted = (one.stdout for one in done[:4])
        assert f"sweep {room.state.id}: 4 trials" in swept
        assert str(new / "sweeps" / room.state.id / "report.html") in reported
        assert "dry run: it would be registered" in dry and "is the champion in place of" in promoted
        assert not old.exists()
    finally:
        shutil.move(new, old)
        tracking.connect(room.config())
