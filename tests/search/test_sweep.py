"""Whole sweeps on demo faces with the pocket backbone, a real store and real oracles."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from forked import Command
from forked import run as fer
from stores import store_in

from fer_experiments.backbones.weights import POCKET_WEIGHTS
from fer_experiments.config import Config, mlruns_dir
from fer_experiments.config.compose import compose
from fer_experiments.data import dataset as data_room
from fer_experiments.data import open_test_split
from fer_experiments.errors import UserError
from fer_experiments.executors.inline import Inline
from fer_experiments.search.space import ORACLES
from fer_experiments.search.state import State, load_state
from fer_experiments.search.sweep import run_sweep
from fer_experiments.tracking import find_runs

SMALL = ["data.limit=60", "data.demo_size=600", "training.epochs=2", "tracking.system_metrics=false"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that keep what the tests record and compute in a folder of their own."""
    folder = tmp_path_factory.mktemp("sweeps")
    return [f"paths.mlruns={folder / 'mlruns'}", f"paths.cache={folder / 'cache'}"]


def quick(paths: list[str], *overrides: str) -> Config:
    return compose(["sweep=quick", *SMALL, "sweep.max_trials=2", *paths, *overrides])


def run(config: Config) -> tuple[State, list[str]]:
    said: list[str] = []
    return run_sweep(config, said.append), said


def folder_of(config: Config, state: State) -> Path:
    return mlruns_dir(config) / "sweeps" / state.id


@pytest.fixture(scope="module")
def finished(paths: list[str]) -> tuple[Config, State, list[str]]:
    config = quick(paths)
    return (config, *run(config))


def runs_of(config: Config, **tags: str) -> list[Any]:
    return find_runs(store_in(mlruns_dir(config)), {f"fer.{k}": v for k, v in tags.items()})


def test_every_trial_is_a_finished_child_run(finished: tuple[Config, State, list[str]]):
    config, state, _ = finished
    trials = runs_of(config, sweep_id=state.id, kind="trial")
    assert sorted(t.tags["fer.trial_number"] for t in trials) == ["0", "1"]
    assert {t.tags["mlflow.parentRunId"] for t in trials} == {state.run_id}
    assert {t.status for t in trials} == {"FINISHED"}
    for trial in trials:
        record = state.trials[int(trial.tags["fer.trial_number"])]
        assert trial.metrics["final/val_accuracy"] == pytest.approx(record.score)
        assert float(trial.params["head.l2"]) == pytest.approx(record.values["head.l2"])
        assert {"fer.dataset", "fer.backbone", "fer.features"} <= set(trial.tags)


def test_the_parent_run_has_leaderboard_and_best_config(finished: tuple[Config, State, list[str]]):
    from mlflow import MlflowClient

    config, state, _ = finished
    client = MlflowClient(f"sqlite:///{mlruns_dir(config) / 'mlflow.db'}")
    names = {f.path for f in client.list_artifacts(state.run_id)}
    assert {"leaderboard.csv", "leaderboard.md", "best.yaml", "config.yaml"} <= names


def test_the_leaderboard_is_sorted_and_complete(finished: tuple[Config, State, list[str]]):
    config, state, _ = finished
    table = pd.read_csv(folder_of(config, state) / "leaderboard.csv")
    assert table["rank"].tolist() == [1, 2]
    assert table["final/val_accuracy"].is_monotonic_decreasing
    assert set(table["run_id"]) == {t.run_id for t in state.trials}


def test_best_yaml_is_an_experiment_that_train_accepts(finished: tuple[Config, State, list[str]]):
    config, state, _ = finished
    best = compose([f"experiment={folder_of(config, state) / 'best.yaml'}"])
    first = max(state.trials, key=lambda t: t.score)
    assert best.head.dense_widths == first.values["head.dense_widths"]
    assert (best.data, best.backbone) == (config.data, config.backbone)


def test_it_ends_with_the_leaderboard_and_the_next_commands(finished: tuple[Config, State, list[str]]):
    _, state, said = finished
    assert "| rank | trial | final/val_accuracy |" in said[-1]
    assert f"sweep {state.id}: 2 trials, best {max(state.trials, key=lambda t: t.score).number}: final" in said[-1]
    assert "95 % interval" in said[-1]
    assert "fer ui paths.mlruns=" in said[-1] and "best.yaml" in said[-1]


