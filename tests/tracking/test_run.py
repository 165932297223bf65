import json
import logging
import multiprocessing
import pickle
import shutil
import socket
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from stores import config_in

from fer_experiments import tracking
from fer_experiments.errors import UserError
from fer_experiments.tracking import Store
from fer_experiments.tracking import store as store_module
from fer_experiments.tracking.queries import every

EXPERIMENT = "fer/test"
# Its processes inherit an imported MLflow, which otherwise takes each of them seconds.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store"])


@pytest.fixture(scope="session")
def raced(tmp_path_factory):
    """A fresh store that four processes have used at once, beside what a killed creation left behind."""
    mlruns = tmp_path_factory.mktemp("raced") / "new folder" / "mlruns"
    mlruns.mkdir(parents=True)
    (mlruns / "mlflow.db.new").write_bytes(b"half of a database")
    (mlruns / "mlflow.db.new-journal").write_bytes(b"its journal")
    with ProcessPoolExecutor(4, mp_context=FORKSERVER) as pool:
        stores = list(pool.map(tracking.connect, [config_in(mlruns)] * 4))
        shutil.copy(mlruns / "mlflow.db", mlruns.parent)  # migrated and empty: migrations take seconds
        runs = list(pool.map(one_run, stores))
    return mlruns, stores, runs


@pytest.fixture
def mlruns(tmp_path, raced):
    folder = tmp_path / "mlruns"
    folder.mkdir()
    shutil.copy(raced[0].parent / "mlflow.db", folder)
    return folder


@pytest.fixture
def store(mlruns):
    return tracking.connect(config_in(mlruns))


def start(store, **changes):
    return tracking.start_run(store, **({"kind": "train", "name": "run", "system_metrics": False} | changes))


def recorded(store, run_id):
    from mlflow import MlflowClient

    return MlflowClient(store.uri).get_run(run_id)


def artifacts(mlruns, run):
    return mlruns / "artifacts" / EXPERIMENT / run.id / "artifacts"


# The store


def test_four_processes_may_use_a_fresh_store_at_once(raced):
    mlruns, stores, runs = raced
    assert {store.uri for store in stores} == {f"sqlite:///{mlruns}/mlflow.db"}
    found = tracking.find_runs(stores[0])
    assert {r.run_id for r in found} == set(runs)
    assert {r.status for r in found} == {"FINISHED"}


def test_a_database_left_half_made_is_made_again(raced):
    assert not list(raced[0].glob("mlflow.db.new*"))


def one_run(store):
    with start(store) as run:
        return run.id


def test_connecting_twice_keeps_what_is_recorded(store, mlruns):
    run_id = one_run(store)
    assert tracking.connect(config_in(mlruns)) == store
    assert [r.run_id for r in tracking.find_runs(store)] == [run_id]
    assert "1 runs" in tracking.describe(config_in(mlruns))  # MLflow would keep a file open that was replaced


def test_a_relative_uri_does_not_follow_the_working_folder(tmp_path, mlruns, monkeypatch):
    monkeypatch.chdir(mlruns)
    store = tracking.connect(config_in(mlruns, "sqlite:///mlflow.db"))
    monkeypatch.chdir(tmp_path)
    one_run(store)
    assert store.uri == f"sqlite:///{mlruns}/mlflow.db"
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("uri", ["postgresql://user@host/mlflow", "databricks://profile"])
def test_other_stores_are_passed_through(uri, tmp_path):
    assert tracking.connect(config_in(tmp_path, uri)).uri == uri


def test_mlruns_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "mlruns").write_text("")
    with pytest.raises(UserError, match=r"mlruns: cannot be written \(File exists\); .*paths\.mlruns="):
        tracking.connect(config_in(tmp_path / "mlruns"))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that even root cannot write: Linux's /proc")
def test_read_only_mlruns_is_refused():
    with pytest.raises(UserError, match=r"^/proc/\d+: cannot be written \([^\n]+\); [^\n]+$"):
        tracking.connect(config_in(Path("/proc/self")))


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at" * 50)
    with pytest.raises(UserError, match=r"mlflow\.db: is no SQLite database \(file is not a database\); move it away"):
        tracking.connect(config_in(tmp_path))


