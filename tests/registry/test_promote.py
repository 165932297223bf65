"""Promotion: from a real sweep on demo faces into a real registry, and back."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from promoted_sweep import FEW, MODEL, Room, data_of

from fer_experiments import cli, tracking
from fer_experiments.data import images_digest, load_dataset, open_test_split
from fer_experiments.errors import UserError
from fer_experiments.evaluation import metrics
from fer_experiments.evaluation.calibration import tempered, untempered
from fer_experiments.features.cache import exact_features
from fer_experiments.registry import final_fit, promote
from fer_experiments.registry.assembly import MEASURED
from fer_experiments.registry.sealed import recorded_probabilities
from fer_experiments.registry.versions import list_models, rollback
from fer_experiments.report.entries import entries
from fer_experiments.tracking import FoundRun, models, openings
from fer_experiments.tracking.store import client_of
from fer_experiments.training.fit import FitError, predict


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
    ledger = openings(room.store, test.fingerprint, test.digest)
    assert ledger[0].run_id == version.run_id and len(room.opened) == 1
    assert "opening number 1 on record" in "\n".join(room.said)
    assert "fer predict" in "\n".join(room.said) and "fer rollback" not in "\n".join(room.said), "it is the first"
    classifier = models.load_classifier(models.fetch_model(room.store, version, Path("/nonexistent")))
    probabilities = classifier.probabilities(test.images)
    recorded = recorded_probabilities(room.store, version.run_id, test, by_id=False)
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
    network = models.load_classifier(models.fetch_model(room.store, version, Path("/nonexistent"))).network
    assert network.get_layer("inverse_temperature").scale == pytest.approx(1 / temperature)
    test = open_test_split(data_of(room))
    after = recorded_probabilities(room.store, version.run_id, test, by_id=True)
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
    network = models.load_classifier(models.fetch_model(room.store, version, Path("/nonexistent"))).network
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


def opened(room: Room) -> int:
    """How often the test split was."""
    test = open_test_split(data_of(room))
    return len(openings(room.store, test.fingerprint, test.digest))


def test_another_run_is_promoted_the_old_champion_is_previous_and_rollback_swaps_them(room: Room, first_again: None):
    trial = room.state.trials[0].run_id
    before = opened(room)
    said: list[str] = []
    options = [f"run={trial}", "promote.seeds=1", "gate=none", *FEW, *room.options]
    assert cli.main(["promote", *options]) == 0
    newest = models.versions(room.store, MODEL)[0].number
    assert room.aliases() == {"champion": newest, "previous": 1}
    assert opened(room) == before + 1
    said.append(rollback(room.config("data=demo")))
    assert room.aliases() == {"champion": 1, "previous": newest}
    assert f"version 1 is the champion again, version {newest} is previous" in said[0]
    rollback(room.config("data=demo"))
    assert room.aliases() == {"champion": newest, "previous": 1}
    rollback(room.config("data=demo"), "1")
    assert room.aliases() == {"champion": 1, "previous": newest}


@pytest.fixture(scope="module")
def promotion(room: Room) -> Iterator[FoundRun]:
    """One that was killed after its last fit, given again: of both seeds' heads, the test asks for none of it twice."""
    how = ["promote.top_k=1", "promote.seeds=2", "promote.ensemble=seeds", "promote.refit=train+val"]
    config = room.config(*how, "promote.dry_run=true", "gate=none", "promote.abstain=0.1")
    said: list[str] = []

    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(promote, "write_model", killed)
        promote.promote(config, sweep=room.state.id, echo=said.append)
    fitted = len(room.runs(kind="refit"))
    again: list[str] = []
    promote.promote(config, sweep=room.state.id, echo=again.append)
    assert fitted == len(room.runs(kind="refit")) > 0 and any("train+val" in line for line in said)
    assert sum("train+val" in line and "on record as run" in line for line in again) == fitted
    yield room.runs(kind="promotion", fitted="train+val")[-1]


def fits_of(room: Room, promotion: FoundRun) -> list[dict]:
    return json.loads(tracking.artifact_text(room.store, promotion.run_id, "final_fits.json") or "")