def test_a_finished_sweep_is_shown_and_not_run_again(finished: tuple[Config, State, list[str]]):
    config, state, _ = finished
    again, said = run(config)
    assert again.trials == state.trials
    assert any("is finished" in line for line in said)
    assert any("no image forwarded" in line for line in said)


def test_a_raised_budget_goes_on_in_the_same_parent(finished: tuple[Config, State, list[str]], paths: list[str]):
    _, state, _ = finished
    more, _ = run(quick(paths, "sweep.max_trials=3"))
    assert (more.id, more.run_id, len(more.trials)) == (state.id, state.run_id, 3)
    assert more.trials[:2] == state.trials
    shown, said = run(quick(paths))  # the smaller budget again
    assert shown.trials == more.trials and any("is finished: 3 trials" in line for line in said)


def test_fresh_starts_anew_whatever_became_of_the_old_state(
    finished: tuple[Config, State, list[str]], paths: list[str]
):
    config, state, _ = finished
    file = folder_of(config, state) / "state.json"
    kept = file.read_bytes()
    file.write_bytes(kept[:-9])
    with pytest.raises(UserError, match=r"state\.json: not a sweep's state .*sweep\.fresh=true"):
        run(quick(paths))
    fresh, _ = run(quick(paths, "sweep.fresh=true", "sweep.max_trials=1"))
    file.write_bytes(kept)
    assert fresh.id == f"{state.id}-2" and fresh.run_id != state.run_id


def test_a_changed_base_config_is_another_sweep_that_says_what_differs(
    finished: tuple[Config, State, list[str]], paths: list[str]
):
    _, state, _ = finished
    other, said = run(quick(paths, "training.batch_size=30", "sweep.max_trials=1"))
    assert other.id != state.id
    assert any("a new one" in line and "differs in training.batch_size" in line for line in said)


