"""Trials of a sweep that come to nothing."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from small_sweeps import SMALL, quick, run, runs_of, with_space

from fer_experiments.config import mlruns_dir
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.executors.calls import Lost
from fer_experiments.executors.inline import Inline
from fer_experiments.search.sweep import run_sweep
from fer_experiments.search.trial import run_trial


def test_three_failures_in_a_row_stop_the_sweep_and_are_recorded(paths: list[str], tmp_path: Path):
    sweep = tmp_path / "broken.yaml"
    sweep.write_text(
        "defaults:\n  - override /data: demo\n  - override /backbone: pocket\n  - override /head: pooled\n"
        "sweep:\n  max_trials: 9\n  space:\n"
        "    training.learning_rate: {type: float, min: 1.0e37, max: 1.0e38}\n"
    )
    config = compose([f"sweep={sweep}", *SMALL, *paths])
    with pytest.raises(
        UserError, match=r"3 trials failed in a row \(0, 1, 2\), the last with the loss is not a number"
    ):
        run_sweep(config, lambda line: None)
    failed = [r for r in runs_of(config, kind="trial") if r.status == "FAILED"]
    assert len(failed) == 3 and all("not a number" in r.tags["fer.error"] for r in failed)


def test_what_this_machine_cannot_do_stops_the_sweep_after_three_trials(paths: list[str], tmp_path: Path):
    """A cache that cannot be written is no fault of the values."""
    (tmp_path / "file").write_text("where a folder should be")
    entry = "backbone.layers: {type: choice, values: [[stage2], [stage3], [pool], [stage2, stage3]]}"
    config = with_space(tmp_path, [f"paths.mlruns={tmp_path}/mlruns", f"paths.cache={tmp_path}/file/cache"], entry)
    with pytest.raises(UserError, match=r"3 trials failed in a row \(0, 1, 2\), the last with .*cannot be written"):
        run(config)


def test_failed_trials_are_run_again_when_asked_to(paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Under their numbers, in the same sweep; its oracle goes on as it did."""
    from fer_experiments.search import trial as room

    real = room._fit_and_record

    def passing_fault(prepared: Any, job: Any, *rest: Any) -> None:
        if job.number in (0, 2):
            with room._open_run(job, prepared.tags):
                raise MemoryError("passing")
        real(prepared, job, *rest)

    folder = [f"paths.mlruns={tmp_path}/mlruns", paths[1]]
    monkeypatch.setattr(room, "_fit_and_record", passing_fault)
    first, _ = run(quick(folder, "sweep.max_trials=3"))
    assert [t.status for t in first.trials] == ["failed", "finished", "failed"]
    assert first.trials[0].error == "MemoryError: passing"
    monkeypatch.undo()
    shown, said = run(quick(folder, "sweep.max_trials=3"))
    assert shown.trials == first.trials and any("is finished" in line for line in said)
    again, said = run(quick(folder, "sweep.max_trials=3", "sweep.retry_failed=true"))
    assert (again.id, again.run_id) == (first.id, first.run_id)
    assert [t.status for t in again.trials] == ["finished"] * 3 and again.order == first.order
    assert [t.values for t in again.trials] == [t.values for t in first.trials]
    assert not again.trials[0].error
    more, _ = run(quick(folder, "sweep.max_trials=4"))
    assert more.trials[:3] == again.trials and more.trials[3].status == "finished"
    statuses = sorted(r.tags["fer.trial_number"] + " " + r.status for r in runs_of(quick(folder), kind="trial"))
    assert statuses == ["0 FAILED", "0 FINISHED", "1 FINISHED", "2 FAILED", "2 FINISHED", "3 FINISHED"]


class DyingOnce(Inline):
    """A worker that dies of the first trial that it is given, before its run is opened."""

    def __init__(self) -> None:
        self.died = False

    def submit(self, call: Any, /, *args: Any) -> Future[Any]:
        if call is run_trial and not self.died:
            self.died = True
            future: Future[Any] = Future()
            future.set_exception(Lost("worker process 1 was killed by SIGKILL"))
            return future
        return super().submit(call, *args)


