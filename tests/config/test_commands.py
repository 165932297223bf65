"""Commands that are printed: bash and Hydra read them as they were meant."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_experiments.config import (
    Config,
    PathsConfig,
    TrackingConfig,
    commands,
    experiment,
    mlruns_dir,
    project_root,
    read_yaml,
    to_dict,
)
from fer_experiments.config.commands import command, model_words, override, place, train_command, ui_command
from fer_experiments.config.compose import compose
from fer_experiments.config.parts import EXPERIMENT_SECTIONS
from fer_experiments.search import leaderboard
from fer_experiments.search.identity import trial_config
from fer_experiments.search.recorded import find_sweep
from fer_experiments.search.state import State, digest_of
from fer_experiments.search.trials import Trial
from fer_experiments.terminal import size

NASTY = st.text(st.sampled_from("aZ09 äß中=,:;()[]{}'\"\\/#&!*?~%$`|<>-+.@^\n\t"), min_size=1, max_size=12)
TEXTS = NASTY | st.sampled_from(["null", "True", "1e5", "07", "-", "~/a", "a b", "nan", "off", "'", '"', "\\", "a\\"])


ODD = TEXTS | st.sampled_from(["x${", "${a}", "\\${a}", "\\\\${", "a${b:c}\\", "$${"])


@settings(max_examples=20)  # of three texts each: composing takes most of the time
@given(st.tuples(ODD, ODD, ODD))
def test_hydra_reads_an_override_as_the_value_it_was_made_of(texts: tuple[str, ...]):
    keys = ("data.path", "paths.mlruns", "paths.cache")
    config = compose([override(key, text) for key, text in zip(keys, texts, strict=True)])
    assert (config.data.path, config.paths.mlruns, config.paths.cache) == texts


@settings(max_examples=20)
@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_bash_hands_a_commands_words_on_as_they_are(texts: list[str]):
    words = shlex.split(command())
    line = command(*texts).removeprefix(shlex.join(words)).strip()
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == texts


def test_the_default_places_are_not_named():
    assert place(Config()) == []
    assert place(Config(paths=PathsConfig(str(project_root() / "mlruns"), "cache"))) == []


def test_other_places_are_named_so_that_they_are_found_again():
    config = Config(
        tracking=TrackingConfig("http://host:5000", credentials="some where"), paths=PathsConfig("/a b/m", "c{}")
    )
    again = compose(place(config))
    assert (again.paths, again.tracking) == (config.paths, config.tracking)


def test_a_server_of_ours_is_named_with_its_group():
    config = compose(["tracking=server", "tracking.uri=http://host:5000", "paths.mlruns=/m"])
    assert "tracking.credentials" not in " ".join(place(config))
    assert compose(place(config)).tracking == config.tracking


def test_a_password_is_not_shown():
    config = Config(tracking=TrackingConfig("postgresql://me:secret@host/db"))
    assert "secret" not in command("sweep", config=config) + ui_command(config, str(config.tracking.uri))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], []),
        (["data=demo"], ["data=demo"]),
        (["data=fer2013_seven"], ["data=fer2013_seven"]),
        (["data.task=mine"], ["data.task=mine"]),
        (["data.name=nowhere", "data.task=mine"], ["data.task=mine"]),
        (["data=demo", "data.name=nowhere"], ["data.source=demo"]),
    ],
)
def test_a_model_is_asked_for_by_its_data(overrides: list[str], words: list[str]):
    from fer_experiments.tracking.models import model_name

    data = compose(overrides).data
    assert model_words(data) == words
    assert model_name(compose(words).data) == model_name(data)


def test_fer_is_named_as_it_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "fer"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    for called, cwd, expected in (
        ("bin/fer", tmp_path, "bin/fer"),
        (str(script), tmp_path, "bin/fer"),
        (str(script), Path("/usr"), str(script)),
        ("./fer", script.parent, "./fer"),
    ):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", [called, "sweep"])
        assert command("sweeps") == f"{expected} sweeps"
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    assert command("sweeps") == "fer sweeps"


def test_without_a_checkout_no_command_needs_make(monkeypatch: pytest.MonkeyPatch):
    uri = f"sqlite:///{project_root() / 'mlruns' / 'mlflow.db'}"
    assert "make" in ui_command(Config(), uri) and "make" in commands.get_data_command()
    monkeypatch.setattr(commands, "is_checkout", lambda: False)
    assert ui_command(Config(), uri) == command("ui")
    assert commands.get_data_command() == command("download")


def test_another_store_is_named_where_it_is_shown():
    config = Config(tracking=TrackingConfig("sqlite:////a b/mlflow.db"))
    words = shlex.split(ui_command(config, "sqlite:////a b/mlflow.db"))
    assert words[-2:] == ["ui", override("tracking.uri", "sqlite:////a b/mlflow.db")]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (31_000, "31.0 kB"), (2.5e9, "2.5 GB")]
)
def test_a_size_has_the_unit_that_fits_it(count: float, text: str):
    assert size(count) == text


def swept(folder: Path, *overrides: str) -> tuple[Config, State]:
    """A sweep of one trial as it is left on disk, where the folder has a space in its name."""
    config = compose(
        ["sweep=quick", override("paths.mlruns", f"{folder}/ml runs"), override("paths.cache", "a {cache}"), *overrides]
    )
    values = {"head.l2": 0.1, "head.dense_widths": [], "training.learning_rate": 0.1}
    metrics = {"final/val_accuracy_low": 0.4, "final/val_accuracy_high": 0.6}
    ended: dict[str, Any] = {"score": 0.5, "metrics": metrics, "epochs": 2, "best_epoch": 1, "seconds": 1.0}
    raw = {**values, "head.dense_widths": "[]"}
    trial = Trial(number=0, values=values, raw=raw, told=0.5, status="finished", run_id="b" * 32, **ended)
    space = {path: {"type": "float", "min": 0.01, "max": 1.0} for path in values}
    space["head.dense_widths"] = {"type": "choice", "values": [[], [32]]}
    identity = {"sweep.objective": "final/val_accuracy", "sweep.direction": "max", "sweep.space": space}
    name = f"quick-{digest_of(identity)}"
    state = State(name, "quick", identity, run_id="a" * 32, trials=[trial], order=[0, 0])
    state.save(folder / "ml runs" / "sweeps" / state.id)
    leaderboard.write(state, config, folder / "ml runs" / "sweeps" / state.id)
    return config, state


def printed(text: str) -> dict[str, list[str]]:
    """The commands after "next:", by their verb, as bash reads them."""
    lines = [line[2:].split("  ", 1)[1].strip() for line in text.partition("next:")[2].splitlines() if line.strip()]
    words = [shlex.split(line) for line in lines]
    start = len(shlex.split(command()))
    return {w[start]: w[start + 1 :] for w in words}


def test_a_sweep_ends_with_commands_that_find_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config, state = swept(tmp_path / "a b", "sweep.max_trials=1")
    folder = tmp_path / "a b" / "ml runs" / "sweeps" / state.id
    assert set(printed(leaderboard.text(state, config, folder))) == {"ui", "train", "promote"}, "a script has begun it"
    typed = [override(f"paths.{name}", getattr(config.paths, name)) for name in ("mlruns", "cache")]
    monkeypatch.setattr(sys, "argv", ["fer", "sweep", "sweep=quick", *typed])
    next_ = printed(leaderboard.text(state, config, folder))
    assert set(next_) == {"ui", "train", "promote", "sweep"}
    assert compose(next_["ui"]).paths == config.paths
    again = compose(next_["train"])
    assert (again.paths, again.head.l2) == (config.paths, 0.1)
    assert compose([w for w in next_["promote"] if not w.startswith("sweep=")]).paths == config.paths
    assert f"sweep={state.id}" in next_["promote"]
    more = compose(next_["sweep"])
    assert more.sweep is not None and more.sweep.max_trials == 2
    assert replace(more, sweep=None) == replace(config, sweep=None)


def test_the_best_config_is_the_experiment_alone(tmp_path: Path):
    config, state = swept(tmp_path, "compute=processes", "data.demo_size=700")
    best = read_yaml((mlruns_dir(config) / "sweeps" / state.id / "best.yaml").read_text(encoding="utf-8"))
    assert tuple(best) == EXPERIMENT_SECTIONS and best["data"]["demo_size"] == 700
    trained = train_command(to_dict(trial_config(config, state.trials[0])))
    assert experiment(to_dict(compose(shlex.split(trained)[2:]))) == best


def test_going_on_repeats_what_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, state = swept(tmp_path / "a b", "data.demo_size=700", "sweep.max_trials=1")
    typed = ["sweep=quick", override("paths.mlruns", config.paths.mlruns), 'paths.cache="a {cache}"']
    typed += ["data.demo_size=700", "sweep.max_trials=1", "sweep.fresh=true", "compute.address=host:1"]
    monkeypatch.setattr(sys, "argv", ["fer", "sweep", *typed])
    more = compose(printed(leaderboard.text(state, config, tmp_path / "a b"))["sweep"])
    assert more.sweep is not None and (more.sweep.max_trials, more.sweep.fresh) == (2, False)
    assert replace(more, sweep=None) == replace(config, sweep=None)


def test_the_sweep_that_was_chosen_by_itself_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, state = swept(tmp_path / "a b")
    monkeypatch.setattr(sys, "argv", ["fer", "sweep", override("paths.mlruns", config.paths.mlruns)])
    assert printed(leaderboard.text(state, config, tmp_path / "a b"))["sweep"][0] == "sweep=quick"


def test_printed_commands_run_in_bash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Those that take no time, from a folder whose name bash would read otherwise, where the store is no default."""
    config, state = swept(tmp_path / "a $b")
    here = tmp_path / "a $b" / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for verb, code, said in (("sweeps", 0, state.id), ("models", 2, "nothing is recorded there yet")):
        line = command(verb, config=config)
        done = subprocess.run(["bash", "-c", line], cwd=here, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert said in done.stdout + done.stderr
    remedy = done.stderr.split("`")[1]  # of `fer models`: the sweep that comes first
    assert compose(shlex.split(remedy)[len(shlex.split(command())) + 1 :]).paths.mlruns == config.paths.mlruns


def test_an_error_names_the_command_for_its_own_store(tmp_path: Path):
    from fer_experiments.errors import UserError

    with pytest.raises(UserError) as raised:
        find_sweep(tmp_path / "a b" / "sweeps")
    words = shlex.split(str(raised.value).split("`")[1])
    assert compose(words[len(shlex.split(command())) + 1 :]).paths.mlruns == str(tmp_path / "a b")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.classes", {"a": ["angry", "no"], "b c": ["happy"], "x:y,{": ["sad"]}),
        ("data.classes", None),
        ("data.path", "/some where/it's.zip"),
        ("data.path", "back\\slash\\"),
        ("data.path", "1e5"),
        ("data.clean", ["constant"]),
        ("backbone.scaling", {"mean": 1.5, "scale": 3}),
        ("backbone.layers", ["a, b", "c'd", 'e"f', "07", "1:2"]),
        ("training.deterministic", True),
        ("head.l2", 1e-7),
    ],
)
def test_any_config_becomes_a_command_that_composes_to_it(path: str, value: Any):
    container = to_dict(compose(["data=fer2013", "head=conv"]))
    section, key = path.split(".")
    container[section][key] = value
    assert to_dict(compose(shlex.split(train_command(container))[2:])) == container
