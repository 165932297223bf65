"""Every experiment and every sweep runs: a few images, one step of everything."""

from __future__ import annotations

from pathlib import Path

import pytest
from face_files import random_faces, tree, write_zip

from fer_experiments.config import config_dir, mlruns_dir, sweeps_dir
from fer_experiments.config.compose import compose
from fer_experiments.experiment.train import train
from fer_experiments.search.sweep import run_sweep

EXPERIMENTS = sorted(p.stem for p in (config_dir() / "experiment").glob("*.yaml"))
SWEEPS = sorted(p.stem for p in sweeps_dir().glob("*.yaml"))


@pytest.fixture(scope="module")
def fer2013(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pictures in the files of FER2013: one step looks at no more, and 35,887 take minutes to clean."""
    faces = random_faces(per_cell=20)
    return write_zip(tmp_path_factory.mktemp("fer2013") / "fer2013.zip", list(tree(faces).items()))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: sweeps and experiments look at the same few pictures through the same backbones."""
    return tmp_path_factory.mktemp("cache")


def smoke(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> list[str]:
    """Overrides for one step: random weights for ImageNet's."""
    config = compose([name])
    overrides = [name, "training.smoke=true", f"paths.mlruns={tmp_path}/mlruns"]
    overrides.append(f"paths.cache={request.getfixturevalue('cache')}")
    if config.data.source == "fer2013":
        overrides.append(f"data.path={request.getfixturevalue('fer2013')}")
    if config.backbone.weights == "imagenet":
        overrides.append("backbone.weights=null")
    elif str(config.backbone.weights).startswith("../shared/"):
        request.getfixturevalue("shared")
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
    assert state.status == "finished" and all(t.status == "finished" for t in state.trials)
    assert (mlruns_dir(config) / "sweeps" / state.id / "best.yaml").is_file()
