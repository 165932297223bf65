"""A small real sweep whose best trial is promoted into a real registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from stores import store_in

from fer_experiments import tracking
from fer_experiments.config import Config, DataConfig
from fer_experiments.config.compose import compose
from fer_experiments.data import open_test_split
from fer_experiments.experiment import record
from fer_experiments.registry.promote import promote
from fer_experiments.search.state import State
from fer_experiments.search.sweep import run_sweep
from fer_experiments.tracking import Store, find_runs, models

MODEL = "fer-demo"
FEW = ["promote.corruptions=0"]  # each image that is corrupted is asked about 41 times


class Room(NamedTuple):
    """A sweep of three trials whose best was promoted: version 1. said: what that promotion told its user. opened: each
    time that it opened the test split."""

    options: list[str]
    store: Store
    state: State
    said: list[str]
    opened: list[Any]

    def config(self, *overrides: str) -> Config:
        given = [o.partition("=")[0] for o in overrides]
        gate = [] if "gate" in given else ["gate=default"]
        return compose(["promote=default", *gate, *FEW, *self.options, *overrides])

    def aliases(self) -> dict[str, int]:
        return {alias: v.number for v in models.versions(self.store, MODEL) for alias in v.aliases}

    def runs(self, **tags: str) -> list[tracking.FoundRun]:
        return find_runs(self.store, {f"fer.{key}": value for key, value in tags.items()})


def promoted_sweep(folder: Path) -> Room:
    options = [
        "tracking.system_metrics=false", f"paths.mlruns={folder / 'mlruns'}", f"paths.cache={folder / 'cache'}",
    ]  # fmt: skip
    made = ["sweep=quick", "data.demo_size=1500", "training.epochs=8", "sweep.max_trials=3", *options]
    state = run_sweep(compose(made), lambda line: None)
    said: list[str] = []
    opened: list[Any] = []

    def counted(*given: Any, **options: Any) -> Any:
        opened.append(given)
        return open_test_split(*given, **options)

    room = Room(options, store_in(folder / "mlruns"), state, said, opened)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "open_test_split", counted)  # the only door
        how = [
            "promote.ensemble=seeds",
            "promote.abstain=0.1",
            "promote.note=Made in a test.",
            "promote.corruptions=16",
        ]
        promote(
            room.config("promote.top_k=2", "promote.seeds=2", "promote.note=Made in a test.", *how), echo=said.append
        )
    return room


def data_of(room: Room) -> DataConfig:
    return compose(["data=demo", "data.demo_size=1500"]).data
