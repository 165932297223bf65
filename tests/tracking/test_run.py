"""How a run ends, and how runs belong together and are found."""

import pickle
import threading

import pytest
from small_runs import EXPERIMENT, FORKSERVER, artifacts, one_run, recorded, start

from fer_experiments import tracking
from fer_experiments.errors import UserError
from fer_experiments.tracking import Store
from fer_experiments.tracking import store as store_module
from fer_experiments.tracking.queries import every

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


def test_a_signal_of_which_a_library_made_an_error_has_failed_no_run(store):
    import os
    import signal

    before = signal.signal(
        signal.SIGTERM, signal.SIG_DFL
    )  # another test's Ray has its own in this process, which ends it
    try:
        with pytest.raises(SystemExit) as ended, start(store) as run:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except SystemExit:
                raise RuntimeError("in a callback that may raise errors alone") from None
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    assert ended.value.code == 143
    assert recorded(store, run.id).info.status == "KILLED"


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
    run.set_tags({"fer.ended_by": "sweep.max_trials=10"})
    with start(store, resume=run.id):
        pass
    assert not {"fer.error", "fer.ended_by"} & recorded(store, run.id).data.tags.keys()


@pytest.mark.parametrize("run_id", ["0" * 32, "deleted"])
def test_a_run_that_is_gone_cannot_be_resumed(run_id, store):
    if run_id == "deleted":
        from mlflow import MlflowClient

        run_id = one_run(store)
        MlflowClient(store.uri).delete_run(run_id)
    with pytest.raises(UserError, match=r"cannot be resumed.*sweep\.fresh=true"), start(store, resume=run_id):
        pass


@pytest.mark.parametrize("resumed", [False, True])
def test_a_deleted_experiment_is_not_written_to(store, resumed):
    from mlflow import MlflowClient

    run_id = one_run(store)
    client = MlflowClient(store.uri)
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    with pytest.raises(UserError, match="experiments restore"), start(store, resume=run_id if resumed else None):
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
