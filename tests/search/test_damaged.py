"""State files that something has damaged: in the way of their own sweep alone, named, and never a traceback."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_experiments.config import Config, PathsConfig
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.report.page import page
from fer_experiments.report.record import Record
from fer_experiments.search import budget, leaderboard
from fer_experiments.search.identity import identity_of
from fer_experiments.search.oracle import ask, make_oracle, replay, tell
from fer_experiments.search.recorded import find_state, find_sweep, list_sweeps
from fer_experiments.search.space import decode
from fer_experiments.search.state import State, load_state

TAGS = {"fer.dataset": "d", "fer.backbone": "b", "fer.features": "f"}
SPACE = {
    "head.l2": {"type": "float", "min": 1e-6, "max": 1e-1, "sampling": "log"},
    "head.dense_widths": {"type": "choice", "values": [[], [32], [128, 64]]},
    "head.normalize": {"type": "bool"},
    "training.batch_size": {"type": "int", "min": 16, "max": 64, "when": {"head.normalize": True}},
}
ENDINGS = ("finished", "failed", "pruned", "finished", "finished", "asked")


def config_of(oracle: str) -> Config:
    config = compose(["sweep=quick", "data=demo"])
    assert config.sweep is not None
    return replace(config, sweep=replace(config.sweep, oracle=oracle, space=SPACE, max_trials=6))


def made(oracle: str) -> tuple[Config, dict[str, Any]]:
    """A sweep in the middle, with trials of every kind, as its state.json."""
    config = config_of(oracle)
    assert config.sweep is not None
    state, _, _ = find_state(Path("/nowhere"), "quick", identity_of(config, TAGS), fresh=False)
    record = {**vars(state), "run_id": "a" * 32, "updated": "2026-01-02T03:04:05+00:00", "seconds": 7.5}
    record |= {"trials": [], "order": [], "prepared": {'{"backbone": "pocket"}': TAGS}}
    asking = make_oracle(replace(config.sweep, max_trials=None))
    for number, status in enumerate(ENDINGS):
        asked = ask(asking, number)
        raw = dict(asked.hyperparameters.values)
        trial = {"number": number, "trial_id": asked.trial_id, "values": decode(SPACE, raw), "raw": raw}
        trial |= {"status": status, "score": None}
        record["order"].append(number)
        if status == "failed":
            trial |= {"error": "ValueError: no", "seconds": 1.0, "run_id": f"{number:032}"}
        elif status != "asked":
            score = 0.5 + number / 100
            metrics = {f"final/val_accuracy{end}": score for end in ("", "_low", "_high")}
            trial |= {"score": score, "metrics": {**metrics, "final/val_roc_auc": float("nan")}, "epochs": 5}
            trial |= {"best_epoch": 3, "seconds": 2.5, "fit_s": 1.25, "run_id": f"{number:032}", "curve": [0.1, 0.2]}
            trial |= {"scores": [score - 0.01, score + 0.01], "parameters": 100 - number}
        if status != "asked":
            tell(asking, asked, trial["score"])
            record["order"].append(number)
        record["trials"].append(trial)
    return config, record


@pytest.fixture(scope="module", params=["tpe", "hyperband", "random"])
def recorded(request: pytest.FixtureRequest) -> tuple[Config, dict[str, Any]]:
    return made(request.param)


def put(mlruns: Path, text: str | bytes, identity: str) -> Path:
    """A sweeps folder with this state beside a sound one of another name; returns the former's folder."""
    shutil.rmtree(mlruns / "sweeps", ignore_errors=True)
    sound, folder, _ = find_state(mlruns / "sweeps", "sound", {"sweep.direction": "max"}, fresh=False)
    sound.save(folder)
    place = mlruns / "sweeps" / identity
    place.mkdir()
    (place / "state.json").write_bytes(text.encode() if isinstance(text, str) else text)
    return place


