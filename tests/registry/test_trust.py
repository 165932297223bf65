"""A registered model is loaded as data, and only while its files are what was registered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_champion import register

from fer_experiments import cli, tracking
from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.registry.versions import list_models, rollback
from fer_experiments.serving import loading
from fer_experiments.tracking import models
from fer_experiments.tracking.digests import digests
from fer_experiments.tracking.store import client_of

HERS = "from pathlib import Path\nPath({!r}).write_text('as the owner')\n"


@pytest.fixture
def config(registered: Config, tmp_path: Path) -> Config:
    """A registry of its own for a test that changes files."""
    return register(tmp_path / "own")


def files(config: Config) -> Path:
    return loading.find_model(config, "champion")[1]


def places(config: Config) -> list[str]:
    return [f"paths.mlruns={config.paths.mlruns}", f"paths.cache={config.paths.cache}"]


def predict(config: Config, folder: Path) -> int:
    Image.fromarray(np.zeros((12, 10), "uint8")).save(folder / "face.png")
    return cli.main(["predict", str(folder / "face.png"), "data=demo", *places(config)])


@pytest.mark.parametrize(
    "name", ["python_model.py", "classifier.py", "artifacts/hers.py", "MLmodel", "sitecustomize.py"]
)
def test_code_beside_a_model_is_never_run(config: Config, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]):
    """By who overwrites a file in the artifacts, or adds one, also where the digests were hers to record."""
    folder = files(config)
    ran = tmp_path / "ran"
    for path in {folder / name, *folder.rglob("*.py")}:
        path.write_text(HERS.format(str(ran)))
    changed = name == "MLmodel" or (folder / "classifier.py").exists()
    assert predict(config, tmp_path) == (2 if changed else 0)
    assert ("is not what was registered" in capfd.readouterr().err) == changed
    store = tracking.connect(config)
    version = models.find_version(store, "fer-demo", "champion")
    assert version is not None
    models.trust(store, version, tmp_path)
    assert predict(config, tmp_path) == 0
    assert not ran.exists()


@pytest.mark.parametrize("name", ["artifacts/network.keras", "artifacts/classes.json"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_file_that_is_something_else_by_now_is_refused_by_every_verb(
    config: Config, tmp_path: Path, name: str, how: str, capfd: pytest.CaptureFixture[str]
):
    path = files(config) / name
    if how == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    for verb in (["export", "format=savedmodel", f"output={tmp_path / 'out'}"], ["serve", "port=0"]):
        assert cli.main([*verb, "data=demo", *places(config)]) == 2
        said = capfd.readouterr().err
        assert f"models:/fer-demo/1: {name} is not what was registered" in said and said.count("\n") == 1
    assert predict(config, tmp_path) == 2


def test_a_copy_in_the_cache_is_checked_each_time(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """As of a server, whose files are elsewhere."""
    store, source = tracking.connect(config), files(config)
    monkeypatch.setattr(models, "is_here", lambda store, version: False)
    monkeypatch.setattr(models, "_fetch", lambda store, version, folder: Path(shutil.copytree(source, folder)))
    kept = files(config)
    assert kept.is_relative_to(config.paths.cache) and predict(config, tmp_path) == 0
    (kept / "artifacts" / "classes.json").write_text(json.dumps(["happy", "angry", "sad"]))
    assert predict(config, tmp_path) == 0
    assert "this copy is not what was registered, which is asked for again" in capfd.readouterr().err
    assert (kept / "artifacts" / "classes.json").read_bytes() == (source / "artifacts" / "classes.json").read_bytes()
    shutil.copytree(source, changed := tmp_path / "changed")
    (changed / "artifacts" / "classes.json").write_text(json.dumps(["happy", "angry", "sad"]))
    shutil.copytree(changed, kept, dirs_exist_ok=True)
    monkeypatch.setattr(models, "_fetch", lambda store, version, folder: Path(shutil.copytree(changed, folder)))
    assert predict(config, tmp_path) == 2
    assert "artifacts/classes.json is not what was registered" in capfd.readouterr().err
    assert store.uri


def test_a_version_without_digests_is_refused_until_it_is_trusted(
    config: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    store = tracking.connect(config)
    version = models.find_version(store, "fer-demo", "1")
    assert version is not None
    client, known = tracking.store.client_of(store), digests(files(config))
    for name in models.LOADED:  # whoever adds it later would have it read
        others = {path: digest for path, digest in known.items() if path != name}
        client.set_model_version_tag("fer-demo", "1", "fer.digests", json.dumps(others))
        assert predict(config, tmp_path) == 2
        assert f"models:/fer-demo/1: {name} has no digest, and is read" in capfd.readouterr().err
    client.delete_model_version_tag("fer-demo", "1", "fer.digests")
    assert predict(config, tmp_path) == 2
    said = capfd.readouterr().err
    assert f"models trust version=1 data=demo paths.mlruns={config.paths.mlruns}`" in said
    told = list_models(config, "trust", "1")
    assert f"of run {version.run_id} by" in told and version.source in told
    for name, digest in digests(files(config)).items():
        assert f"  {digest[:16]}  {name}" in told
    assert predict(config, tmp_path) == 0


def test_a_network_that_brings_code_is_refused(config: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Also by who may record its digests: Keras' safe mode."""
    import keras

    ran = tmp_path / "ran"
    inputs = keras.Input((12, 10), dtype="uint8")
    evil = keras.layers.Lambda(lambda x, ran=str(ran): __import__("pathlib").Path(ran).touch() or x)(inputs)
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(evil))
    keras.Model(inputs, outputs).save(files(config) / "artifacts" / "network.keras")
    ran.unlink(missing_ok=True)
    assert "recorded: it is loaded" in list_models(config, "trust", "champion")
    assert predict(config, tmp_path) == 2
    said = capfd.readouterr().err
    assert "cannot be loaded" in said and said.count("\n") == 1 and not ran.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "models trust: say version=<number or alias> and data.task="),
        (["version=7"], "version=7: fer-demo has no such version; `"),
    ],
)
def test_trust_names_what_it_is_not_told(
    config: Config, words: list[str], said: str, capfd: pytest.CaptureFixture[str]
):
    assert cli.main(["models", "trust", *words, "data=demo", *places(config)]) == 2
    assert said in capfd.readouterr().err


