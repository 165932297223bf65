"""The sealed test split has one door, and who opens it is on record before anything is read."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import fer_experiments
from fer_experiments import tracking
from fer_experiments.config import Config
from fer_experiments.config.compose import compose
from fer_experiments.data import load_dataset
from fer_experiments.errors import UserError
from fer_experiments.experiment import record
from fer_experiments.experiment.record import open_sealed_test
from fer_experiments.experiment.train import train_many

PACKAGE = Path(fer_experiments.__file__).parent


def users_of(name: str) -> set[str]:
    """The files of the package in which a name stands for something."""
    return {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if getattr(node, "id", None) == name or getattr(node, "attr", None) == name
    }


def test_the_test_split_is_read_in_one_place_that_promotions_and_pretraining_go_through():
    assert users_of("open_test_split") == {"experiment/record.py"}
    assert users_of("open_sealed_test") == {"experiment/pretrain.py", "registry/sealed.py"}
    assert users_of("TestSplit") <= {"experiment/record.py", "data/dataset.py", "registry/sealed.py"}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    small = ["data=demo", "data.demo_size=300", "backbone=pocket", "head=linear", "tracking.system_metrics=false"]
    return compose([*small, f"paths.mlruns={tmp_path / 'mlruns'}"])


def run_of(config: Config) -> Any:
    store = tracking.connect(config)
    return store, tracking.start_run(store, "promotion", "opening")


def test_a_run_is_marked_as_an_opening_before_any_label_is_read(config: Config, monkeypatch: pytest.MonkeyPatch):
    dataset = load_dataset(config.data)
    marked: list[str] = []

    def killed_while_reading(*args: Any, **kwargs: Any) -> Any:
        (run,) = tracking.find_runs(store)
        marked.append(run.tags.get("fer.test_opened", ""))
        raise KeyboardInterrupt

    store, opening = run_of(config)
    monkeypatch.setattr(record, "open_test_split", killed_while_reading)
    with pytest.raises(KeyboardInterrupt), opening as run:
        open_sealed_test(run, config, dataset)
    assert marked == [dataset.fingerprint]
    (run,) = tracking.find_runs(store)
    assert (run.status, run.tags["fer.test_opened"]) == ("KILLED", dataset.fingerprint)


def test_data_that_changed_meanwhile_are_refused_in_a_line(config: Config):
    _, opening = run_of(config)
    other = load_dataset(compose(["data=demo", "data.demo_size=320"]).data)
    with pytest.raises(UserError, match=r"data=demo: changed while this command ran"), opening as run:
        open_sealed_test(run, config, other)


@pytest.mark.parametrize("other", ["paths.mlruns=elsewhere", "data.task=other", "tracking.uri=http://127.0.0.1:9"])
def test_a_multirun_is_in_one_place(other: str, config: Config) -> None:
    elsewhere = compose(["data=demo", f"paths.mlruns={config.paths.mlruns}", other])
    with pytest.raises(UserError, match=r"^the jobs of a multirun are under one run: give them one data\.task"):
        train_many([config, elsewhere])
    assert not Path(config.paths.mlruns).exists()
