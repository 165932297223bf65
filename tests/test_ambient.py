"""What surrounds a process changes no result: settings of Keras, variables, warnings filters, the locale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
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

# Features of the pocket backbone, then a fit of a head on them.
MODULE = """
import hashlib, sys
import numpy as np
from in_memory import make_dataset
from fer_experiments.config.compose import compose
from fer_experiments.config import TrainingConfig

def digests(cache):
    from pathlib import Path
    from fer_experiments.features.cache import extract_features
    from fer_experiments.training.fit import fit_head
    config = compose(["data=demo", "backbone=pocket", "head=paper"])
    dataset = make_dataset(np.arange(90) % 2, ("a", "b"))
    features = extract_features(dataset.images, "x", config.backbone, config.features, Path(cache), echo=lambda line: 0)
    fit = fit_head(features, dataset, config.head, TrainingConfig(epochs=2, deterministic=True))
    assert "jaxlib" not in sys.modules  # a second of each start, for nothing
    stored = hashlib.sha256(np.ascontiguousarray(features.take(np.arange(90))[0]).tobytes()).hexdigest()
    return [features.fingerprint, stored, len(fit.history), fit.val_probabilities.tobytes().hex()]
"""
# That in this process or in a worker process: <cache> <place>. Nothing of it is run again in a worker.
PROGRAM = """
import json, sys
from digests import digests
from fer_experiments.config import ComputeConfig
from fer_experiments.executors.executor import open_executor

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
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(PROGRAM)
    path.with_name("digests.py").write_text(MODULE)
    return path


@pytest.fixture(scope="module")
def clean(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return in_process(program, tmp_path_factory.mktemp("clean") / "cache", "inline", None, {})


@pytest.mark.parametrize(("settings", "place"), [("half", "inline"), ("double", "processes")])
def test_settings_and_variables_change_neither_features_nor_fits(
    settings: str, place: str, program: Path, clean: Any, tmp_path: Path
):
    variables = {k: v for k, v in VARIABLES.items() if place == "processes" or k != "PYTHONWARNINGS"}
    assert in_process(program, tmp_path / "cache", place, SETTINGS[settings], variables) == clean


ALONE = """
import sys
import mlflow.pyfunc, numpy
table = mlflow.pyfunc.load_model(sys.argv[1]).predict(numpy.load(sys.argv[2]))
numpy.save(sys.argv[3], table.filter(regex="^probability_").to_numpy())
if any(name.startswith("fer_experiments") for name in sys.modules):
    sys.exit("the model needs this package")
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """The folder of a model, images, and what it says of them where nothing is set."""
    from fer_experiments.config.compose import compose
    from fer_experiments.serving.export import predict_fresh
    from fer_experiments.tracking.models import save_classifier
    from fer_experiments.training.heads import build_head
    from fer_experiments.training.whole import assemble

    folder = tmp_path_factory.mktemp("saved") / "model"
    config = compose(["data=demo", "backbone=pocket", "head=conv", "head.normalize=false"])
    head = build_head(config.head, [(6, 6, 160)], 2, precision="mixed_bfloat16")
    save_classifier(assemble(config.backbone, (48, 48), [head], ["original", "flip"], 2, 1.5), ["a", "b"], folder)
    images = np.random.default_rng(0).integers(0, 256, (40, 48, 48), dtype=np.uint8)
    return folder, images, predict_fresh("the model", ALONE, [str(folder)], images)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_registered_model_without_the_package_is_independent_of_keras_settings(
    settings: str, saved: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from fer_experiments.serving.export import predict_fresh

    folder, images, plain = saved
    (tmp_path / "keras.json").write_text(json.dumps(SETTINGS[settings]))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    np.testing.assert_array_equal(predict_fresh("the model", ALONE, [str(folder)], images), plain)


@pytest.mark.parametrize(
    ("variables", "settings", "message"),
    [
        ({"KERAS_BACKEND": "torch"}, None, "KERAS_BACKEND=torch: not supported; choose one of tensorflow, jax"),
        ({"KERAS_BACKEND": "nonsense"}, None, "KERAS_BACKEND=nonsense: not supported"),
        ({}, {"floatx": "bfloat16"}, "keras.json: Keras does not take it"),
        ({}, [], "keras.json: Keras does not take it"),
    ],
)
def test_what_keras_cannot_be_imported_with_is_named(
    variables: dict[str, str], settings: Any, message: str, tmp_path: Path
):
    if settings is not None:
        (tmp_path / "keras.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "fer_experiments.cli", "doctor", f"paths.mlruns={tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "KERAS_HOME": str(tmp_path), **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_backend_in_keras_settings_is_not_obeyed(tmp_path: Path):
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": ""}
    program = "import fer_experiments, keras; print(keras.config.backend())"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "tensorflow", done.stderr