def test_rollback_without_a_previous_version_says_what_there_is(config: Config):
    """Whatever aliases and versions were removed in MLflow's UI."""
    store: Any = tracking.connect(config)
    with pytest.raises(UserError, match=r"^fer-demo: version 1 is the only one; there is nothing to go back to$"):
        rollback(config)
    for _ in range(2):
        models.add_version(store, "fer-demo", tracking.find_runs(store)[0].run_id, {}, {}, "")
    with pytest.raises(UserError, match=r"no version has the alias previous; choose with .* 3, 2, 1 \(champion\)$"):
        rollback(config)
    client_of(store).delete_registered_model_alias("fer-demo", "champion")
    with pytest.raises(UserError, match=r"no version has the alias previous; choose with version=, it has 3, 2, 1$"):
        rollback(config)
    for number in (1, 2, 3):
        client_of(store).delete_model_version("fer-demo", str(number))
    with pytest.raises(UserError, match=r"^fer-demo: nothing is registered in .*fer promote.* comes first$"):
        rollback(config)


def test_rollback_takes_no_version_that_was_changed(config: Config, tmp_path: Path):
    store: Any = tracking.connect(config)
    first = files(config)
    with tracking.start_run(store, "promotion", "second", system_metrics=False) as run:
        run.log_folder(first, "model")
    second = models.add_version(store, "fer-demo", run.id, digests(first), {}, "")
    champion = models.find_version(store, "fer-demo", "champion")
    assert champion is not None
    models.set_alias(store, champion, "previous")
    models.set_alias(store, second, "champion")
    (first / "artifacts" / "classes.json").write_text("[]")
    with pytest.raises(UserError, match="is not what was registered"):
        rollback(config)
    (first / "artifacts" / "network.keras").write_bytes(b"no zip")
    models.trust(store, champion, tmp_path / "trusted")
    with pytest.raises(
        UserError, match=r"^models:/fer-demo/1: cannot be loaded here \(.*\); restore its files or packages$"
    ):
        rollback(config)
    assert models.find_version(store, "fer-demo", "champion").number == 2  # type: ignore[union-attr]
