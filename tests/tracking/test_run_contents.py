"""What goes on a run."""

from __future__ import annotations

import json
import logging
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from small_runs import artifacts, recorded, start

from fer_experiments.config import SweepConfig
from fer_experiments.search.leaderboard import log_progress
from fer_experiments.search.state import State
from fer_experiments.search.trials import Trial
from fer_experiments.tracking import IMAGES, OPENED, artifact_json, artifact_table, openings, this_process


def test_epochs_are_series_from_their_first_epoch(store):
    from mlflow import MlflowClient

    epochs = pd.RangeIndex(3, 403, name="epoch")
    columns = ["train/loss", "train/accuracy", "val/loss", "val/accuracy", "learning_rate"]
    history = pd.DataFrame(np.random.default_rng(0).random((400, 5)), epochs, columns)
    history.loc[402, "train/loss"] = np.inf
    with start(store) as run:
        run.log_epochs(history)
    client = MlflowClient(store.uri)
    series = client.get_metric_history(run.id, "val/loss")
    assert [(m.step, m.value) for m in series] == list(history["val/loss"].items())
    assert recorded(store, run.id).data.metrics.keys() == set(columns)
    assert np.isnan(recorded(store, run.id).data.metrics["train/loss"])


def test_an_artifact_that_is_gone_or_cut_is_none(store, capsys):
    with start(store) as run:
        for name, text in (
            ("cut.json", '{"a": [1, '),
            ("none.json", ""),
            ("cut.csv", ""),
            ("short.csv", "id,a\n007,1\n008,2"),
            ("one.csv", "id,a\n007,1\n"),
        ):
            run.log_text(text, name)
        run.log_json({"a": 1}, "whole.json")
    assert artifact_json(store, run.id, "gone.json") is artifact_table(store, run.id, "gone.csv") is None
    assert capsys.readouterr().err == ""
    for name in ("cut.json", "none.json"):
        assert artifact_json(store, run.id, name) is None
        assert capsys.readouterr().err.startswith(f"run {run.id}: {name} cannot be read (")
    for name in ("cut.csv", "short.csv"):
        assert artifact_table(store, run.id, name) is None
        assert capsys.readouterr().err.count("\n") == 1
    assert artifact_json(store, run.id, "whole.json") == {"a": 1}
    table = artifact_table(store, run.id, "one.csv")
    assert table is not None and table["id"].tolist() == ["007"]


def test_the_openings_of_a_test_split_are_those_of_its_images_whatever_was_trained_on(store):
    """An older version told the images at the end of a promotion, which may have been killed."""
    images = IMAGES["test"]
    runs = {}
    for name, tags in {
        "first": {OPENED: "a", images: "x"},
        "other training images": {OPENED: "b", images: "x"},
        "killed": {OPENED: "a"},
        "other test images": {OPENED: "c", images: "y"},
        "not opened": {images: "x"},
    }.items():
        with start(store, kind="promotion", name=name, tags=tags) as run:
            runs[run.id] = name
    assert [runs[run.run_id] for run in openings(store, "b", "x")] == ["first", "other training images"]
    assert [runs[run.run_id] for run in openings(store, "a", "x")] == ["first", "other training images", "killed"]
    assert [runs[run.run_id] for run in openings(store, "a", "")] == ["first", "killed"]


def test_the_last_step_of_a_sweep_shows_what_is_so_now(store):
    """A failed trial that runs again ends after those of higher numbers."""
    sweep = SweepConfig(name="s", space={"head.l2": {"type": "float", "min": 0.1, "max": 1.0}})
    trials = [Trial(number=n, status="finished", score=s, values={"head.l2": s}) for n, s in enumerate((0.9, 0.5, 0.6))]
    state, told = State("s-01234567", "s", {"sweep.direction": "max"}, trials=[*trials]), None
    trials[0].status, trials[0].score = "failed", None
    with start(store, kind="sweep") as run:
        for trial in trials:
            state.order += [trial.number, trial.number]
            told = log_progress(run, state, trial, sweep, told)
        assert told is trials[2]
        trials[0].status, trials[0].score = "finished", 0.9
        told = log_progress(run, state, trials[0], sweep, told)
        found = recorded(store, run.id).data
        assert (found.metrics["sweep/best"], found.tags["fer.best_trial"]) == (0.9, "0")
        trials[0].score = 0.8
        log_progress(run, state, trials[0], sweep, told)
        assert "0.8000" in recorded(store, run.id).data.tags["mlflow.note.content"]
        trials[0].score = 0.1  # run once more, where a store had lost it
        assert log_progress(run, state, trials[0], sweep, told) is trials[2]
    found = recorded(store, run.id).data
    assert (found.metrics["sweep/best"], found.metrics["sweep/objective"], found.tags["fer.best_trial"]) == (
        0.6,
        0.1,
        "2",
    )