def looked_at(state: State, config: Config, folder: Path) -> None:
    """Everything that a report and a sweep that goes on make of a state."""
    sweep = state.settings
    nothing: dict[str, Any] = {"counts": None, "cleaning": None, "hardware": None, "best_config": None, "times": {}}
    nothing |= {"curves": {}, "matrices": {}, "seeds": pd.DataFrame(), "killed": []}
    page(Record(state=state, sweep=sweep, run_id="a" * 32, status="stopped", **nothing))
    assert config.sweep is not None
    budget.over(state, config.sweep)
    leaderboard.text(state, config, folder)
    replay(make_oracle(replace(config.sweep, max_trials=None)), [(t.raw, t.told) for t in state.trials], state.order)
    leaderboard.write(state, config, folder)
    state.save(folder)
    assert load_state(folder) == state or "NaN" in (folder / "state.json").read_text()


def line(made: Callable[[], Any]) -> str:
    """What is refused in a line, or nothing."""
    try:
        made()
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return str(error)
    return ""


def behaves(config: Config, mlruns: Path, text: str | bytes, record: dict[str, Any]) -> str:
    """Asserts that nothing comes of a state file but an answer or a line; returns the line of its own sweep, if any."""
    folder = put(mlruns, text, record["id"])
    sweeps = mlruns / "sweeps"
    place = Config(paths=PathsConfig(mlruns=str(mlruns)))
    table = list_sweeps(place)
    assert "sound-" in table and record["id"] in table
    assert find_sweep(sweeps, "sound")[0].name == "sound"
    find_sweep(sweeps)
    assert line(lambda: find_sweep(sweeps, "e" * 32)).startswith("sweep=eeee")
    other, _, _ = find_state(sweeps, "quick", {**record["identity"], "head.l2": 0.5}, fresh=False)
    assert other.id != record["id"]
    fresh, new, _ = find_state(sweeps, "quick", record["identity"], fresh=True)
    assert fresh.id == f"{record['id']}-2" and not new.exists() and load_state(new) is None
    said = line(lambda: find_sweep(sweeps, record["id"]))
    assert line(lambda: find_state(sweeps, "quick", record["identity"], fresh=False)) == said
    if said:
        assert str(folder / "state.json") in said and "sweep.fresh=true" in said
        assert f"{record['id']}  damaged" in table
        return said
    state, _ = find_sweep(sweeps, record["id"])
    return line(lambda: looked_at(state, config, folder))


def test_the_state_that_is_damaged_below_is_sound(recorded: tuple[Config, dict[str, Any]], tmp_path: Path):
    config, record = recorded
    assert behaves(config, tmp_path, json.dumps(record), record) == ""
    kept = json.loads((tmp_path / "sweeps" / record["id"] / "state.json").read_text())
    assert json.dumps({**kept, "updated": ""}, sort_keys=True) == json.dumps({**record, "updated": ""}, sort_keys=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("trials.0.score", "abc"),
        ("trials.0.score", float("nan")),
        ("trials.0.score", None),
        ("trials.0.values", {}),
        ("trials.0.values", {"head.filters": 3}),
        ("trials.0.raw", {}),
        ("trials.0.status", "gone"),
        ("trials.0.status", "asked"),
        ("trials.0.number", 1),
        ("trials.0.metrics", {}),
        ("trials.0.metrics", {"final/val_accuracy": "0.5"}),
        ("trials.0.epochs", 10**30),
        ("trials.0.seconds", float("nan")),
        ("trials.0.run_id", "x"),
        ("trials.0", 5),
        ("trials.0.lr_scale", 1),
        ("trials", {}),
        ("order", [0, 0, 99]),
        ("order", [0, 0, 0]),
        ("order", [1, 0]),
        ("order", [False]),
        ("identity.sweep\0space", {}),
        ("identity", {}),
        ("name", "other"),
        ("id", "quick-1"),
        ("status", "sleeping"),
        ("seconds", 10**400),
        ("updated", "yesterday"),
        ("updated", "0001-01-01T00:00:00+14:00"),
        ("reason", "\ud800"),
        ("of_a_newer_version", 1),
    ],
)
def test_well_formed_nonsense_is_named_in_a_line(
    recorded: tuple[Config, dict[str, Any]], tmp_path: Path, path: str, value: Any
):
    config, record = recorded
    bad = copy.deepcopy(record)
    *parents, last = path.split(".")
    place: Any = bad
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(last) if isinstance(place, list) else last.replace("\0", ".")] = value
    said = behaves(config, tmp_path, json.dumps(bad), record)
    assert "state.json: not a sweep's state (" in said


