"""What surrounds a process changes no result: settings of Keras, variables, warnings filters, the locale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

SETTINGS: dict[str, dict[str, Any]] = {
    "half": {"floatx": "float16", "epsilon": 1e-3, "image_data_format": "channels_first"},
    "double": {"floatx": "float64", "backend": "jax"},
}
VARIABLES = {
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_MAX_STEPS_PER_EPOCH": "1",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "KERASTUNER_TUNER_ID": "chief",
    "PYTHONWARNINGS": "error",
}

# Features of the pocket backbone, then a fit of a head on them, here and in a worker process: <cache> <place>
PROGRAM = """
import hashlib, json, sys
import numpy as np
from rooms import make_dataset
from fer_experiments.compose import compose
from fer_experiments.config import ComputeConfig, TrainingConfig
from fer_experiments.executors import open_executor

def digests(cache):
    from pathlib import Path
    from fer_experiments.features import extract_features
    from fer_experiments.training import fit_head
    config = compose(["data=demo", "backbone=pocket", "head=paper"])
    dataset = make_dataset(np.arange(90) % 2, ("a", "b"))
    features = extract_features(dataset.images, "x", config.backbone, config.features, Path(cache), echo=lambda line: 0)
    fit = fit_head(features, dataset, config.head, TrainingConfig(epochs=2, deterministic=True))
    stored = hashlib.sha256(np.ascontiguousarray(features.take(np.arange(90))[0]).tobytes()).hexdigest()
    return [features.fingerprint, stored, len(fit.history), fit.val_probabilities.tobytes().hex()]

if __name__ == "__main__":
    cache, place = sys.argv[1:]
    with open_executor(ComputeConfig(name=place, workers=1)) as executor:
        print(json.dumps(executor.submit(digests, cache).result()))
"""


def in_process(
    program: Path, cache: Path, place: str, settings: dict[str, Any] | None, variables: dict[str, str]
) -> Any:
    home = cache.with_name(f"{cache.name}-home")
    home.mkdir()
    if settings is not None:
        (home / "keras.json").write_text(json.dumps(settings))
    environment = {**os.environ, **variables, "KERAS_HOME": str(home), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    environment.pop("KERAS_BACKEND", None)
    done = subprocess.run(
        [sys.executable, str(program), str(cache), place], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "digests.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def clean(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return in_process(program, tmp_path_factory.mktemp("clean") / "cache", "inline", None, {})


@pytest.mark.parametrize(("settings", "place"), [("half", "inline"), ("half", "processes"), ("double", "inline")])
def test_settings_and_variables_change_neither_features_nor_fits(
    settings: str, place: str, program: Path, clean: Any, tmp_path: Path
):
    variables = {k: v for k, v in VARIABLES.items() if place == "processes" or k != "PYTHONWARNINGS"}
    assert in_process(program, tmp_path / "cache", place, SETTINGS[settings], variables) == clean
