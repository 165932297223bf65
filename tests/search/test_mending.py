"""A store and a sweep's state that do not belong together: one was put back from a copy, or is another's."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stores import store_in

from fer_experiments.config import Config
from fer_experiments.config.compose import compose
from fer_experiments.config.parts import YOUNGER
from fer_experiments.errors import UserError
from fer_experiments.experiment.prepare import Preparations
from fer_experiments.registry.candidates import check_inputs, choose
from fer_experiments.search.bookkeeping import is_of
from fer_experiments.search.identity import sections
from fer_experiments.search.mending import unchanged_sections
from fer_experiments.search.state import State
from fer_experiments.search.sweep import run_sweep
from fer_experiments.search.trials import Trial
from fer_experiments.tracking import FoundRun, find_runs
from fer_experiments.tracking.store import client_of

SMALL = ["data.limit=60", "data.demo_size=600", "training.epochs=2", "tracking.system_metrics=false"]


def quick(folder: Path, *overrides: str) -> Config:
    return compose(["sweep=quick", *SMALL, f"paths.mlruns={folder}/m", f"paths.cache={folder}/c", *overrides])


def run(folder: Path, trials: int, *overrides: str) -> tuple[State, str]:
    said: list[str] = []
    state = run_sweep(quick(folder, f"sweep.max_trials={trials}", *overrides), said.append)
    return state, "\n".join(said)


def children(folder: Path, state: State) -> list[FoundRun]:
    return find_runs(store_in(folder / "m"), {"fer.sweep_id": state.id, "fer.kind": "trial"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    """A sweep of three trials, and copies of its store (old.db) and its state (old.json) after the first."""
    folder = tmp_path_factory.mktemp("mending")
    state, _ = run(folder, 1)
    shutil.copy(folder / "m" / "mlflow.db", folder / "m" / "old.db")
    shutil.copy(folder / "m" / "sweeps" / state.id / "state.json", folder / "m" / "old.json")
    state, _ = run(folder, 3)
    return folder, state


@pytest.fixture
def copy(made: tuple[Path, State], tmp_path: Path) -> tuple[Path, State]:
    shutil.copytree(made[0], tmp_path / "of it")
    return tmp_path / "of it", made[1]


@pytest.mark.parametrize("trials", [3, 4])
def test_trials_that_an_older_store_has_lost_are_recorded_again(copy: tuple[Path, State], trials: int):
    """Also where the sweep was finished."""
    folder, before = copy
    (folder / "m" / "old.db").replace(folder / "m" / "mlflow.db")
    state, said = run(folder, trials)
    assert "trials 1, 2: their runs are not in the store (an older copy of it?); recorded again" in said
    assert [(t.values, t.score, t.metrics) for t in state.trials[:3]] == [
        (t.values, t.score, t.metrics) for t in before.trials
    ]
    runs = {run.run_id: run for run in children(folder, state)}
    assert len(runs) == trials and {t.run_id for t in state.trials} == runs.keys()
    for trial in state.trials[1:3]:
        found = runs[trial.run_id or ""]
        assert (found.status, found.tags["fer.recorded_again"]) == ("FINISHED", "from the sweep's state")
        assert found.metrics["final/val_accuracy"] == pytest.approx(trial.score)
        assert float(found.params["head.l2"]) == pytest.approx(trial.values["head.l2"])
    config = quick(folder, "promote=default", "promote.top_k=3")
    choice = choose(config, store_in(folder / "m"), state.id, None)
    assert len(choice.candidates) == 3
    check_inputs(choice, Preparations())  # of the data and features that they say
    _, said = run(folder, trials)
    assert "is finished" in said and "recorded again" not in said
    (folder / "m" / "old.json").replace(folder / "m" / "sweeps" / state.id / "state.json")
    _, said = run(folder, trials)  # what was recorded again is as good a record as any
    assert "cannot be read" not in said and len(children(folder, state)) == trials


def test_a_lost_trial_that_had_failed_is_recorded_as_that(tmp_path: Path):
    (tmp_path / "one.yaml").write_text(
        "defaults:\n  - override /data: demo\n  - override /backbone: pocket\n  - override /head: pooled\n"
        "sweep:\n  oracle: grid\n  max_trials: 1\n  space:\n"
        "    training.learning_rate: {type: choice, values: [1.0e-3, 1.0e+38, 1.0e-2]}\n"
    )
    own = [f"sweep={tmp_path}/one.yaml", *SMALL, f"paths.cache={tmp_path}/c"]
    first = [*own, f"paths.mlruns={tmp_path}/first/m"]
    run_sweep(compose(first), lambda line: None)
    shutil.copytree(tmp_path / "first", tmp_path / "old")
    run_sweep(compose([*first, "sweep.max_trials=2"]), lambda line: None)
    shutil.copytree(tmp_path / "first" / "m" / "sweeps", tmp_path / "old" / "m" / "sweeps", dirs_exist_ok=True)
    state = run_sweep(compose([*own, "sweep.max_trials=3", f"paths.mlruns={tmp_path}/old/m"]), lambda line: None)
    assert [trial.status for trial in state.trials] == ["finished", "failed", "finished"]
    found = {run.tags["fer.trial_number"]: run for run in children(tmp_path / "old", state)}
    assert [found[n].status for n in "012"] == ["FINISHED", "FAILED", "FINISHED"]
    assert "not a number" in found["1"].tags["fer.error"] and found["1"].run_id == state.trials[1].run_id


def test_trials_that_an_older_state_has_never_heard_of_are_not_run_again(copy: tuple[Path, State]):
    folder, before = copy
    (folder / "m" / "old.json").replace(folder / "m" / "sweeps" / before.id / "state.json")
    state, _ = run(folder, 4)
    assert [(t.values, t.run_id, t.score) for t in state.trials[:3]] == [
        (t.values, t.run_id, t.score) for t in before.trials
    ]
    assert [run.status for run in children(folder, state)] == ["FINISHED"] * 4


def test_a_record_of_other_values_under_the_same_number_is_not_taken(copy: tuple[Path, State]):
    """An oracle may ask otherwise than it did before an older state was put back."""
    folder, before = copy
    first, other = before.trials[:2]
    with closing(sqlite3.connect(folder / "m" / "mlflow.db")) as database, database:
        database.execute("UPDATE params SET value = '0.05' WHERE key = 'head.l2' AND run_uuid = ?", [other.run_id])
    asked = Trial(number=1, trial_id=other.trial_id, values=other.values, raw=other.raw)
    begun = replace(before, trials=[first, asked], order=[0, 0, 1], status="running", reason=None)
    begun.save(folder / "m" / "sweeps" / before.id)
    state, _ = run(folder, 2)
    assert state.trials[1].run_id != other.run_id
    assert [run.status for run in children(folder, state)].count("FINISHED") == 4


def test_a_record_is_found_by_values_however_they_were_written(tmp_path: Path):
    """A whole number among the choices of what takes fractions."""
    config = quick(tmp_path, "sweep.space={head.l2:{type:choice,values:[0,0.001]}}")
    trial = Trial(number=0, values={"head.l2": 0}, raw={"head.l2": 0})
    sweep: Any = SimpleNamespace(config=config, state=SimpleNamespace(trials=[trial]))
    found = FoundRun("a" * 32, "", "FINISHED", {"head.l2": "0.0"}, {}, {}, 0, 0)
    assert is_of(found, sweep, 0)
    assert not is_of(found._replace(params={"head.l2": "0.001"}), sweep, 0)


@pytest.mark.parametrize("content", [None, "{", ""])
def test_what_a_trial_kept_that_is_gone_or_cut_is_a_line_and_it_is_run_again(
    copy: tuple[Path, State], content: str | None
):
    folder, before = copy
    old = folder / "m" / "old.json"
    shutil.copy(old, folder / "m" / "sweeps" / before.id / "state.json")
    (kept,) = (folder / "m" / "artifacts").rglob(f"{before.trials[1].run_id}/artifacts/trial.json")
    kept.unlink() if content is None else kept.write_text(content)
    state, said = run(folder, 3)
    assert said.count("trial 1: what its run kept cannot be read (") == 1 and "it is run again" in said
    assert [(t.values, t.status) for t in state.trials] == [(t.values, "finished") for t in before.trials]
    assert state.trials[1].run_id != before.trials[1].run_id and state.trials[2].run_id == before.trials[2].run_id
    old.replace(folder / "m" / "sweeps" / before.id / "state.json")
    again, said = run(folder, 3)
    assert "cannot be read" not in said and [t.run_id for t in again.trials] == [t.run_id for t in state.trials]


def test_a_fresh_sweep_takes_no_runs_of_one_whose_folder_was_removed(copy: tuple[Path, State]):
    folder, before = copy
    shutil.rmtree(folder / "m" / "sweeps" / before.id)
    state, _ = run(folder, 2, "sweep.fresh=true")
    assert state.id == f"{before.id}-2" and len(children(folder, state)) == 2
    assert not {t.run_id for t in state.trials} & {t.run_id for t in before.trials}


def test_a_yaml_that_was_changed_between_two_starts_is_named(tmp_path: Path):
    """What each value of a searched group stood for is in the state; an older one did not have it."""
    (tmp_path / "one.yaml").write_text(
        "defaults:\n  - override /data: demo\n  - override /backbone: pocket\n  - override /head: pooled\n"
        "sweep:\n  oracle: grid\n  max_trials: 1\n  space:\n    head: {type: choice, values: [linear, pooled]}\n"
    )
    own = [f"sweep={tmp_path}/one.yaml", *SMALL, f"paths.cache={tmp_path}/c", f"paths.mlruns={tmp_path}/m"]
    state = run_sweep(compose(own), lambda line: None)
    file = tmp_path / "m" / "sweeps" / state.id / "state.json"
    record = json.loads(file.read_text())
    assert record["sections"]["head"]["pooled"]["dense_widths"] == compose(["head=pooled"]).head.dense_widths
    then = {name: {**section, "l2": 0.125} for name, section in record["sections"]["head"].items()}
    file.write_text(json.dumps({**record, "sections": {"head": then}}))
    with pytest.raises(
        UserError, match=r"head=linear: its YAML has another l2 than for its trials; .*sweep\.fresh=true"
    ):
        run_sweep(compose([*own, "sweep.max_trials=2"]), lambda line: None)
    for older in (record["sections"], {}):
        file.write_text(json.dumps({**record, "sections": older}))
        found = run_sweep(compose([*own, "sweep.max_trials=2"]), lambda line: None)
        assert (found.id, len(found.trials), found.sections) == (state.id, 2, record["sections"])


def test_what_an_older_version_did_not_know_of_a_yaml_is_no_change():
    config = compose(["sweep=quick"])
    assert config.sweep is not None
    space = {"backbone": {"type": "choice", "values": ["pocket", "facenet"]}}
    config = replace(config, sweep=replace(config.sweep, space=space))
    known = sections(config)
    younger = {path.removeprefix("backbone.") for path in YOUNGER if path.startswith("backbone.")}
    old = {name: {k: v for k, v in section.items() if k not in younger} for name, section in known["backbone"].items()}
    assert younger and old != known["backbone"]
    state = State("s-01234567", "s", {}, sections={"backbone": old})
    assert unchanged_sections(state, config) == known


def test_a_trial_deleted_in_the_ui_is_no_lost_one(copy: tuple[Path, State]):
    folder, before = copy
    client_of(store_in(folder / "m")).delete_run(before.trials[1].run_id)
    state, said = run(folder, 4)
    assert "not in the store" not in said and len(state.trials) == 4
    assert len(children(folder, state)) == 3


def test_an_experiment_that_was_renamed_is_named_and_nothing_is_recorded_twice(copy: tuple[Path, State]):
    folder, before = copy
    client = client_of(store_in(folder / "m"))
    experiment = client.get_experiment_by_name("fer/demo").experiment_id
    client.rename_experiment(experiment, "mine")
    with pytest.raises(UserError, match=r"are in the experiment mine, and would be recorded in fer/demo; rename that"):
        run(folder, 4)
    assert client.get_experiment_by_name("fer/demo") is None
    client.rename_experiment(experiment, "fer/demo")
    state, said = run(folder, 4)
    assert state.id == before.id and "recorded again" not in said and len(children(folder, state)) == 4


def test_another_store_is_named(copy: tuple[Path, State]):
    folder, before = copy
    other = f"tracking.uri='sqlite:///{folder}/other.db'"
    with pytest.raises(
        UserError, match=r"its runs are in sqlite:///<mlruns>/mlflow\.db, and this is .*/other\.db"
    ) as error:
        run(folder, 4, other)
    assert "sweep.fresh=true" in str(error.value)
    state, _ = run(folder, 1, other, "sweep.fresh=true")
    assert state.id == f"{before.id}-2"
