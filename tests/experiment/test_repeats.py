"""A config fitted several times: which seeds, what they come to together, whose head is kept, and what is recorded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from in_memory import blobs
from stores import store_in

from fer_experiments import tracking
from fer_experiments.config import Config
from fer_experiments.config.compose import compose
from fer_experiments.evaluation import curves, figures, metrics
from fer_experiments.evaluation.bootstrap import accuracy_interval
from fer_experiments.experiment.prepare import Prepared
from fer_experiments.experiment.record import IMAGES, PREDICTIONS
from fer_experiments.experiment.repeats import Fits, fit_all, seeds_of
from fer_experiments.experiment.train import fit_and_record
from fer_experiments.training.result import TrainingResult, averaged


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    features, dataset = blobs(2, n=90)
    object.__setattr__(features, "dtype", "float16")  # as stored ones say it
    overrides = ["data=demo", "head=linear", "training.epochs=3", "training.learning_rate=0.05", "training.seed=7"]
    config = compose(overrides)
    return Prepared(config, dataset, features, {})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def recorded(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fits, dict[str, float], Path]:
    """Three fits, what they came to, and the artifacts of their run."""
    config: Config = prepared.config
    mlruns = tmp_path_factory.mktemp("repeats") / "mlruns"
    with tracking.start_run(store_in(mlruns), "train", "three", system_metrics=False) as run:
        fits, final = fit_and_record(run, prepared, config, repeats=3)
        assert run.metrics | final == run.metrics
    (artifacts,) = mlruns.glob(f"artifacts/*/*/{run.id}/artifacts")
    return fits, final, artifacts


def result(score: float, epochs: int = 1) -> TrainingResult:
    history = pd.DataFrame({"val/loss": [score] * epochs}, index=pd.RangeIndex(epochs, name="epoch"))
    return TrainingResult(None, history, 0, np.zeros((0, 2)), np.zeros(0, "int64"), 1.0)  # type: ignore[arg-type]


def test_the_first_seed_is_the_configs_own_and_the_others_are_made_from_it(prepared: Prepared):
    own = prepared.config.training
    assert seeds_of(own, 1) == [7]
    assert seeds_of(own, 4)[:3] == seeds_of(own, 3) and len(set(seeds_of(own, 4))) == 4
    assert all(0 <= seed < 2**31 for seed in seeds_of(own, 50))


def test_one_fit_is_what_it_was(prepared: Prepared, recorded: tuple[Fits, dict[str, float], Path]):
    alone = fit_all(prepared, prepared.config)
    first = recorded[0].results[0]
    assert np.array_equal(alone.kept.val_probabilities, first.val_probabilities)
    assert not np.array_equal(first.val_probabilities, recorded[0].results[1].val_probabilities)


def test_the_metrics_are_means_beside_their_standard_deviations(recorded: tuple[Fits, dict[str, float], Path]):
    fits, final, _ = recorded
    each = [metrics.classification_metrics(r.val_labels, r.val_probabilities) for r in fits.results]
    for name in each[0]:
        values = [scores[name] for scores in each]
        assert final[f"final/val_{name}"] == pytest.approx(np.mean(values))
        assert final[f"final/val_{name}_std"] == pytest.approx(np.std(values, ddof=1))
    assert fits.scores == [scores["accuracy"] for scores in each]


def test_more_fits_make_no_more_images(recorded: tuple[Fits, dict[str, float], Path]):
    fits, final, _ = recorded
    labels, probabilities = fits.kept.val_labels, fits.kept.val_probabilities
    thrice = accuracy_interval(np.tile(labels, 3), np.tile(probabilities, (3, 1)), repeats=3)
    assert thrice == accuracy_interval(labels, probabilities)
    narrow = accuracy_interval(np.tile(labels, 3), np.tile(probabilities, (3, 1)))
    assert final["final/val_accuracy_high"] - final["final/val_accuracy_low"] > narrow[1] - narrow[0]


def test_each_fit_and_one_confusion_matrix_of_all_are_on_the_run(recorded: tuple[Fits, dict[str, float], Path]):
    fits, _, artifacts = recorded
    rows = json.loads((artifacts / "metrics" / "fits.json").read_text())
    assert [row["seed"] for row in rows] == [seed for _, seed in fits.places] and [
        row["final/val_accuracy"] for row in rows
    ] == fits.scores
    assert [row["kept"] for row in rows].count(True) == 1
    matrix = np.array(json.loads((artifacts / "metrics" / "confusion_matrix.json").read_text())["matrix"])
    assert matrix.sum() == 3 * len(fits.kept.val_labels)
    history = pd.read_csv(artifacts / "metrics" / "history.csv")
    assert history["val/accuracy"].tolist() == pytest.approx(
        np.mean([r.history["val/accuracy"] for r in fits.results], axis=0)
    )


def test_the_predictions_are_those_of_the_head_that_is_kept(recorded: tuple[Fits, dict[str, float], Path]):
    fits, _, artifacts = recorded
    kept = np.load(artifacts / PREDICTIONS)
    np.testing.assert_array_equal(kept["probabilities"], fits.kept.val_probabilities)
    np.testing.assert_array_equal(kept["labels"], fits.kept.val_labels)


def test_of_folds_no_predictions_are_recorded_however_many_were_fitted(prepared: Prepared, tmp_path: Path):
    rows = np.arange(len(prepared.dataset.labels))
    folds = tuple((rows[rows % 3 != fold], rows[rows % 3 == fold]) for fold in range(3))
    whole = Prepared(
        prepared.config, replace(prepared.dataset, train=rows, val=rows, folds=folds), prepared.features, {}
    )
    with tracking.start_run(store_in(tmp_path), "train", "pruned", system_metrics=False) as run:
        fit_and_record(run, whole, prepared.config, callbacks=lambda number: None if number else ())
    assert [file.name for file in tmp_path.glob("artifacts/*/*/*/artifacts/metrics/*.npz")] == []
    assert IMAGES["val"] not in tracking.find_runs(store_in(tmp_path), {"fer.kind": "train"})[0].tags


def test_the_head_of_the_median_fit_is_kept(prepared: Prepared, recorded: tuple[Fits, dict[str, float], Path]):
    import keras

    fits, _, artifacts = recorded
    loaded = keras.models.load_model(artifacts / "model" / "data" / "model.keras", compile=False)
    assert np.array_equal(loaded.get_weights()[0], fits.kept.model.get_weights()[0])
    results = [result(score) for score in (0.3, 0.1, 0.2, 0.2)]
    for count, kept in ((1, 0), (2, 1), (3, 2), (4, 2)):
        scores = [0.3, 0.1, 0.2, 0.2][:count]
        assert Fits(1, results[:count], [(0, 0)] * count, scores).kept is results[kept]


def test_curves_are_means_over_the_fits_that_came_so_far():
    mean = averaged([result(1.0, 1).history, result(3.0, 2).history])
    assert mean["val/loss"].tolist() == [2.0, 3.0] and mean["fits"].tolist() == [2, 1]
    assert mean["val/loss_std"].tolist() == pytest.approx([np.sqrt(2), np.nan], nan_ok=True)
    alone = result(1.0).history
    assert averaged([alone]) is alone


def test_curves_have_a_band_and_figures_count_images_once():
    histories = [result(score, 3).history.assign(**{"val/accuracy": score}) for score in (0.5, 0.7)]
    for history, bands in ((averaged(histories), [1, 1]), (histories[0], [0, 0])):
        assert [len(axes.collections) for axes in curves.learning_curves(history).axes] == bands
    title = figures.confusion_matrix(np.array([[6, 0], [0, 3]]), ("a", "b"), repeats=3).get_suptitle()
    assert "3 images by 3 fits" in title


def test_folds_are_fitted_one_after_another_and_every_image_is_scored_once(prepared: Prepared):
    dataset = prepared.dataset
    rows = np.arange(len(dataset.labels))
    folds = tuple((rows[rows % 3 != fold], rows[rows % 3 == fold]) for fold in range(3))
    whole = Prepared(prepared.config, replace(dataset, train=rows, val=rows, folds=folds), prepared.features, {})
    normal = replace(prepared.config, head=replace(prepared.config.head, normalize=True))
    fits = fit_all(whole, normal, repeats=2)
    assert [fold for fold, _ in fits.places] == [0, 0, 1, 1, 2, 2] and fits.repeats == 2
    assert len({seed for _, seed in fits.places}) == 6  # what a seed does to all folds, their spread would not show
    for (fold, seed), score in zip(fits.places, fits.scores, strict=True):
        alone = Prepared(prepared.config, whole.parts[fold], prepared.features, {})
        again = replace(normal, training=replace(normal.training, seed=seed))
        assert fit_all(alone, again).scores == [score]
    scored = np.concatenate([result.val_labels for result in fits.results[::2]])
    assert sorted(scored) == sorted(dataset.labels)


def test_none_for_callbacks_begins_no_more_fits(prepared: Prepared):
    begun: list[int] = []

    def callbacks(number: int) -> Any:
        begun.append(number)
        return () if number == 0 else None

    fits = fit_all(prepared, prepared.config, repeats=3, callbacks=callbacks)
    assert begun == [0, 1] and len(fits.results) == 1 and fits.kept is fits.results[0]
