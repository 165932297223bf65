"""What features are worth by two classifiers, in one run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_sweeps import runs_of
from stores import store_in

from fer_experiments import cli
from fer_experiments.config import Config
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.experiment.probe import STRENGTHS, _logistic, _neighbours, probe
from fer_experiments.tracking import artifact_text

SMALL = ["data=demo", "data.demo_size=600", "backbone=pocket", "head=linear", "tracking.system_metrics=false"]


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, pd.DataFrame, list[str]]:
    """Two cut layers in one pass, kept as maps, and one that is pooled."""
    folder = tmp_path_factory.mktemp("probe")
    places = [f"paths.mlruns={folder}/mlruns", f"paths.cache={folder}/cache"]
    maps = compose([*SMALL, *places, "backbone.layers=[stage2,stage3]"])
    pooled = compose([*SMALL, *places, "backbone.layers=[stage2]", "backbone.pooling=max"])
    said: list[str] = []
    return maps, probe(maps, pooled, echo=said.append), said


def test_every_layer_and_pooling_is_a_row_the_best_first(probed: tuple[Config, pd.DataFrame, list[str]]):
    _, frame, said = probed
    assert sorted(zip(frame["layer"], frame["pooling"], strict=True)) == sorted(
        [("stage2", "avg"), ("stage2", "max"), ("stage3", "avg"), ("stage3", "max"), ("stage2", "max")]
    )
    assert frame["logistic"].is_monotonic_decreasing and frame["logistic"].iloc[0] > 0.8
    assert (frame["seen_near_twins"] == 0).all()  # of drawn faces none are sought
    for name in ("logistic", "neighbours"):
        assert (frame[f"{name}_low"] <= frame[name]).all() and (frame[name] <= frame[f"{name}_high"]).all()
    of_maps, of_pooled = (
        row for row in frame.to_dict("records") if (row["layer"], row["pooling"]) == ("stage2", "max")
    )
    assert of_maps["logistic"] == pytest.approx(of_pooled["logistic"], abs=0.01), (
        "the same, pooled by us or the network"
    )
    assert said[-1].splitlines()[1].split()[1:3] == [frame["layer"][0], frame["pooling"][0]]


def test_it_is_one_run_with_its_table_and_every_config(probed: tuple[Config, pd.DataFrame, list[str]]):
    config, frame, _ = probed
    (run,) = runs_of(config, kind="probe")
    assert run.status == "FINISHED" and run.params["data.demo_size"] == "600" and "backbone.pooling" not in run.params
    store = store_in(Path(config.paths.mlruns))
    table = artifact_text(store, run.run_id, "probe.csv")
    assert table is not None and pd.read_csv(io.StringIO(table))["logistic"].tolist() == frame["logistic"].tolist()
    assert all(artifact_text(store, run.run_id, f"configs/{number}.yaml") for number in (0, 1))
    assert run.metrics["probe/logistic"] == pytest.approx(frame.set_index("step")["logistic"][len(frame) - 1])


def test_all_folds_at_once_are_refused(probed: tuple[Config, pd.DataFrame, list[str]]):
    config, _, _ = probed
    places = [f"paths.mlruns={config.paths.mlruns}", f"paths.cache={config.paths.cache}"]
    with pytest.raises(UserError, match=r"data.fold=all: a probe is of one fold; say data.fold=0"):
        probe(compose([*SMALL, *places, "data.split=kfold", "data.fold=all"]))


def test_the_strength_is_chosen_on_held_out_training_images(monkeypatch: pytest.MonkeyPatch):
    """Two of 200 columns tell; labels are noisy: what overfits loses."""
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 200)).astype("float32")
    labels = (x[:, 0] + x[:, 1] + random.normal(size=300) > 0).astype("int64")
    asked = random.normal(size=(2000, 200)).astype("float32")
    truth = asked[:, 0] + asked[:, 1] > 0
    probabilities, strength = _logistic(x, labels, asked, seed=0)
    assert STRENGTHS[0] < strength < 0.1 and probabilities.shape == (2000, 2)
    assert np.mean((probabilities[:, 1] > 0.5) == truth) > 0.65
    monkeypatch.setattr(f"{_logistic.__module__}.STRENGTHS", np.append(STRENGTHS, -1.0))  # which scikit-learn refuses
    assert _logistic(x, labels, asked, seed=0)[1] == strength  # what overfits more and more is not fitted


def test_one_image_a_class_is_too_few():
    with pytest.raises(UserError, match="7 training images: a probe holds some of each class out; give it more"):
        _logistic(np.eye(7, dtype="float32"), np.arange(7), np.eye(7, dtype="float32"), seed=0)


def test_neighbours_are_by_angle_and_not_by_length():
    x = np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.1, 9.0]] * 15, "float32")
    labels = np.array([0, 0, 1, 1] * 15)
    shares = _neighbours(x, labels, np.array([[100.0, 1.0], [0.1, 0.5]], "float32"))
    np.testing.assert_array_equal(shares, [[1, 0], [0, 1]])


def test_values_parted_by_commas_are_compared(
    probed: tuple[Config, pd.DataFrame, list[str]], capfd: pytest.CaptureFixture[str]
):
    config, _, _ = probed
    places = [f"paths.mlruns={config.paths.mlruns}", f"paths.cache={config.paths.cache}"]
    small = [
        word for word in SMALL if word != "head=linear"
    ]  # which is chosen where nothing is said: any pooling suits
    arguments = ["probe", *small, *places, "backbone.layers=[stage2]", "backbone.pooling=none,max"]
    assert cli.main(arguments) == 0
    told = [line for line in capfd.readouterr().out.splitlines() if line.startswith("pocket")]
    assert sorted(line.split()[2] for line in told) == ["avg", "max", "max"]
    assert len(runs_of(config, kind="probe")) == 2
