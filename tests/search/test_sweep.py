"""Whole sweeps on demo faces with the pocket backbone, a real store and real oracles."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
from small_sweeps import folder_of, quick, run, runs_of, with_space

from fer_experiments.config import Config, mlruns_dir
from fer_experiments.config.compose import compose
from fer_experiments.data import dataset as data_room
from fer_experiments.data import open_test_split
from fer_experiments.errors import UserError
from fer_experiments.executors.inline import Inline
from fer_experiments.search.space import ORACLES
from fer_experiments.search.state import State, load_state
from fer_experiments.search.sweep import run_sweep


@pytest.fixture(scope="module")
def finished(paths: list[str]) -> tuple[Config, State, list[str]]:
    config = quick(paths)
    return (config, *run(config))


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
    assert stopped is not None and len(stopped.trials) < 3 and (best := stopped.best()) is not None
    files = {name: (folder_of(elsewhere, stopped) / name).read_text() for name in ("best.yaml", "leaderboard.csv")}
    assert files["best.yaml"].startswith(f"# Trial {best.number} of") and best.run_id in files["leaderboard.csv"]
    resumed, said = run(elsewhere)
    assert any("going on after" in line for line in said)
    assert [(t.values, t.score) for t in resumed.trials] == [(t.values, t.score) for t in whole.trials]


@pytest.mark.parametrize("oracle", [name for name in ORACLES if name != "random"])
def test_the_other_oracles_run(paths: list[str], oracle: str):
    own = ["sweep.max_epochs=2", "sweep.factor=2"] if oracle == "hyperband" else []
    state, _ = run(quick(paths, f"sweep.oracle={oracle}", *own))
    assert state.status == "finished" and len(state.trials) == 2
    assert all(t.status == "finished" for t in state.trials)


def test_the_same_config_is_not_run_twice(paths: list[str], tmp_path: Path):
    config = with_space(tmp_path, paths, "head.l2: {type: choice, values: [0, 0.0, 1.0e-3]}")
    state, said = run(config)
    assert [t.status for t in state.trials] == ["finished", "repeated", "finished"]
    assert state.trials[1].score == state.trials[0].score
    assert len(runs_of(config, sweep_id=state.id, kind="trial")) == 2
    assert any("as trial 0 had it, not run again" in line for line in said)


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


def test_a_trial_that_another_answers_is_made_up_for(paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two at once: the second, which is asked while the first runs, turns out to be the same."""
    from fer_experiments.search import sweep as room

    class Two(Inline):
        slots = 2

    values = "head.l2: {type: choice, values: [0, 0.0, 1.0e-3, 1.0e-2]}"
    own = [f"paths.mlruns={tmp_path}/mlruns", paths[1]]
    config = with_space(tmp_path, own, values, "sweep.max_trials=2")
    monkeypatch.setattr(room, "open_executor", lambda compute, echo: nullcontext(Two()))
    state, said = run(config)
    assert [t.status for t in state.trials] == ["finished", "repeated", "finished"]
    assert state.reason == "sweep.max_trials=2" and "3 trials, 1 of them not run, best" in said[-1]
    _, said = run(config)
    assert any("is finished: 3 trials, 1 of them not run (sweep.max_trials=2" in line for line in said)


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