def test_artifacts_land_under_their_paths(store, mlruns, tmp_path):
    from matplotlib.figure import Figure

    (tmp_path / "lock.txt").write_text("numpy==2\n")
    with start(store) as run:
        run.log_text("héllo", "config.yaml")
        run.log_json({"n": np.int64(3), "m": np.eye(2), "s": {2, 1}, "p": tmp_path}, "data/cleaning.json")
        run.log_csv(pd.DataFrame({"a": [1]}), "leaderboard.csv")
        run.log_csv(pd.DataFrame({"a": [1]}, index=pd.RangeIndex(1, name="epoch")), "metrics/history.csv")
        run.log_figure(Figure(), "plots/empty.png")
        run.log_file(tmp_path / "lock.txt", "environment/requirements.lock")
        run.describe("| trial | accuracy |")
    there = artifacts(mlruns, run)
    assert (there / "config.yaml").read_text() == "héllo"
    assert json.loads((there / "data/cleaning.json").read_text()) == {
        "n": 3,
        "m": [[1, 0], [0, 1]],
        "s": [1, 2],
        "p": str(tmp_path),
    }
    assert (there / "leaderboard.csv").read_text() == "a\n1\n"
    assert (there / "metrics/history.csv").read_text() == "epoch,a\n0,1\n"
    assert (there / "plots/empty.png").read_bytes().startswith(b"\x89PNG")
    assert (there / "environment/requirements.lock").read_text() == "numpy==2\n"
    assert recorded(store, run.id).data.tags["mlflow.note.content"] == "| trial | accuracy |"


def test_both_splits_are_inputs_of_the_run(store):
    dataset = SimpleNamespace(
        task="binary",
        source="fer2013",
        fingerprint="ab" * 32,
        train=np.arange(8),
        val=np.arange(2),
        counts={"train": {"negative": 5, "happy": 3}, "val": {"negative": 1, "happy": 1}},
    )
    with start(store) as run:
        run.log_dataset(dataset)
    inputs = recorded(store, run.id).inputs.dataset_inputs
    assert {(i.dataset.name, i.tags[0].value) for i in inputs} == {
        ("binary/train", "training"),
        ("binary/val", "validation"),
    }
    assert {i.dataset.digest for i in inputs} == {("ab" * 32)[:36]}
    profiles = {i.dataset.name: json.loads(i.dataset.profile) for i in inputs}
    assert profiles["binary/train"] == {"images": 8, "classes": {"negative": 5, "happy": 3}}


def test_the_environment_is_recorded(store, mlruns, monkeypatch):
    from fer_experiments import environment
    from fer_experiments.config import project_root

    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")  # other roundings
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    with start(store) as run:
        run.log_environment()
    there = artifacts(mlruns, run) / "environment"
    assert json.loads((there / "versions.json").read_text())["numpy"] == np.__version__
    assert json.loads((there / "hardware.json").read_text())["cores"] >= 1
    variables = json.loads((there / "variables.json").read_text())
    assert variables["TF_ENABLE_ONEDNN_OPTS"] == "0" and "NVIDIA_TF32_OVERRIDE" not in variables
    assert (there / "requirements.lock").is_file() == (project_root() / "requirements.lock").is_file()
    with start(store, parent=run.id) as nested:
        nested.log_environment()
    assert not (artifacts(mlruns, nested) / "environment").exists(), "it is that of the run above"
    with start(store, parent=run.id, driver=json.dumps({**json.loads(this_process()), "pid": 1})) as nested:
        nested.log_environment()
    assert [file.name for file in (artifacts(mlruns, nested) / "environment").iterdir()] == ["variables.json"]
    driver = json.dumps({**json.loads(this_process()), "host": "another"})
    with start(store, parent=run.id, driver=driver) as nested:
        nested.log_environment()
    beside = artifacts(mlruns, nested) / "environment"
    assert {file.name for file in there.iterdir()} - {file.name for file in beside.iterdir()} == {"requirements.lock"}
    assert (there / "git.diff").is_file() == bool(environment.git_state(project_root()).dirty)


def test_system_metrics_are_sampled_while_a_trial_is_open(store, monkeypatch):
    from fer_experiments.tracking import lifecycle

    monkeypatch.setitem(lifecycle.SAMPLING_S, "trial", 0.1)
    with start(store, kind="trial", system_metrics=True) as run:
        while "system/cpu_utilization_percentage" not in recorded(store, run.id).data.metrics:
            time.sleep(0.1)


def test_head_is_loaded_from_the_run(store):
    import keras
    import mlflow

    spatial, pooled = keras.Input((3, 3, 32), name="block17"), keras.Input((16,), name="pooled")
    flat = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(spatial), pooled])
    head = keras.Model([spatial, pooled], keras.layers.Dense(1, activation="sigmoid")(flat))
    head.compile("adam", "binary_crossentropy")
    random = np.random.default_rng(0)
    features = [random.random((8, 3, 3, 32)).astype("float16"), random.random((8, 16)).astype("float16")]
    with start(store) as run:
        run.log_head(head)
    mlflow.set_tracking_uri(store.uri)
    loaded = mlflow.keras.load_model(f"runs:/{run.id}/model")
    expected = head.predict(features, verbose=0)
    np.testing.assert_array_equal(loaded.predict(features, verbose=0), expected)
    served = mlflow.pyfunc.load_model(f"runs:/{run.id}/model")
    np.testing.assert_allclose(served.predict({"block17": features[0], "pooled": features[1]}), expected, atol=1e-6)
    with pytest.raises(mlflow.MlflowException):
        served.predict({"block17": features[0]})


def test_mlflow_is_calm_and_sends_nothing():
    import os

    import mlflow  # noqa: F401

    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert not logging.getLogger("mlflow.store.db.utils").isEnabledFor(logging.INFO)