def test_a_store_of_another_mlflow_is_refused_with_the_remedy(mlruns):
    import sqlite3

    with sqlite3.connect(mlruns / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(UserError, match=r"another version of MLflow made it; .*mlflow db upgrade sqlite:///"):
        tracking.connect(config_in(mlruns))


def test_what_mlflow_stumbles_over_is_named_as_what_it_is(mlruns, monkeypatch):
    def stumble(store):
        raise DeprecationWarning("an option\nand more")

    monkeypatch.setattr(store_module, "client_of", stumble)
    with pytest.raises(UserError, match=r"mlflow\.db: MLflow cannot open it \(DeprecationWarning: an option\)$"):
        tracking.connect(config_in(mlruns))


def test_a_database_in_use_is_named_as_that(mlruns, monkeypatch):
    import sqlite3
    from contextlib import closing

    connection = store_module.sqlite.connection
    monkeypatch.setattr(store_module.sqlite, "WAIT_S", 0.01)
    with closing(sqlite3.connect(mlruns / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match=r"mlflow\.db: is in use by another process \(database is locked\)"):
            tracking.connect(config_in(mlruns))
    with connection(mlruns / "mlflow.db") as opened:
        assert opened.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_does_not_answer_is_asked_once(tmp_path):
    """MLflow's own retries take minutes."""
    asked = []

    def hang_up():
        with suppress(OSError):
            while True:
                asked.append(listener.accept()[0])
                asked[-1].close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=hang_up, daemon=True).start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"tracking\.uri={address}: no server answers"):
            tracking.connect(config_in(tmp_path, address))
        assert len(asked) == 1


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns"])
def test_a_folder_is_no_store(uri, tmp_path):
    with pytest.raises(UserError, match="not a store"):
        tracking.connect(config_in(tmp_path, uri))


