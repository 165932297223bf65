"""Recorded runs that are to be fitted again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from fer_experiments import tracking
from fer_experiments.config import recorded, to_yaml
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.registry.candidates import choose
from fer_experiments.search.state import State, digest_of
from fer_experiments.search.trials import Trial


def test_a_run_whose_config_is_gone_is_named(tmp_path: Path):
    config = compose(["data=demo", "backbone=pocket", "head=linear", "promote=default", f"paths.mlruns={tmp_path}"])
    store = tracking.connect(config)
    with tracking.start_run(store, "train", "mine", recorded(config), system_metrics=False) as run:
        run.log_text(to_yaml(recorded(config)), "config.yaml")
    (candidate,) = choose(config, store, None, run.id).candidates
    assert (candidate.run_id, candidate.config.head) == (run.id, config.head)
    identity = {"sweep.objective": "final/val_accuracy", "sweep.direction": "max"}
    ended: dict[str, Any] = {
        "score": 0.5,
        "metrics": {f"final/val_accuracy_{end}": 0.5 for end in ("low", "high")},
        "run_id": run.id,
    }
    trial = Trial(number=0, status="finished", told=0.5, epochs=2, best_epoch=1, seconds=0.0, **ended)
    state = State(f"quick-{digest_of(identity)}", "quick", identity, trials=[trial], order=[0, 0])
    state.save(tmp_path / "sweeps" / state.id)
    (artifacts,) = tmp_path.rglob("config.yaml")
    shutil.rmtree(artifacts.parent)
    for sweep, run_id, name in ((None, run.id, "run"), (state.id, None, "trial 0")):
        with pytest.raises(UserError) as refused:
            choose(config, store, sweep, run_id)
        gone = f"{name} ({run.id}): its config.yaml is gone from {store}; bring it back from a copy"
        assert str(refused.value) == gone
