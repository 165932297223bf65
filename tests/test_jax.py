"""KERAS_BACKEND=jax: the same commands without TensorFlow, and models that open with either."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_sweeps import SMALL
from stores import config_in

from fer_experiments.serving.loading import load_model

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("jax", reason="JAX is not installed: the extra jax")

# Commands one after another in a process that TensorFlow cannot be imported in: <commands as JSON>
PROGRAM = """
import json, sys
class Refused:
    def find_spec(self, name, *where):
        if name.partition(".")[0] == "tensorflow":
            raise ImportError("TensorFlow is imported")
sys.meta_path.insert(0, Refused())
from fer_experiments.cli import main
for command in json.loads(sys.argv[1]):
    print("\\n===", flush=True)
    if code := main(command):
        sys.exit(code)
import keras
assert keras.config.backend() == "jax"
"""


def by_jax(*commands: list[str], places: list[str]) -> list[str]:
    """What each of these commands says."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([[*command, *places] for command in commands])],
        cwd=ROOT, env={**os.environ, "KERAS_BACKEND": "jax"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.split("\n===\n")[1:]


def test_a_sweep_its_promotion_and_predictions_need_no_tensorflow(tmp_path: Path):
    face = np.random.default_rng(0).integers(0, 255, (48, 48), dtype=np.uint8)
    Image.fromarray(face).save(tmp_path / "face.png")
    sweep, _, table = by_jax(
        ["sweep", "sweep=quick", *SMALL, "data.limit=300", "data.demo_size=900", "sweep.max_trials=2"],
        [
            "promote",
            "promote.seeds=1",
            "promote.top_k=1",
            "promote.corruptions=2",
            "gate=none",
            "tracking.system_metrics=false",
        ],
        ["predict", "data=demo", str(tmp_path / "face.png"), "--csv"],
        places=[f"paths.mlruns={tmp_path / 'mlruns'}", f"paths.cache={tmp_path / 'cache'}"],
    )
    assert "(jax, float32)" in sweep and "2 trials, best " in sweep
    row = next(csv.DictReader(io.StringIO(table)))
    said = [float(row[f"probability_{name}"]) for name in ("negative", "positive")]
    classifier: Any = load_model(config_in(tmp_path / "mlruns", task="demo"), "champion")[1]  # here TensorFlow asks it
    np.testing.assert_allclose(classifier.probabilities(face[None])[0], said, atol=1e-4)


def test_what_holds_of_heads_and_fits_and_several_devices_holds_with_jax():
    tests = [f"tests/training/test_{name}.py" for name in ("fit", "mixup", "heads", "pruning", "devices")]
    # Each head once, with two classes or with seven; TensorFlow's graphs are not JAX'.
    own_loop = "tests/training/test_fit.py::test_learning_curves_and_weights_are_those_of_keras_own_loop"
    others = [f"{own_loop}[{head}]" for head in ("conv-7", "paper-2", "pooled-7", "linear-2")]
    others.append("tests/training/test_fit.py::test_fits_leave_no_graphs_behind")
    left_out = [f"--deselect={test}" for test in others]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *tests, *left_out]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    by_two = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run(command, cwd=ROOT, env={**environment, **by_two}, capture_output=True, text=True)
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout[-4000:]
