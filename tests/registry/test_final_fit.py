"""A promotion whose heads are fitted on training and validation images together."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator

import numpy as np
import pytest
from promoted_sweep import MODEL, Room, data_of

from fer_experiments import tracking
from fer_experiments.data import load_dataset, open_test_split
from fer_experiments.errors import UserError
from fer_experiments.evaluation.calibration import tempered
from fer_experiments.experiment.record import images_digest
from fer_experiments.features.cache import exact_features
from fer_experiments.registry import final_fit, promote
from fer_experiments.registry.sealed import recorded_probabilities
from fer_experiments.report.entries import entries
from fer_experiments.tracking import FoundRun, models
from fer_experiments.tracking.store import client_of
from fer_experiments.training.fit import FitError, predict


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
    config = room.config("data=demo", "backbone=pocket")
    best = room.state.best()
    assert best is not None
    features = exact_features(test.images, config.backbone, config.features)
    rows = np.arange(len(test.images))
    heads = [tracking.load_head(room.store, fit["run_id"]) for fit in fits]
    plain = np.mean([predict(head, features, rows) for head in heads], axis=0)
    temperature = promotion.metrics["calibration/temperature"]
    got = recorded_probabilities(room.store, promotion.run_id, test)
    assert got is not None
    np.testing.assert_allclose(got, tempered(plain, temperature), atol=0.02)
    before = [tracking.load_head(room.store, fit["of"]) for fit in fits]
    assert np.abs(np.mean([predict(head, features, rows) for head in before], axis=0) - plain).max() > 0.05
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
    with pytest.raises(UserError, match="a refit run, finished; only a finished trial or `fer train` run"):
        promote.promote(room.config(), run_id=run, echo=lambda line: None)
    with pytest.raises(UserError, match="a refit run, finished, without a val accuracy"):
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