def test_a_sweep_stopped_between_trials_resumes_to_the_same_leaderboard(paths: list[str], tmp_path: Path):
    config = quick(paths, "sweep.seed=5", "sweep.max_trials=3", "training.deterministic=true")
    whole, _ = run(config)
    elsewhere = replace(config, paths=replace(config.paths, mlruns=str(tmp_path / "mlruns")))
    stop_after = 1

    def stopping(line: str) -> None:
        if line.startswith(f"trial {stop_after}:"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(elsewhere, stopping)
    stopped = load_state(tmp_path / "mlruns" / "sweeps" / whole.id)
    assert stopped is not None and len(stopped.trials) < 3
    resumed, said = run(elsewhere)
    assert any("going on after" in line for line in said)
    assert [(t.values, t.score) for t in resumed.trials] == [(t.values, t.score) for t in whole.trials]


@pytest.mark.parametrize("oracle", [name for name in ORACLES if name != "random"])
def test_the_other_oracles_run(paths: list[str], oracle: str):
    state, _ = run(quick(paths, f"sweep.oracle={oracle}", "sweep.max_epochs=2", "sweep.factor=2"))
    assert state.status == "finished" and len(state.trials) == 2
    assert all(t.status == "finished" for t in state.trials)


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


MIXED = """\
defaults:
  - override /data: demo
  - override /backbone: pocket
  - override /head: linear
sweep:
  oracle: grid
  max_trials: null
  space:
    backbone.layers: {type: choice, values: [[stage2], [stage3]]}
    backbone.pooling: {type: choice, values: [none, avg]}
    head: {type: choice, values: [conv, linear]}
    head.filters: {type: choice, values: [[8], [4, 4]], when: {head: conv}}
"""


@pytest.fixture(scope="module")
def mixed(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, State, list[str]]:
    """A grid over cut layers, pooling and heads: two of four feature sets suit no convolutional head."""
    file = tmp_path_factory.mktemp("mixed") / "mixed.yaml"
    file.write_text(MIXED)
    config = compose([f"sweep={file}", *SMALL, *paths, "training.deterministic=true"])
    return (config, *run(config))


def test_each_trial_is_fitted_on_the_features_that_it_records(mixed: tuple[Config, State, list[str]]):
    config, state, said = mixed
    made: dict[tuple[str, str], set[str]] = {}
    for trial in runs_of(config, sweep_id=state.id, kind="trial"):
        if trial.status == "FINISHED":
            combination = (trial.params["backbone.layers"], trial.params["backbone.pooling"])
            made.setdefault(combination, set()).add(trial.tags["fer.features"])
    assert len(made) == 4 and all(len(fingerprints) == 1 for fingerprints in made.values())
    assert len(set.union(*made.values())) == 4
    extracted = [line for line in said if "images through pocket" in line or "no image forwarded" in line]
    assert len(extracted) == 4  # each set once, though several trials stand on it
    finished = [t for t in state.trials if t.status == "finished"]
    scores = {(str(t.values["backbone.layers"]), t.values["backbone.pooling"]): t.metrics for t in finished
              if t.values["head"] == "linear"}  # fmt: skip
    losses = {combination: metrics["final/val_loss"] for combination, metrics in scores.items()}
    assert len(set(losses.values())) > 2  # other features, other results; a mean over a map is the pooled layer's


def test_what_cannot_be_built_fails_as_a_trial_and_stops_no_sweep(mixed: tuple[Config, State, list[str]]):
    config, state, said = mixed
    failed = [t for t in state.trials if t.status == "failed"]
    assert len(failed) == 4 and state.status == "finished"  # more than three in a row would do of another kind
    assert {(t.values["head"], t.values["backbone.pooling"]) for t in failed} == {("conv", "avg")}
    by_id = {r.run_id: r for r in runs_of(config, sweep_id=state.id, kind="trial")}
    assert all(by_id[t.run_id].status == "FAILED" for t in failed)
    assert all("head=conv needs a spatial map" in by_id[t.run_id].tags["fer.error"] for t in failed)
    assert any("FAILED: head=conv needs a spatial map" in line for line in said)


def test_what_this_machine_cannot_do_stops_the_sweep_after_three_trials(paths: list[str], tmp_path: Path):
    """A cache that cannot be written is no fault of the values."""
    (tmp_path / "file").write_text("where a folder should be")
    entry = "backbone.layers: {type: choice, values: [[stage2], [stage3], [pool], [stage2, stage3]]}"
    config = with_space(tmp_path, [f"paths.mlruns={tmp_path}/mlruns", f"paths.cache={tmp_path}/file/cache"], entry)
    with pytest.raises(UserError, match=r"3 trials failed in a row \(0, 1, 2\), the last with .*cannot be written"):
        run(config)


def test_a_key_whose_condition_does_not_hold_is_absent_from_the_record(mixed: tuple[Config, State, list[str]]):
    config, state, said = mixed
    linear = [t for t in state.trials if t.values["head"] == "linear"]
    assert all("head.filters" not in t.values for t in linear)
    assert sorted(t.status for t in linear) == ["finished"] * 4 + ["repeated"] * 4  # two filters, the same trial
    table = pd.read_csv(folder_of(config, state) / "leaderboard.csv")
    assert table.loc[table["head"] == "linear", "head.filters"].isna().all()
    assert "| absent" in said[-1]


def test_the_best_config_alone_gives_its_score_to_the_last_bit(
    mixed: tuple[Config, State, list[str]], paths: list[str]
):
    from fer_experiments.experiment.train import train

    config, state, _ = mixed
    best = state.best()
    assert best is not None
    final = train(compose([f"experiment={folder_of(config, state) / 'best.yaml'}", *paths]), echo=lambda line: None)
    assert {name: final[name] for name in best.metrics} == best.metrics


def test_the_parent_run_shows_what_the_best_trial_had(mixed: tuple[Config, State, list[str]]):
    config, state, _ = mixed
    best = state.best()
    assert best is not None
    (parent,) = runs_of(config, sweep_id=state.id, kind="sweep")
    assert parent.metrics["final/val_accuracy"] == pytest.approx(best.score)
    assert parent.tags["fer.best_trial"] == str(best.number)
    assert parent.tags["fer.best.head"] == best.values["head"]
    assert parent.tags["fer.best.backbone.pooling"] == best.values["backbone.pooling"]
    filters = best.values.get("head.filters")
    assert parent.tags["fer.best.head.filters"] == (json.dumps(filters) if filters else "absent")
    searched = ("backbone.layers", "backbone.pooling", "head.", "training.seed", "sweep.max_trials")
    assert not [name for name in parent.params if name.startswith(searched)]  # of no trial, and of this one least
    assert {"backbone.name", "training.batch_size", "sweep.space"} <= set(parent.params)


def test_trials_of_worker_processes_are_prepared_from_their_own_config(
    mixed: tuple[Config, State, list[str]], tmp_path: Path
):
    config, state, _ = mixed
    elsewhere = replace(
        config,
        paths=replace(config.paths, mlruns=str(tmp_path / "mlruns"), cache=str(tmp_path / "cache")),
        compute=replace(config.compute, name="processes", workers=2),
    )
    other, _ = run(elsewhere)
    assert [(t.values, t.status, t.score) for t in other.trials] == [
        (t.values, t.status, t.score) for t in state.trials
    ]
    tags = [
        {r.tags["fer.trial_number"]: r.tags.get("fer.features") for r in runs_of(c, kind="trial", sweep_id=state.id)}
        for c in (config, elsewhere)
    ]
    assert tags[0] == tags[1]


def test_weights_that_changed_since_the_first_trials_are_refused(paths: list[str], tmp_path: Path):
    weights = tmp_path / "own.npz"
    shutil.copy(POCKET_WEIGHTS, weights)
    entry = f"backbone.weights: {{type: choice, values: ['{weights}', embedded]}}"
    entry += "\n    head.l2: {type: choice, values: [1.0e-3, 1.0e-2]}"
    folder = [f"paths.mlruns={tmp_path}/mlruns", paths[1]]
    first, _ = run(with_space(tmp_path, folder, entry, "sweep.max_trials=1"))
    assert first.trials[0].values == {"backbone.weights": str(weights), "head.l2": 1e-3}
    content = dict(np.load(weights))
    name = next(key for key in content if content[key].ndim == 4)
    np.savez(weights, **(content | {name: content[name] * np.float16(1.5)}))
    with pytest.raises(UserError, match=r"its backbone and features changed since its first trials; bring back"):
        run(with_space(tmp_path, folder, entry, "sweep.max_trials=2"))


def test_balance_touches_training_images_alone_also_of_limited_data(paths: list[str], tmp_path: Path):
    config = with_space(
        tmp_path,
        paths,
        "data.balance: {type: choice, values: [none, undersample, class_weight]}",
        "data.limit=20",
    )
    state, _ = run(config)
    assert [t.status for t in state.trials] == ["finished"] * 3
    runs = {r.tags["fer.trial_number"]: r for r in runs_of(config, sweep_id=state.id, kind="trial")}
    assert [runs[str(n)].params["data.balance"] for n in range(3)] == ["none", "undersample", "class_weight"]
    assert runs["0"].tags["fer.dataset"] != runs["1"].tags["fer.dataset"]
    assert runs["0"].tags["fer.features"] == runs["2"].tags["fer.features"]


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


def test_the_same_config_is_not_run_twice(paths: list[str], tmp_path: Path):
    config = with_space(tmp_path, paths, "head.l2: {type: choice, values: [0, 0.0, 1.0e-3]}")
    state, said = run(config)
    assert [t.status for t in state.trials] == ["finished", "repeated", "finished"]
    assert state.trials[1].score == state.trials[0].score
    assert len(runs_of(config, sweep_id=state.id, kind="trial")) == 2
    assert any("as trial 0 had it, not run again" in line for line in said)


def with_space(tmp_path: Path, paths: list[str], entry: str, *overrides: str) -> Config:
    """A grid over one hyperparameter."""
    file = tmp_path / "one.yaml"
    file.write_text(
        "defaults:\n  - override /data: demo\n  - override /backbone: pocket\n  - override /head: pooled\n"
        f"sweep:\n  oracle: grid\n  max_trials: null\n  space:\n    {entry}\n"
    )
    return compose([f"sweep={file}", *SMALL, *paths, *overrides])


def test_a_target_ends_the_sweep(paths: list[str]):
    state, said = run(quick(paths, "sweep.seed=21", "sweep.max_trials=9", "sweep.target=0.1"))
    assert len(state.trials) == 1 and state.reason is not None and state.reason.startswith("sweep.target=0.1")
    assert any("ended by sweep.target=0.1" in line for line in said)
    more, _ = run(quick(paths, "sweep.seed=21", "sweep.max_trials=2", "sweep.target=0.999"))
    assert (more.id, len(more.trials)) == (state.id, 2)


def test_max_hours_ends_the_sweep_after_the_trial_in_flight(paths: list[str]):
    state, _ = run(quick(paths, "sweep.seed=22", "sweep.max_trials=9", "sweep.max_hours=0.0000001"))
    assert state.reason == "sweep.max_hours=1e-07" and len(state.trials) <= 1


def test_max_trial_minutes_keeps_the_epoch_in_which_time_ran_out(paths: list[str]):
    config = quick(paths, "sweep.seed=23", "sweep.max_trials=1", "sweep.max_trial_minutes=1e-9", "training.epochs=50")
    state, said = run(config)
    trial = state.trials[0]
    assert (trial.status, trial.epochs, trial.out_of_time) == ("finished", 1, True)
    assert any("1 epoch in" in line and "out of time" in line for line in said)
    (child,) = runs_of(config, sweep_id=state.id, kind="trial")
    assert child.tags["fer.out_of_time"] == "sweep.max_trial_minutes=1e-09"


def test_a_hopeless_trial_is_pruned_and_is_never_the_best(paths: list[str]):
    """Six trials with a chance, then one that cannot learn: its rate is next to nothing."""
    rates = "[1.0e-2, 5.0e-3, 4.0e-3, 3.0e-3, 2.0e-3, 1.0e-3, 1.0e-9]"
    folder = Path(paths[0].partition("=")[2]).parent
    config = with_space(
        folder, paths, f"training.learning_rate: {{type: choice, values: {rates}}}",
        "sweep.pruner=median", "training.epochs=8", "training.patience=8", "training.seed=1",
    )  # fmt: skip
    state, said = run(config)
    last = state.trials[-1]
    assert last.status == "pruned" and last.epochs < 8, [(t.status, t.score) for t in state.trials]
    assert any(line.startswith("trial 6:") and "pruned" in line for line in said)
    best = state.best()
    assert best is not None and best.number != 6


def test_all_slots_are_filled_at_once(paths: list[str], monkeypatch: pytest.MonkeyPatch):
    """Three trials are with the executor before the first has ended, though each is asked and recorded by itself."""
    from fer_experiments.search import sweep as room

    class Three(Inline):
        slots = 3
        asked: ClassVar[list[tuple[int, int]]] = []

        def submit(self, call: Any, /, *args: Any) -> Any:
            recorded = load_state(next(mlruns_dir(config).glob("sweeps/quick-*/state.json")).parent)
            assert recorded is not None
            self.asked.append((args[1].number, len(recorded.trials)))
            return super().submit(call, *args)

    folder = Path(paths[0].partition("=")[2]).parent / "slots"
    config = quick([f"paths.mlruns={folder}", paths[1]], "sweep.max_trials=4")
    monkeypatch.setattr(room, "open_executor", lambda compute, echo: nullcontext(Three()))
    run(config)
    assert Three.asked == [(0, 3), (1, 3), (2, 3), (3, 4)]


def test_a_second_process_is_refused_while_one_runs_the_sweep(paths: list[str]):
    config = quick(paths, "sweep.seed=24", "sweep.max_trials=1")
    refused: list[str] = []

    def meanwhile(line: str) -> None:
        if "a new one" in line:
            code = "import sys; from fer_experiments.search.state import only_one; from pathlib import Path\n"
            code += "try:\n  with only_one(Path(sys.argv[1]), 'it'): pass\nexcept Exception as e: print(e)"
            folder = next(mlruns_dir(config).glob(f"sweeps/{line.split()[1].rstrip(':')}"))
            refused.append(subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True).stdout)

    run_sweep(config, meanwhile)
    assert len(refused) == 1 and "another process is running it" in refused[0]


