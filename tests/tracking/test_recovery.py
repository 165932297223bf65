"""What a process that died left behind, in a real store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from small_runs import dead_process
from stores import config_in

from fer_experiments import tracking
from fer_experiments.tracking import Store

CODE = """
import sys, time
from pathlib import Path
from fer_experiments import tracking
store = tracking.Store(sys.argv[1], Path(sys.argv[2]), "fer/test", system_metrics=False)
tags = {"fer.sweep_id": "s", "fer.trial_number": "0"}
with tracking.start_run(store, "trial", "of another process", tags=tags) as run:
    print(run.id, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tracking.connect(config_in(tmp_path_factory.mktemp("recovery") / "mlruns"))


def other(store: Store) -> tuple[subprocess.Popen[str], str]:
    """A process in the middle of a run, and the run's id."""
    command = [sys.executable, "-c", CODE, store.uri, str(store.mlruns)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def found(store: Store, run_id: str) -> tracking.FoundRun:
    return next(run for run in tracking.find_runs(store) if run.run_id == run_id)


def status(store: Store, run_id: str) -> str:
    return found(store, run_id).status


def start(store: Store, **given: object) -> object:
    return tracking.start_run(store, "trial", "own", system_metrics=False, **given)  # type: ignore[arg-type]


def test_only_the_runs_of_dead_processes_are_closed(store: Store):
    process, run_id = other(store)
    with process, start(store) as own:  # type: ignore[attr-defined]
        assert tracking.close_orphans(store) == []
        assert status(store, run_id) == "RUNNING"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [run.run_id for run in tracking.close_orphans(store)] == [run_id]
        assert status(store, run_id) == "KILLED"
        assert found(store, run_id).tags["fer.error"] == "its process died"
        assert status(store, own.id) == "RUNNING"
        process.stdout and process.stdout.close()
    assert status(store, own.id) == "FINISHED"


def test_a_run_on_another_machine_is_closed_only_when_its_driver_here_is_dead(store: Store):
    elsewhere = json.dumps({**json.loads(tracking.this_process()), "host": "elsewhere"})
    dead = dead_process()
    with start(store) as live, start(store) as lost:  # type: ignore[attr-defined]
        live.set_tags({"fer.process": elsewhere})
        lost.set_tags({"fer.process": elsewhere, "fer.driver": dead})
        assert [run.run_id for run in tracking.close_orphans(store)] == [lost.id]
    # lost was closed from outside and then by its own process: the last word is the process' own


def test_a_trial_that_ended_unheard_is_found_with_its_record(store: Store):
    tags = {"fer.sweep_id": "heard", "fer.trial_number": "4"}
    record = {"score": 0.1 + 0.2, "status": "finished", "metrics": {"final/val_accuracy": 1 / 3}}
    assert tracking.ended_trial(store, "heard", 4) is None
    with start(store, tags=tags) as run:  # type: ignore[attr-defined]
        run.log_json(record, tracking.RECORD)
        assert tracking.ended_trial(store, "heard", 4) is None
    assert tracking.ended_trial(store, "heard", 4) == record
    assert tracking.ended_trial(store, "heard", 5) is None


def test_a_trial_that_failed_unheard_is_found_with_its_reason(store: Store):
    tags = {"fer.sweep_id": "heard", "fer.trial_number": "6"}
    with pytest.raises(ValueError), start(store, tags=tags):  # type: ignore[attr-defined]
        raise ValueError("no such luck")
    ended = tracking.ended_trial(store, "heard", 6)
    assert ended is not None and (ended["status"], ended["error"]) == ("failed", "ValueError: no such luck")


def test_a_trial_that_failed_and_was_run_again_has_the_record_of_its_second_run(store: Store):
    tags = {"fer.sweep_id": "heard", "fer.trial_number": "8"}
    with pytest.raises(ValueError), start(store, tags=tags):  # type: ignore[attr-defined]
        raise ValueError("no such luck")
    with start(store, tags=tags) as run:  # type: ignore[attr-defined]
        run.log_json({"score": 0.5}, tracking.RECORD)
    assert tracking.ended_trial(store, "heard", 8) == {"score": 0.5}


def test_a_trial_that_failed_and_is_run_again_has_not_ended_yet(store: Store):
    tags = {"fer.sweep_id": "heard", "fer.trial_number": "9"}
    with pytest.raises(ValueError), start(store, tags=tags):  # type: ignore[attr-defined]
        raise ValueError("no such luck")
    with start(store, tags=tags):  # type: ignore[attr-defined]
        assert tracking.ended_trial(store, "heard", 9) is None


def test_a_killed_trial_is_not_taken_for_an_ended_one(store: Store):
    tags = {"fer.sweep_id": "heard", "fer.trial_number": "7"}
    with pytest.raises(KeyboardInterrupt), start(store, tags=tags):  # type: ignore[attr-defined]
        raise KeyboardInterrupt
    assert tracking.ended_trial(store, "heard", 7) is None


def test_runs_are_closed_by_their_tags(store: Store):
    with start(store, tags={"fer.sweep_id": "a"}) as ended:  # type: ignore[attr-defined]
        pass
    with start(store, tags={"fer.sweep_id": "a"}) as one, start(store, tags={"fer.sweep_id": "b"}) as two:  # type: ignore[attr-defined]
        tracking.close_runs(store, {"fer.sweep_id": "a"}, "KILLED", "the sweep was stopped")
        assert [status(store, run.id) for run in (ended, one, two)] == ["FINISHED", "KILLED", "RUNNING"]
        assert "fer.error" not in found(store, ended.id).tags
        assert found(store, one.id).tags["fer.error"] == "the sweep was stopped"
