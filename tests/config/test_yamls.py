"""Every experiment and every sweep runs: a few images, one step of everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_experiments.config import config_dir, mlruns_dir, sweeps_dir
from fer_experiments.config.compose import compose
from fer_experiments.experiment.train import train
from fer_experiments.search.sweep import run_sweep

EXPERIMENTS = sorted(p.stem for p in (config_dir() / "experiment").glob("*.yaml"))
SWEEPS = sorted(p.stem for p in sweeps_dir().glob("*.yaml"))


def smoke(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> list[str]:
    """Overrides for one step: real faces where the YAML asks for them, random weights for ImageNet's."""
    config = compose([name])
    overrides = [name, "training.smoke=true", f"paths.mlruns={tmp_path}/mlruns", f"paths.cache={tmp_path}/cache"]
    if config.data.source == "fer2013":
        overrides.append(f"data.path={request.getfixturevalue('fer2013_zip')}")
    if config.backbone.weights == "imagenet":
        overrides.append("backbone.weights=null")
    return overrides


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_one_step(name: str, tmp_path: Path, request: pytest.FixtureRequest):
    config = compose(smoke(f"experiment={name}", tmp_path, request))
    final = train(config, echo=lambda line: None)
    assert 0 <= final["final/val_accuracy"] <= 1


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_runs_one_step(name: str, tmp_path: Path, request: pytest.FixtureRequest):
    config = compose(smoke(f"sweep={name}", tmp_path, request))
    state = run_sweep(config, lambda line: None)
    assert state.status == "finished" and all(t["status"] == "finished" for t in state.trials)
    assert (mlruns_dir(config) / "sweeps" / state.id / "best.yaml").is_file()