def test_worker_processes_come_to_the_same_leaderboard_though_one_is_killed(paths: list[str], tmp_path: Path):
    import psutil

    config = quick(paths, "sweep.seed=25", "sweep.max_trials=4", "training.deterministic=true", "training.epochs=6")
    whole, _ = run(config)
    elsewhere = replace(
        config,
        paths=replace(config.paths, mlruns=str(tmp_path / "mlruns")),
        compute=replace(config.compute, name="processes", workers=2),
    )
    killed: list[int] = []
    said: list[str] = []

    def listen(line: str) -> None:
        said.append(line)
        if line.startswith("trial ") and not killed:  # the other worker is in the middle of its trial
            running = [r for r in runs_of(elsewhere, kind="trial") if r.status == "RUNNING"]
            for found in running:
                killed.append(json.loads(found.tags["fer.process"])["pid"])
                assert psutil.Process() in psutil.Process(killed[-1]).parents()
                os.kill(killed[-1], signal.SIGKILL)

    state = run_sweep(elsewhere, listen)
    assert killed and any("it is given to another worker" in line for line in said)
    assert [(t.values, t.score) for t in state.trials] == [(t.values, t.score) for t in whole.trials]
    statuses = sorted(r.status for r in runs_of(elsewhere, kind="trial"))
    assert statuses == ["FINISHED"] * 4 + ["KILLED"] * len(killed)