def test_the_remedies_that_are_named_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    _, record = made("random")
    folder = put(tmp_path, "{", record["id"])
    sweeps = tmp_path / "sweeps"
    find = lambda fresh: find_state(sweeps, "quick", record["identity"], fresh=fresh)  # noqa: E731
    with pytest.raises(UserError, match=r"state\.json: not a sweep's state .*move its folder .*sweep\.fresh=true"):
        find(False)
    fresh, new, _ = find(True)
    fresh.save(new)
    again, _, said = find(False)
    assert again.id == fresh.id == f"{record['id']}-2" and "going on" in said
    shutil.rmtree(new)
    folder.rename(tmp_path / "elsewhere")
    assert find(False)[0].id == record["id"]
    assert capsys.readouterr().err == ""


def test_what_is_passed_over_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    _, record = made("random")
    folder = put(tmp_path, "{", record["id"])
    assert find_sweep(tmp_path / "sweeps")[0].name == "sound"
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"sweep {record['id']}: passed over: {folder}/state.json: not a sweep's state")
    find_state(tmp_path / "sweeps", "quick", {"other": 1}, fresh=False)
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(UserError, match="not a sweep's state"):
        find_sweep(tmp_path / "sweeps", "quick")


def test_a_fresh_sweep_has_a_folder_that_no_other_has_had(tmp_path: Path):
    _, record = made("random")
    for suffix in ("", "-3"):
        (tmp_path / f"{record['id']}{suffix}").mkdir()
    assert find_state(tmp_path, "quick", record["identity"], fresh=True)[0].id == f"{record['id']}-2"
    (tmp_path / f"{record['id']}-2").mkdir()
    assert find_state(tmp_path, "quick", record["identity"], fresh=True)[0].id == f"{record['id']}-4"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in a JSON value but itself."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*path, key)
        yield from places(each, (*path, key))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=5), SCALARS, max_size=2)


@st.composite
def damage(draw: st.DrawFn, record: dict[str, Any]) -> bytes:
    """The state's bytes after one or two changes."""
    if draw(st.integers(0, 9)) == 0:
        text = json.dumps(record).encode()
        at = draw(st.integers(0, len(text)))
        return text[:at] + draw(st.sampled_from([b"", b"\xff", b"}", text[at + 1 :], b"0" + text[at:]]))
    bad = copy.deepcopy(record)
    for _ in range(draw(st.integers(1, 2))):
        # Half of the changes go to trials and order: the identity has most keys.
        own = [p for p in places(bad) if p[0] != "identity"] if draw(st.booleans()) else list(places(bad))
        *parents, last = draw(st.sampled_from(own))
        place: Any = bad
        for key in parents:
            place = place[key]
        how = draw(st.sampled_from(["replace", "drop", "add", "change"]))
        if how == "drop":
            del place[last]
        elif how == "add" and isinstance(place, dict):
            place[draw(st.text(max_size=5))] = draw(VALUES)
        elif how == "add":
            place.insert(last, draw(VALUES))
        elif how == "change" and type(place[last]) in (int, float):
            place[last] += draw(st.sampled_from([-1, 1, 0.5, 10, 1e300, -1e-9]))
        else:
            place[last] = draw(VALUES)
    return json.dumps(bad).encode()


@pytest.mark.parametrize("oracle", ["tpe", "hyperband", "random"])
def test_no_damage_gives_more_than_a_line(oracle: str, tmp_path: Path):
    config, record = made(oracle)

    @given(damage(record))
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def check(text: bytes) -> None:
        behaves(config, tmp_path, text, record)

    check()
