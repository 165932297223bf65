"""The file a sweep lives in, and the list of sweeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fer_experiments.config import Config, PathsConfig
from fer_experiments.errors import UserError
from fer_experiments.search.leaderboard import table
from fer_experiments.search.recorded import find_state, find_sweep, list_sweeps
from fer_experiments.search.state import State, digest_of, is_locked, load_state, only_one
from fer_experiments.search.trials import Trial

IDENTITY = {"sweep.objective": "final/val_accuracy", "sweep.direction": "max", "head.l2": 0.1}


def state(**changes: Any) -> State:
    made = State(**{"id": "", "name": "quick", "identity": IDENTITY, **changes})
    made.id = f"{made.name}-{digest_of(made.identity)}"
    return made


def test_what_was_not_asked_yet_when_a_signal_struck_is_asked_again(tmp_path: Path):
    state(trials=[trial(0, 0.5), trial(1, None, "asked"), trial(2, None, "asked")], order=[0, 0, 1]).save(tmp_path)
    found = load_state(tmp_path)
    assert found is not None
    assert ([t.number for t in found.ended], [t.number for t in found.in_flight]) == ([0], [1])


def trial(number: int, score: float | None, status: str = "finished", run_id: str = "f" * 32) -> Trial:
    metrics = {f"final/val_accuracy_{end}": 0.5 for end in ("low", "high")}
    ended: dict[str, Any] = {"metrics": metrics, "epochs": 2, "best_epoch": 1, "seconds": 0.0, "run_id": run_id}
    more = {} if status == "asked" else ended
    return Trial(number=number, score=score, told=score, status=status, **more)


def test_a_saved_state_comes_back(tmp_path: Path):
    saved = state(trials=[trial(0, 0.5)], order=[0, 0], seconds=3.5)
    saved.save(tmp_path / "new")
    assert load_state(tmp_path / "new") == saved


def test_no_state_is_none(tmp_path: Path):
    assert load_state(tmp_path) is None


@pytest.mark.parametrize("text", ['{"id": "x"', "[]", '{"id": "x", "unknown": 1}'])
def test_a_damaged_state_is_named(tmp_path: Path, text: str):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(UserError, match=r"state\.json: not a sweep's state"):
        load_state(tmp_path)


def test_a_state_killed_while_it_is_written_stays_readable(tmp_path: Path):
    """SIGKILL in a tight loop of saving: the file is always one of the states that were saved."""
    code = (
        "import sys; from pathlib import Path\n"
        "from fer_experiments.search.state import State, digest_of; from fer_experiments.search.trials import Trial\n"
        "s = State(f'n-{digest_of({})}', 'n', {}); print('ready', flush=True)\n"
        "while True:\n"
        "    s.trials.append(Trial(number=len(s.trials), status='failed', error='x' * 2000))\n"
        "    s.order += 2 * [len(s.order) // 2]\n"
        "    s.save(Path(sys.argv[1]))\n"
    )
    for number, saves in enumerate((0, 1, 3, 10, 30, 100)):
        folder = tmp_path / str(number)
        with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline()
            while saves and ((found := load_state(folder)) is None or len(found.trials) < saves):
                assert process.poll() is None
            process.send_signal(signal.SIGKILL)
        found = load_state(folder)
        assert not saves or (found is not None and len(found.trials) >= saves)


def test_the_same_identity_finds_the_state_again_and_another_says_what_differs(tmp_path: Path):
    first, folder, said = find_state(tmp_path, "quick", IDENTITY, fresh=False)
    assert said == f"sweep {first.id}: a new one"
    first.save(folder)
    again, same, said = find_state(tmp_path, "quick", IDENTITY, fresh=False)
    assert (again.id, same) == (first.id, folder) and "going on after 0 trials" in said
    other, _, said = find_state(tmp_path, "quick", {**IDENTITY, "head.l2": 0.2}, fresh=False)
    assert other.id != first.id and said.endswith(f"a new one, {first.id} differs in head.l2")
    fresh, _, _ = find_state(tmp_path, "quick", IDENTITY, fresh=True)
    assert fresh.id == f"{first.id}-2"


def test_a_new_one_differs_from_none_of_another_name_that_begins_as_its_own(tmp_path: Path):
    other = state(name="quick-2")
    other.save(tmp_path / other.id)
    found, _, said = find_state(tmp_path, "quick", {**IDENTITY, "head.l2": 0.2}, fresh=False)
    assert said == f"sweep {found.id}: a new one"


def test_the_last_active_one_is_told_by_its_state_and_not_by_the_time_of_its_folder(tmp_path: Path):
    """A report is written into the folder of the older one."""
    older, newer = state(), state()
    newer.id += "-2"
    for each in (older, newer):
        each.save(tmp_path / each.id)
    record = json.loads((tmp_path / older.id / "state.json").read_text())
    (tmp_path / older.id / "state.json").write_text(json.dumps({**record, "updated": "2020-01-01T00:00:00+00:00"}))
    os.utime(tmp_path / newer.id, (0, 0))
    assert find_state(tmp_path, "quick", IDENTITY, fresh=False)[0].id == newer.id == find_sweep(tmp_path)[0].id


def test_two_processes_that_begin_a_sweep_at_once_mean_the_same_one(tmp_path: Path):
    """The first has its lock, and no state yet."""
    first, folder, _ = find_state(tmp_path, "quick", IDENTITY, fresh=False)
    with only_one(folder, first.id):
        second, same, _ = find_state(tmp_path, "quick", IDENTITY, fresh=False)
        assert (second.id, same) == (first.id, folder)
        assert find_state(tmp_path, "quick", IDENTITY, fresh=True)[0].id == f"{first.id}-2"


def test_a_fresh_one_takes_no_id_that_a_store_knows(tmp_path: Path):
    own = find_state(tmp_path, "quick", IDENTITY, fresh=False)[0].id
    known = {own, f"{own}-2"}
    assert find_state(tmp_path, "quick", IDENTITY, fresh=True, known=known.__contains__)[0].id == f"{own}-3"
    other, _, said = find_state(tmp_path, "quick", IDENTITY, fresh=False, known=known.__contains__)
    assert (other.id, said) == (
        f"{own}-3",
        f"sweep {own}-3: a new one beside {own}, whose run another process or machine has open",
    )


def test_a_fresh_one_differs_in_nothing_from_one_of_its_kind(tmp_path: Path):
    """Whose first folder was moved away."""
    second = state()
    second.id += "-2"
    second.save(tmp_path / second.id)
    found, _, said = find_state(tmp_path, "quick", IDENTITY, fresh=True)
    assert said == f"sweep {found.id}: a new one" and f"{found.id}-2" == second.id


@pytest.mark.parametrize(("direction", "order"), [("max", [2, 4, 5, 0, 1, 6, 3]), ("min", [0, 2, 4, 5, 1, 6, 3])])
def test_a_leaderboard_ends_with_what_cannot_be_the_best(direction: str, order: list[int]):
    trials = [trial(0, 0.5), trial(1, 0.9, "pruned"), trial(2, 0.7), trial(3, None, "failed"), trial(4, 0.7)]
    trials += [trial(5, 0.7, "repeated"), trial(6, 0.9, "repeated")]
    trials[5].of, trials[6].of = 2, 1
    found = state(trials=trials, identity={**IDENTITY, "sweep.direction": direction, "sweep.name": "quick"})
    found.order = [number for each in trials for number in (each.number, each.number)]
    best, rows = found.best(), table(found, found.settings)
    assert best is not None and rows["trial"].tolist() == order and rows["rank"].tolist() == list(range(1, 8))
    assert rows["trial"][0] == best.number and rows["status"].tolist()[-1] == "failed"


def test_the_best_is_a_finished_trial_in_the_right_direction():
    trials = [trial(0, 0.5), trial(1, 0.9, "pruned"), trial(2, 0.7), trial(3, None, "failed"), trial(4, 0.7)]
    up, down = state(trials=trials).best(), state(trials=trials, identity={**IDENTITY, "sweep.direction": "min"}).best()
    assert up is not None and up.number == 2
    assert down is not None and down.number == 0


def test_a_sweep_is_found_by_what_mlflow_calls_its_runs(tmp_path: Path):
    for name, run, of_trial in (("a", "a" * 32, "b" * 32), ("b", "c" * 32, "d" * 32)):
        trials = [trial(0, 0.5, run_id=of_trial), trial(1, None, "asked")]
        state(name=name, run_id=run, trials=trials, order=[0, 0, 1]).save(tmp_path / name)
    for sought in ("a" * 32, "b" * 32):
        found, folder = find_sweep(tmp_path, sought)
        assert (found.name, folder) == ("a", tmp_path / "a")
    with pytest.raises(UserError, match=f"sweep={'e' * 32}: no such sweep"):
        find_sweep(tmp_path, "e" * 32)


def test_looking_whether_a_sweep_runs_writes_nothing_and_disturbs_nobody(tmp_path: Path):
    assert not is_locked(tmp_path / "nowhere")
    (tmp_path / "lock").touch(mode=0o444)
    assert not is_locked(tmp_path) and [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that even root cannot write: Linux's /proc")
def test_a_sweeps_folder_that_cannot_be_written_is_named():
    with (
        pytest.raises(UserError, match=r"^/proc/self/sweep: cannot be written \("),
        only_one(Path("/proc/self/sweep"), "quick-1"),
    ):
        pass


def test_a_sweep_has_one_process(tmp_path: Path):
    with only_one(tmp_path, "quick-1"):
        assert is_locked(tmp_path)
        with pytest.raises(UserError, match=r"sweep quick-1: another process is running it"):
            subprocess_lock(tmp_path)
    assert not is_locked(tmp_path)


def subprocess_lock(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fer_experiments.search.state import only_one\n"
        "from fer_experiments.errors import UserError\n"
        "try:\n    with only_one(Path(sys.argv[1]), 'quick-1'): pass\n"
        "except UserError as error: sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise UserError(done.stderr.strip())


def test_the_list_tells_running_stopped_and_finished(tmp_path: Path):
    for name, status in (("a", "running"), ("b", "running"), ("c", "finished")):
        state(name=name, status=status, trials=[trial(0, 0.25), trial(1, None, "asked")], order=[0, 1, 0]).save(
            tmp_path / "sweeps" / name
        )
    place = Config(paths=PathsConfig(mlruns=str(tmp_path)))
    with only_one(tmp_path / "sweeps" / "a", "a"):
        rows = {line[0]: line.split() for line in list_sweeps(place).splitlines()}
    assert [rows[name][1] for name in "abc"] == ["running", "stopped", "finished"]
    assert rows["a"][2:5] == ["1", "0.2500", "final/val_accuracy"]


def test_no_sweeps_says_how_to_start_one(tmp_path: Path):
    said = list_sweeps(Config(paths=PathsConfig(mlruns=f"{tmp_path}/nowhere")))
    assert said.startswith(f"no sweeps in {tmp_path}/nowhere/sweeps; `") and said.endswith("` starts one")
    assert f"fer sweep paths.mlruns={tmp_path}/nowhere`" in said


def test_fer_sweeps_needs_no_keras(tmp_path: Path):
    state().save(tmp_path / "sweeps" / "quick-1")
    code = "import sys, fer_experiments.search.stop, fer_experiments.search.watch\n"  # what its other words import
    code += "from fer_experiments.cli import main; main(sys.argv[1:]); assert 'keras' not in sys.modules"
    command = [sys.executable, "-c", code, "sweeps", f"paths.mlruns={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert f"{state().id}  stopped" in done.stdout