def test_neither_train_nor_sweep_can_read_a_test_label(paths: list[str], monkeypatch: pytest.MonkeyPatch):
    """Other test labels, same everything else: nothing but the fingerprint changes, and no door is opened."""
    config = quick(paths, "sweep.seed=9", "sweep.max_trials=1", "training.deterministic=true")
    before, _ = run(config)
    real = data_room._load_parts

    def with_other_test_labels(*given: Any) -> Any:
        parts = real(*given)
        labels = parts.labels.copy()
        labels[parts.rows["test"]] = 1 - labels[parts.rows["test"]]
        return replace(parts, labels=labels, fingerprint="0" * 64)

    def opened(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the test split was opened")

    monkeypatch.setattr(data_room, "_load_parts", with_other_test_labels)
    monkeypatch.setattr(data_room, "TestSplit", opened)  # what every door leads to, whoever holds the function
    with pytest.raises(AssertionError, match="was opened"):
        open_test_split(config.data)
    after, _ = run(config)
    assert after.id != before.id
    assert [t.metrics for t in after.trials] == [t.metrics for t in before.trials]


def test_a_full_disk_stops_the_sweep_in_one_line_and_the_same_command_goes_on(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "6")  # a lost store sets it to 0 for the process
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system of 60 MB can be mounted here")
    try:
        config = compose(["sweep=quick", *SMALL, "sweep.max_trials=9", f"paths.mlruns={small / 'mlruns'}", paths[1]])
        said: list[str] = []

        def listen(line: str) -> None:
            said.append(line)
            if line.startswith("trial 1:"):  # another program takes what is left
                with (small / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
                    while True:
                        ballast.write(bytes(1024))

        with pytest.raises(UserError, match=rf"a disk is full: free space in {small}.* give the same command again"):
            run_sweep(config, listen)
        kept = [line for line in said if line.startswith("trial ")]
        assert 2 <= len(kept) < 9
        (small / "ballast").unlink()
        state, said = run(config)
        assert "going on after 1 trials" in " ".join(said)  # the state that names the next could not be written
        assert [t.status for t in state.trials] == ["finished"] * 9
        statuses = [r.status for r in runs_of(config)]
        assert statuses.count("FINISHED") == 10 and "RUNNING" not in statuses
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.parametrize(("number", "code", "compute"), [("SIGTERM", 143, "inline"), ("SIGINT", 130, "processes")])
def test_a_signal_kills_what_is_in_flight_and_the_same_command_goes_on(
    tmp_path: Path, number: str, code: int, compute: str
):
    command = ["sweep", "sweep=quick", *SMALL, f"compute={compute}"]
    command += ["training.epochs=20", "training.patience=20", f"paths.mlruns={tmp_path}/m", f"paths.cache={tmp_path}/c"]
    command += ["compute.workers=2"] if compute == "processes" else []
    first = Command(*command, "sweep.max_trials=1000")  # which are no part of its identity
    next(line for line in first.stdout if line.startswith("trial "))
    trials = partial(find_runs, store_in(tmp_path / "m"), {"fer.kind": "trial"})
    while not any(r.status == "RUNNING" for r in trials()):
        time.sleep(0.05)
    os.kill(first.pid, getattr(signal, number))
    assert first.wait() == code
    assert {r.status for r in trials()} <= {"FINISHED", "KILLED"}
    state_file = next((tmp_path / "m" / "sweeps").glob("*/state.json"))
    kept = [t for t in json.loads(state_file.read_text())["trials"] if t["status"] == "finished"]
    assert kept
    count = len(kept) + 2
    done = fer(*command, f"sweep.max_trials={count}")
    assert done.returncode == 0, done.stderr
    assert f"going on after {len(kept)} trials" in done.stdout
    after = json.loads(state_file.read_text())["trials"]
    assert len(after) == count and all(after[t["number"]] == t for t in kept)
    statuses = [r.status for r in trials()]
    assert statuses.count("FINISHED") == count and statuses.count("KILLED") >= 1
    assert len(statuses) == statuses.count("KILLED") + count