def failing(numbers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of these numbers fail in their runs."""
    from fer_experiments.search import trial as room

    real = room._fit_and_record

    def passing_fault(prepared: Any, job: Any, *rest: Any) -> None:
        if job.number in numbers:
            with room._open_run(job, prepared.tags):
                raise MemoryError("passing")
        real(prepared, job, *rest)

    monkeypatch.setattr(room, "_fit_and_record", passing_fault)


def test_a_worker_that_dies_of_a_failed_trial_that_is_run_again_gives_it_back(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is on record of it is how it failed before."""
    folder = [f"paths.mlruns={tmp_path}/mlruns", paths[1]]
    failing((0,), monkeypatch)
    first, _ = run(quick(folder))
    assert [t.status for t in first.trials] == ["failed", "finished"]
    monkeypatch.undo()
    monkeypatch.setattr("fer_experiments.search.sweep.open_executor", lambda compute, echo: nullcontext(DyingOnce()))
    again, said = run(quick(folder, "sweep.retry_failed=true"))
    assert "trial 0: worker process 1 was killed by SIGKILL; it is given to another worker" in said
    assert [t.status for t in again.trials] == ["finished", "finished"]


@pytest.mark.parametrize("retry", [False, True])
def test_failures_that_were_in_flight_do_not_end_the_sweep_again(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retry: bool
):
    """Three of six at once ended it, and the others failed of the same cause, which is mended since."""

    class Six(Inline):
        slots = 6

    folder = [f"paths.mlruns={tmp_path}/mlruns", paths[1]]
    failing((0, 1, 2, 3, 4, 5), monkeypatch)
    monkeypatch.setattr("fer_experiments.search.sweep.open_executor", lambda compute, echo: nullcontext(Six()))
    with pytest.raises(UserError, match=r"3 trials failed in a row \(0, 1, 2\)"):
        run(quick(folder, "sweep.max_trials=7"))
    monkeypatch.undo()
    state, _ = run(quick(folder, "sweep.max_trials=7", *(["sweep.retry_failed=true"] if retry else [])))
    assert [t.status for t in state.trials] == ["finished" if retry else "failed"] * 6 + ["finished"]


def test_a_failure_never_answers_a_twin(paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from fer_experiments.search import trial as room

    real = room._fit_and_record

    def passing_fault(prepared: Any, job: Any, *rest: Any) -> None:
        if job.number == 0:
            raise MemoryError("passing")
        real(prepared, job, *rest)

    monkeypatch.setattr(room, "_fit_and_record", passing_fault)
    config = with_space(tmp_path, paths, "head.l2: {type: choice, values: [0, 0.0, 1.0e-2]}", "sweep.seed=77")
    state, _ = run(config)
    assert [t.status for t in state.trials] == ["failed", "finished", "finished"]


def test_a_failed_trial_has_its_reason_and_traceback_and_the_sweep_goes_on(paths: list[str], tmp_path: Path):
    from mlflow import MlflowClient

    config = with_space(tmp_path, paths, "training.learning_rate: {type: choice, values: [1.0e-3, 1.0e+38, 1.0e-2]}")
    state, said = run(config)
    assert [t.status for t in state.trials] == ["finished", "failed", "finished"]
    assert any(line.startswith("trial 1: FAILED: the loss is not a number") for line in said)
    client = MlflowClient(f"sqlite:///{mlruns_dir(config) / 'mlflow.db'}")
    failed = client.get_run(state.trials[1].run_id)
    assert failed.info.status == "FAILED" and "not a number" in failed.data.tags["fer.error"]
    assert "Traceback" in Path(client.download_artifacts(failed.info.run_id, "error.txt", str(tmp_path))).read_text()
    assert state.reason == "the grid oracle, which has nothing more to try"
