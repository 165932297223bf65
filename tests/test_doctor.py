import importlib.util
import os
from dataclasses import replace

import keras
import pytest
from own_conf import conf_in

from fer_experiments import environment
from fer_experiments.config import Config, PathsConfig, TrackingConfig
from fer_experiments.doctor import report
from fer_experiments.training import precision


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A machine with nothing on it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FER2013", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return replace(Config(), paths=PathsConfig(mlruns=str(tmp_path / "mlruns"), cache=str(tmp_path / "cache")))


def line(text, start):
    return next(line for line in text.splitlines() if line.strip().startswith(start))


def test_one_screen_says_what_is_there(config):
    text = report(config)
    assert len(text.splitlines()) <= 40
    for start in ("Python", "Packages", "Backend", "GPU", "CPU", "Disk", "Tracking", "FER2013", "Weights", "Missing"):
        assert line(text, start)
    assert keras.distribution.list_devices()[0] in line(text, "Backend")
    assert "not there yet, the first run creates it" in line(text, "Tracking")


@pytest.mark.parametrize("there", [True, False])
def test_packages_without_bytecode_are_missing_it(config, tmp_path, monkeypatch, there):
    file = tmp_path / "keras.pyc"
    if there:
        file.write_bytes(b"")
    monkeypatch.setattr(importlib.util, "cache_from_source", lambda path: str(file))
    assert (" -m compileall -q -j 0 " in report(config)) == (not there)


def test_heads_that_bear_it_are_fitted_in_bfloat16_where_that_is_faster(config, monkeypatch):
    for fast, expected in (True, "mixed_bfloat16"), (False, "float32"):
        monkeypatch.setattr(precision, "computes_products_in_bfloat16", lambda fast=fast: fast)
        assert f"conv in float32, linear in float32, paper in {expected}," in line(report(config), "Heads")


def test_looking_creates_nothing(config, tmp_path):
    report(config)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_there_get_one_remedy(config, tmp_path):
    text = report(config)
    assert "not there: mobilenet_v2" in line(text, "mobilenet_v2")
    assert f"into {tmp_path / 'keras' / 'models'}, or" in line(text, "- public weights")
    assert "not there: rcmalli_vggface_tf_notop_resnet50.h5 (95 MB)" in line(text, "resnet50_vggface2")
    assert text.count("public weights") == 1


def test_weights_in_kerass_folder_are_found(config, tmp_path):
    file = tmp_path / "keras" / "models" / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(3_000_000))
    assert f"{file} (3 MB)" in line(report(config), "resnet50")


def test_backbones_of_ones_own_are_listed_and_one_that_cannot_be_read_is_missing(config, tmp_path, monkeypatch):
    folder = conf_in(tmp_path, monkeypatch) / "backbone"
    (folder / "mine.yaml").write_text("defaults: [pocket, _self_]\nname: mine\n")
    (folder / "odd.yaml").write_text("defaults: [pocket, _self_]\nname: odd\ncolour: blue\n")
    text = report(config)
    there, _, missing = text.partition("\nMissing\n")
    assert line(there, "mine").split()[1:] == line(there, "pocket").split()[1:], "what it inherits"
    assert line(there, "odd").split(maxsplit=1)[1] == "cannot be read"
    assert "colour" in line(missing, "- conf/backbone/odd.yaml: ") and "mine" not in missing


def test_fer2013_at_hand_is_named(config, tmp_path, monkeypatch):
    archive = tmp_path / "fer2013.zip"
    archive.write_bytes(b"PK")
    monkeypatch.setenv("FER2013", str(archive))
    assert line(report(config), "FER2013").endswith(str(archive))


def test_a_wrong_fer2013_is_missing_with_its_remedy(config, monkeypatch):
    monkeypatch.setenv("FER2013", "/nowhere/fer2013.zip")
    assert "no file or folder /nowhere/fer2013.zip" in line(report(config), "- $FER2013")


def test_data_that_are_not_there_are_named_with_their_remedy(config):
    for path, said in (("/nope/fer.zip", "is not there"), ("~nosuchuser/x", "is no path")):
        asked = replace(config, data=replace(config.data, path=path))
        assert said in line(report(asked), f"- data.path={path}:")
        assert "make data" not in report(asked)


def test_a_store_that_cannot_be_used_is_missing_with_its_remedy(config, tmp_path):
    (tmp_path / "mlruns").write_text("")
    assert "paths.mlruns=<folder>" in line(report(config), f"- {tmp_path / 'mlruns'}: cannot be written")
    server = replace(config, tracking=TrackingConfig(uri="http://127.0.0.1:9"))
    assert "no server answers" in line(report(server), "- tracking.uri=http://127.0.0.1:9")


def test_a_gpu_that_the_backend_does_not_see_is_missing_with_its_remedy(config, tmp_path, monkeypatch):
    if any(device.startswith("gpu") for device in keras.distribution.list_devices()):
        pytest.skip("the backend sees a GPU here")
    driver = tmp_path / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB, 580.1'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{driver.parent}{os.pathsep}{os.environ['PATH']}")
    environment.hardware.cache_clear()
    text = report(config)
    environment.hardware.cache_clear()
    assert "NVIDIA H100 (81559 MiB, driver 580.1)" in line(text, "GPU")
    assert "sees no GPU" in line(text, "- ")
