"""The command that is told how a sweep ended."""

from __future__ import annotations

import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from small_sweeps import folder_of, quick, run, runs_of
from stores import store_in

from fer_experiments.config import flatten, is_place, recorded
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.experiment.prepare import Preparations
from fer_experiments.search import on_end as room
from fer_experiments.search import sweep as sweep_room
from fer_experiments.search.bookkeeping import Sweep
from fer_experiments.search.state import State
from fer_experiments.search.sweep import run_sweep
from fer_experiments.search.trials import Trial


def keeping(folder: Path) -> tuple[str, Path]:
    """A command that keeps what it is told, in a file with a space in its name."""
    kept = folder / "what it was told.json"
    return f"sweep.on_end=tee '{kept}'", kept


def test_it_is_told_the_end_and_then_a_failure(paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hook, kept = keeping(tmp_path)
    state, said = run(quick(paths, "sweep.max_trials=1", hook))
    told = json.loads(kept.read_text())
    folder = folder_of(quick(paths), state)
    assert (told["id"], told["status"], told["reason"]) == (state.id, "finished", "sweep.max_trials=1")
    assert (told["best"]["score"], told["best"]["values"]) == (state.trials[0].score, state.trials[0].values)
    assert told["trials"] == {"finished": 1, "in_flight": 0}
    assert told["leaderboard"] == str(folder / "leaderboard.csv") and Path(told["best_config"]).is_file()
    assert not any(line.startswith("sweep.on_end") for line in said)
    written = [folder / "state.json", *folder.parent.parent.rglob("config.yaml")]
    assert len(written) > 1 and not any("told.json" in file.read_text() for file in written), "it is recorded nowhere"

    def failing(*given: Any) -> str:
        raise UserError("the moon is full; wait")

    monkeypatch.setattr(sweep_room, "_run_trials", failing)
    with pytest.raises(UserError, match="the moon"):
        run(quick(paths, "sweep.max_trials=2", hook))
    told = json.loads(kept.read_text())
    assert (told["id"], told["status"], told["reason"]) == (state.id, "failed", "the moon is full; wait")

    def interrupted(*given: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_room, "_run_trials", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(quick(paths, "sweep.max_trials=2", hook), lambda line: None)
    assert json.loads(kept.read_text())["status"] == "stopped"


def test_it_hears_of_what_fails_before_the_sweep_has_a_run(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Features may take hours."""
    hook, kept = keeping(tmp_path)
    config = quick(paths, "sweep.seed=31", hook)

    def failing(*given: Any) -> Any:
        raise UserError("the moon is full; wait")

    monkeypatch.setattr(Preparations, "of", failing)
    with pytest.raises(UserError, match="the moon"):
        run(config)
    told = json.loads(kept.read_text())
    assert (told["status"], told["reason"]) == ("failed", "the moon is full; wait")
    assert told["id"].startswith("quick-") and told["run_id"] is None and told["trials"] == {"in_flight": 0}
    assert not runs_of(config, sweep_id=told["id"])


def test_a_figure_that_is_none_is_null_in_what_it_is_told(tmp_path: Path):
    """Outside Python no reader of JSON takes NaN or Infinity."""
    hook, kept = keeping(tmp_path)
    config, said = quick([f"paths.mlruns={tmp_path}/mlruns"], hook), list[str]()
    assert config.sweep is not None
    metrics = {"final/val_accuracy": 0.5, "final/val_roc_auc": math.nan, "final/val_log_loss": math.inf}
    trial = Trial(number=0, status="finished", score=0.5, told=0.5, metrics=metrics, run_id="f" * 32)
    state = State("quick-01234567", "quick", {"sweep.direction": "max"}, trials=[trial], order=[0, 0])
    state.status = "finished"
    folder = tmp_path / "sweep"
    folder.mkdir()
    sweep = Sweep(config, config.sweep, store_in(tmp_path / "mlruns"), state, folder, Preparations(), said.append)
    with room.on_end(sweep):
        pass
    told = json.loads(kept.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert said == [] and told["best"]["metrics"] == {**dict.fromkeys(metrics), "final/val_accuracy": 0.5}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sh -c 'cat; echo oh >&2; exit 3'", "ended with exit status 3"),
        ("sh -c 'sleep 300 & sleep 300'", "killed after 0 s"),
        ("true", None),
    ],
)
def test_what_goes_wrong_with_it_is_a_line(
    tmp_path: Path, command: str, said: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(room, "MOST_S", 0.2 if "300" in command else 60.0)
    started = time.monotonic()
    assert room._run(room.words_of(command), "{}", tmp_path / "log") == said
    assert time.monotonic() - started < 60
    if "exit 3" in command:
        assert (tmp_path / "log").read_text() == "{}oh\n"


def test_it_is_told_on_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    kept = tmp_path / "told"
    assert room._run(room.words_of(f"tee {kept}"), "{}", tmp_path / "full" / "log") is None
    assert kept.read_text() == "{}"


def test_its_secrets_are_not_those_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    room._run(room.words_of("env"), "{}", tmp_path / "log")
    assert "PATH=" in (tmp_path / "log").read_text() and "hunter2" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-command --x", "no such command here; name one on the PATH, or an executable file"),
        ("sh -c 'x", "no closing quotation"),
        ("  ", "no such command here; name one on the PATH, or an executable file"),
    ],
)
def test_one_that_cannot_run_is_refused_before_anything_starts(command: str, said: str):
    with pytest.raises(UserError) as refused:
        compose(["sweep=quick", f"sweep.on_end={command}"])
    assert str(refused.value) == f"sweep.on_end={command}: {said}"


def test_a_file_runs_no_command(tmp_path: Path):
    file = tmp_path / "s.yaml"
    file.write_text("sweep:\n  on_end: touch /tmp/hurt\n  space:\n    head.l2: {type: float, min: 0.1, max: 1.0}\n")
    with pytest.raises(
        UserError, match=r"^sweep\.on_end=touch /tmp/hurt: a command is taken from the command line alone"
    ):
        compose([f"sweep={file}"])
    assert compose([f"sweep={file}", "sweep.on_end=true"]).sweep.on_end == "true"  # type: ignore[union-attr]


def test_it_is_no_part_of_what_a_sweep_is():
    config = compose(["sweep=quick", "sweep.on_end=true"])
    assert is_place("sweep.on_end") and "sweep.on_end" not in flatten(recorded(config))