def test_a_store_is_described_without_being_created(mlruns, store, tmp_path):
    one_run(store)
    assert tracking.describe(config_in(mlruns)) == f"{store.uri}: 2 experiments, 1 runs"  # MLflow makes a first itself
    assert "not there yet" in tracking.describe(config_in(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


# How a run ends


def test_a_finished_run_has_its_tags_and_params(store, mlruns):
    config = {
        "head": {"l2": 1e-5, "dense_widths": [128, 64], "normalize": False},
        "backbone": {"weights": None, "name": "pocket"},
        "data": {"classes": {"négative (all)": ["angry", "fear"]}, "long": "x" * 9000},
    }
    with start(store, config=config, kind="trial", name="trial 3", tags={"fer.trial_number": 3}) as run:
        assert recorded(store, run.id).info.status == "RUNNING"
    got = recorded(store, run.id)
    assert (got.info.status, got.info.run_name) == ("FINISHED", "trial 3")
    assert got.data.params.pop("data.long") == "x" * 6000
    assert got.data.params == {
        "head.l2": "1e-05",
        "head.dense_widths": "[128, 64]",
        "head.normalize": "false",
        "backbone.weights": "null",
        "backbone.name": "pocket",
        "data.classes": '{"négative (all)": ["angry", "fear"]}',
    }
    assert got.data.tags["fer.kind"] == "trial"
    assert got.data.tags["fer.trial_number"] == "3"
    assert got.info.artifact_uri == artifacts(mlruns, run).as_uri()


def test_a_trial_that_raises_is_failed_with_its_reason(store, mlruns):
    with pytest.raises(ValueError), start(store) as run:
        raise ValueError("the loss is nan\nand more")
    got = recorded(store, run.id)
    assert got.info.status == "FAILED"
    assert got.data.tags["fer.error"] == "ValueError: the loss is nan"
    assert "Traceback" in (artifacts(mlruns, run) / "error.txt").read_text()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_is_killed(interruption, store):
    with pytest.raises(interruption), start(store) as run:
        raise interruption
    assert recorded(store, run.id).info.status == "KILLED"


def hold_a_trial_open(store, opened):
    with (
        start(store, kind="sweep") as parent,
        start(store, kind="trial", parent=parent.id, system_metrics=True),
    ):
        opened.set()
        threading.Event().wait()


def test_sigterm_closes_a_trial_and_its_parent(store):
    opened = FORKSERVER.Event()
    process = FORKSERVER.Process(target=hold_a_trial_open, args=(store, opened))
    process.start()
    opened.wait()
    process.terminate()
    process.join()
    assert process.exitcode == 128 + 15
    assert [r.status for r in tracking.find_runs(store)] == ["KILLED", "KILLED"]


def test_sigterm_is_left_as_it_was(store):
    import signal

    before = signal.getsignal(signal.SIGTERM)
    one_run(store)
    assert signal.getsignal(signal.SIGTERM) is before


# Parents and trials


def test_a_trial_is_nested_under_a_parent_open_in_the_same_process(store):
    with start(store, kind="sweep") as parent:
        with start(store, kind="trial", parent=parent.id, tags={"fer.sweep_id": "s1"}) as child:
            child.log_metrics({"final/val_accuracy": 0.9})
        parent.log_metrics({"best": 0.9})
    assert recorded(store, child.id).data.tags["mlflow.parentRunId"] == parent.id
    assert recorded(store, child.id).data.metrics == {"final/val_accuracy": 0.9}
    assert recorded(store, parent.id).data.metrics == {"best": 0.9}


def test_a_parent_is_resumed_as_the_same_run(store):
    with pytest.raises(KeyboardInterrupt), start(store, config={"sweep": {"max_trials": 4}}) as first:
        raise KeyboardInterrupt
    config = {"sweep": {"max_trials": 8, "seed": 1}}
    with start(store, config=config, resume=first.id, tags={"fer.note": "resumed"}) as again:
        assert recorded(store, first.id).info.status == "RUNNING"
    got = recorded(store, first.id)
    assert again.id == first.id
    assert got.info.status == "FINISHED"
    assert got.data.params == {"sweep.max_trials": "4", "sweep.seed": "1"}
    assert got.data.tags["fer.note"] == "resumed"


def test_the_error_of_a_failed_run_goes_when_it_is_resumed(store):
    with pytest.raises(ValueError), start(store) as run:
        raise ValueError("disk full")
    with start(store, resume=run.id):
        pass
    assert "fer.error" not in recorded(store, run.id).data.tags


@pytest.mark.parametrize("run_id", ["0" * 32, "deleted"])
def test_a_run_that_is_gone_cannot_be_resumed(run_id, store):
    if run_id == "deleted":
        from mlflow import MlflowClient

        run_id = one_run(store)
        MlflowClient(store.uri).delete_run(run_id)
    with pytest.raises(UserError, match=r"cannot be resumed.*sweep\.fresh=true"), start(store, resume=run_id):
        pass


def test_a_deleted_experiment_is_not_written_to(store):
    from mlflow import MlflowClient

    one_run(store)
    client = MlflowClient(store.uri)
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    with pytest.raises(UserError, match="experiments restore"), start(store):
        pass


def test_runs_are_found_by_their_tags_oldest_first(store):
    for number, sweep in enumerate(["a", "b", "a"]):
        with start(store, name=f"n{number}", tags={"fer.sweep_id": sweep}):
            pass
    assert [r.name for r in tracking.find_runs(store, {"fer.sweep_id": "a"})] == ["n0", "n2"]
    assert len(tracking.find_runs(store)) == 3
    assert tracking.find_runs(store.of("none")) == []


def test_what_mlflow_gives_page_by_page_is_found_whole(store):
    runs = [one_run(store) for _ in range(3)]
    client = store_module.client_of(store)
    ids = [client.get_experiment_by_name(EXPERIMENT).experiment_id]
    found = every(client.search_runs, ids, order_by=["start_time ASC"], max_results=1)
    assert [run.info.run_id for run in found] == runs


def test_a_run_is_found_by_its_id(store):
    run_id = one_run(store)
    found = tracking.find_run(store.of("other"), run_id)
    assert found is not None and (found.run_id, found.status) == (run_id, "FINISHED")
    assert found.started <= found.ended
    assert tracking.find_run(store, "0" * 32) is None
    assert tracking.find_run(store, "no id") is None


def test_the_store_of_a_worker_is_the_same_and_shows_no_password(store):
    assert pickle.loads(pickle.dumps(store)) == store
    assert str(Store("postgresql://me:secret@host/db", store.mlruns, EXPERIMENT)) == "postgresql://me:***@host/db"


# What goes on a run


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