def test_each_head_has_all_images_and_as_many_epochs_as_the_best_of_the_refits(room: Room, promotion: FoundRun):
    fits = fits_of(room, promotion)
    refits = json.loads(tracking.artifact_text(room.store, promotion.run_id, "refits.json") or "")
    best = [tracking.Run(room.store, run).metrics["best_epoch"] + 1 for run in refits[0]["runs"].values()]
    dataset = load_dataset(data_of(room))
    both = np.union1d(dataset.train, dataset.val)
    for fit in fits:
        run = tracking.find_run(room.store, fit["run_id"])
        assert run is not None and fit["of"] == refits[0]["runs"][str(fit["seed"])]
        assert fit["best_epochs"] == best and fit["epochs"] == statistics.median_low(best)
        assert run.params["training.epochs"] == str(fit["epochs"]) and run.metrics["best_epoch"] == fit["epochs"] - 1
        assert not [name for name in run.metrics if "val" in name]
        seen = images_digest(dataset.images[both], dataset.labels[both], dataset.classes)
        assert run.tags["fer.train_images"] == seen and run.params["training.seed"] == str(fit["seed"])
        (given,) = client_of(room.store).get_run(run.run_id).inputs.dataset_inputs
        assert given.dataset.name.endswith("/train+val") and json.loads(given.dataset.profile)["images"] == len(both)


def test_the_model_is_of_these_heads_at_the_temperature_of_those_before(room: Room, promotion: FoundRun):
    fits, test = fits_of(room, promotion), open_test_split(data_of(room))
    config = room.config("data=demo", "backbone=pocket", "features.engine=tensorflow")
    features = exact_features(test.images, config.backbone, config.features)
    rows = np.arange(len(test.images))
    heads = [tracking.load_head(room.store, fit["run_id"]) for fit in fits]
    plain = np.mean([predict(head, features, rows) for head in heads], axis=0)
    temperature = promotion.metrics["calibration/temperature"]
    got = recorded_probabilities(room.store, promotion.run_id, test, by_id=False)
    assert got is not None
    np.testing.assert_allclose(got, tempered(plain, temperature), atol=1e-3)
    before = [tracking.load_head(room.store, fit["of"]) for fit in fits]
    theirs = np.mean([predict(head, features, rows) for head in before], axis=0)
    assert np.abs(theirs - plain).max() > 5e-3
    tried = json.loads(tracking.artifact_text(room.store, promotion.run_id, "ensemble.json") or "")
    assert [fit["of"] for fit in fits] == tried[0]["runs"]
    assert promotion.metrics["final/val_loss"] == pytest.approx(tried[0]["log_loss"])


def test_the_card_and_a_comparison_say_so(room: Room, promotion: FoundRun):
    card = tracking.artifact_text(room.store, promotion.run_id, "model_card.md") or ""
    assert "fitted on train and val together, for" in card and "has no validation score" in card
    assert "promote.refit=train+val" in card
    (row,) = entries(room.config(), [promotion.run_id])
    runs = [tracking.find_run(room.store, fit["run_id"]) for fit in fits_of(room, promotion)]
    assert row.chosen.endswith("; fitted on train+val") and row.epochs == fits_of(room, promotion)[0]["epochs"]
    assert row.training_s == pytest.approx(sum(run.metrics["time/fit_s"] for run in runs if run))
    assert row.validated is not None and row.seeds is not None and row.seeds.count == 2


def test_what_has_no_validation_score_is_neither_promoted_nor_compared(room: Room, promotion: FoundRun):
    run = fits_of(room, promotion)[0]["run_id"]
    with pytest.raises(UserError, match="a refit run, finished; fer promote takes a finished trial or `fer train` run"):
        promote.promote(room.config(), run_id=run, echo=lambda line: None)
    with pytest.raises(UserError, match=r"without a val accuracy; name the promotion that it was for$"):
        entries(room.config(), [run])


def test_a_fit_that_comes_to_nothing_ends_it_with_the_remedy(room: Room, monkeypatch: pytest.MonkeyPatch):
    before = len(models.versions(room.store, MODEL))

    def fails(*given: object) -> None:
        raise FitError("the loss is not a number")

    monkeypatch.setattr(final_fit, "refit", fails)
    config = room.config("promote.top_k=1", "promote.seeds=1", "promote.refit=train+val", "gate=none")
    with pytest.raises(UserError, match=r"seed 0, train\+val: the loss is not a number; or leave out promote.refit"):
        promote.promote(config, sweep=room.state.id, echo=lambda line: None)
    assert len(models.versions(room.store, MODEL)) == before
