"""Sweeps of seconds: on drawn faces with the pocket backbone, in a real store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stores import store_in

from fer_experiments.config import Config, mlruns_dir
from fer_experiments.config.compose import compose
from fer_experiments.search.state import State
from fer_experiments.search.sweep import run_sweep
from fer_experiments.tracking import find_runs

SMALL = ["data.limit=60", "data.demo_size=600", "training.epochs=2", "tracking.system_metrics=false"]


def quick(paths: list[str], *overrides: str) -> Config:
    return compose(["sweep=quick", *SMALL, "sweep.max_trials=2", *paths, *overrides])


def run(config: Config) -> tuple[State, list[str]]:
    said: list[str] = []
    return run_sweep(config, said.append), said


def folder_of(config: Config, state: State) -> Path:
    return mlruns_dir(config) / "sweeps" / state.id


def runs_of(config: Config, **tags: str) -> list[Any]:
    return find_runs(store_in(mlruns_dir(config)), {f"fer.{k}": v for k, v in tags.items()})


def with_space(tmp_path: Path, paths: list[str], entry: str, *overrides: str) -> Config:
    """A grid over one hyperparameter."""
    file = tmp_path / "one.yaml"
    file.write_text(
        "defaults:\n  - override /data: demo\n  - override /backbone: pocket\n  - override /head: pooled\n"
        f"sweep:\n  oracle: grid\n  max_trials: null\n  space:\n    {entry}\n"
    )
    return compose([f"sweep={file}", *SMALL, *paths, *overrides])
