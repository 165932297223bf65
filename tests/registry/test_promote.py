"""Promotion: from a real sweep on demo faces into a real registry, and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from promoted_sweep import FEW, MODEL, Room, data_of

from fer_experiments import cli, tracking
from fer_experiments.data import open_test_split
from fer_experiments.evaluation import metrics
from fer_experiments.evaluation.calibration import untempered
from fer_experiments.registry.assembly import MEASURED
from fer_experiments.registry.sealed import recorded_probabilities
from fer_experiments.registry.versions import list_models, rollback
from fer_experiments.report.entries import entries
from fer_experiments.tracking import models, openings
from fer_experiments.tracking.store import client_of


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
    names += ("slices", "corruptions", "corrupted_faces")
    assert {f"{name}_test.png" for name in names} <= plots


def test_the_temperature_is_in_the_model_and_its_scores_before_and_after_on_record(room: Room):
    version = models.find_version(room.store, MODEL, "1")
    assert version is not None
    run = client_of(room.store).get_run(version.run_id)
    temperature = run.data.metrics["calibration/temperature"]
    network = models.load_network(models.fetch_model(room.store, version, Path("/nonexistent")))
    assert network.get_layer("inverse_temperature").scale == pytest.approx(1 / temperature)
    test = open_test_split(data_of(room))
    after = recorded_probabilities(room.store, version.run_id, test)
    assert after is not None
    before = untempered(after, temperature)
    for name in MEASURED:
        for when, probabilities in (("before", before), ("after", after)):
            (value,) = metrics.scores(test.labels, probabilities, [name]).values()
            assert run.data.metrics[f"calibration/test_{name}_{when}"] == pytest.approx(value, abs=1e-5)
            assert f"| {name}" in client_of(room.store).get_model_version(MODEL, "1").description
    val = {when: run.data.metrics[f"calibration/val_log_loss_{when}"] for when in ("before", "after")}
    assert val["after"] <= val["before"] and val["after"] == pytest.approx(run.data.metrics["final/val_loss"])
    plots = {Path(f.path).name for f in client_of(room.store).list_artifacts(version.run_id, "plots")}
    assert {"calibration_before_test.png", "calibration_test.png"} <= plots


def test_the_ensemble_is_taken_where_it_is_better_on_the_validation_split(room: Room):
    version = models.find_version(room.store, MODEL, "1")
    assert version is not None
    tried = json.loads(tracking.artifact_text(room.store, version.run_id, "ensemble.json") or "")
    assert sorted(len(option["runs"]) for option in tried) == [1, 2]
    assert tried[0]["log_loss"] <= tried[1]["log_loss"]
    assert json.loads(version.tags["fer.heads"]) == tried[0]["runs"]
    network = models.load_network(models.fetch_model(room.store, version, Path("/nonexistent")))
    assert sum(layer.name.startswith("head_") for layer in network.layers) == len(tried[0]["runs"])
    values = client_of(room.store).get_run(version.run_id).data.metrics
    for name, metric in (("accuracy", "accuracy"), ("loss", "log_loss")):
        assert values[f"final/val_{name}"] == pytest.approx(tried[0][metric])


def test_the_registered_model_is_uncertain_below_the_threshold(room: Room):
    version = models.find_version(room.store, MODEL, "1")
    assert version is not None
    values = client_of(room.store).get_run(version.run_id).data.metrics
    classifier = models.load_classifier(models.fetch_model(room.store, version, Path("/nonexistent")))
    assert values["abstain/val_error"] <= 0.1
    test = open_test_split(data_of(room))
    labels = np.array(classifier.labels(classifier.probabilities(test.images)))
    sure = labels != models.UNCERTAIN
    assert classifier.threshold == values["abstain/threshold"] and sure.mean() == values["abstain/test_coverage"]
    right = np.array(test.classes)[test.labels]
    assert np.mean(labels[sure] != right[sure]) == pytest.approx(values["abstain/test_error"])


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
    assert row.hardware is not None and row.hardware == trial.hardware  # on the runs that theirs are nested under
    assert trial.seeds is not None and trial.validated == row.validated is not None
    assert row.split == "test, official" and row.chosen.startswith("nothing; opened ")
    predictions = row.predictions()
    assert predictions is not None
    assert np.mean(predictions[1].argmax(axis=1) == predictions[0]) == row.accuracy


def test_a_version_says_what_it_is(room: Room):
    version = models.find_version(room.store, MODEL, "1")
    assert version is not None
    tags = ("dataset", "backbone", "features", "sweep_id", "config", "test_accuracy", "git_commit", "user", "promoted")
    assert all(version.tags[f"fer.{tag}"] for tag in tags)
    assert version.tags["fer.sweep_id"] == room.state.id
    described = client_of(room.store).get_model_version(MODEL, "1").description
    for part in (
        "# fer-demo",
        "Made in a test.",
        "## Intended use",
        "## Known biases and limits",
        "## In the European Union",
        "## Slices of the test split",
        "## How it is made again",
        "## When it does not answer",
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
    options = [f"run={trial}", "promote.seeds=1", "gate=none", *FEW, *room.options]
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
