"""Extraction spread over workers, and features on their way to a machine without them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_cache import IMAGES, SMALL, backbone_of, extract, many, shards

from fer_experiments.backbones.networks import backbone_fingerprint
from fer_experiments.config import BackboneConfig, ComputeConfig
from fer_experiments.errors import UserError
from fer_experiments.executors.executor import Lost, open_executor
from fer_experiments.executors.inline import Inline
from fer_experiments.features.cache import extract_features, open_features
from fer_experiments.features.extraction import Source, _check_fit, _source, sample_features
from fer_experiments.features.travel import pack


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> BackboneConfig:
    import keras

    keras.utils.set_random_seed(0)
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="first")(pixels)
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", name="second")(x)
    path = tmp_path_factory.mktemp("trunk") / "trunk.keras"
    keras.Model(pixels, x).save(path)
    return backbone_of(path)


def test_workers_store_what_one_process_stores_though_one_is_killed(tmp_path: Path, trunk: BackboneConfig):
    images = many(200)
    alone = extract(tmp_path / "alone", trunk, images)
    with open_executor(ComputeConfig(name="processes", workers=2)) as executor:
        kill = threading.Thread(target=_kill_one, args=(tmp_path / "spread",), daemon=True)
        kill.start()
        spread = extract_features(
            images, f"of {len(images)}", trunk, SMALL, tmp_path / "spread", echo=lambda line: None, executor=executor
        )
    rows = np.arange(len(images))
    for one, other in zip(alone.take(rows), spread.take(rows), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [p.name for p in shards(tmp_path / "spread")] == [p.name for p in shards(tmp_path / "alone")]


def _kill_one(cache: Path) -> None:
    """Kills a worker once the first shard is stored."""
    while not shards(cache):
        time.sleep(0.005)
    workers = multiprocessing.active_children()
    if workers and workers[0].pid:
        os.kill(workers[0].pid, signal.SIGKILL)


@pytest.mark.parametrize("deadly", ["sample_features", "shard_features"])
def test_work_that_kills_every_worker_ends_the_extraction(tmp_path: Path, trunk: BackboneConfig, deadly: str):
    class Deadly(Inline):
        def submit(self, call, /, *args):  # type: ignore[no-untyped-def]
            future = super().submit(call, *args)
            if call.__name__ == deadly:
                future = type(future)()
                future.set_exception(Lost("worker process 1 was killed by SIGKILL"))
            return future

    with pytest.raises(UserError, match=r"3 workers died of the same images.*SIGKILL; lower features\.batch_size"):
        extract_features(IMAGES, "of 50", trunk, SMALL, tmp_path, echo=lambda line: None, executor=Deadly())
    assert shards(tmp_path) == []


def test_features_are_unpacked_where_they_are_missing_and_left_alone_where_they_are(
    tmp_path: Path, trunk: BackboneConfig
):
    features = extract(tmp_path / "here", trunk, IMAGES, views=["original", "flip"])
    packed = pack(features, Inline())
    there = packed.unpack(tmp_path / "there")
    rows = np.arange(len(IMAGES))
    for view in features.views:
        for one, other in zip(features.take(rows, view), there.take(rows, view), strict=True):
            np.testing.assert_array_equal(one, other)
    assert there.path.is_relative_to(tmp_path / "there") and there.fingerprint == features.fingerprint
    assert open_features(there.path, features.views) is not None, "complete for the next process too"
    written = {p: p.stat().st_mtime_ns for p in shards(tmp_path / "there")}
    packed.unpack(tmp_path / "there")
    assert {p: p.stat().st_mtime_ns for p in shards(tmp_path / "there")} == written


def test_a_worker_without_the_weights_gets_them(tmp_path: Path, trunk: BackboneConfig):
    weights = Path(str(trunk.weights))
    decided = replace(SMALL, engine="openvino")
    expected = sample_features(Source(trunk, decided), IMAGES[:4])
    content = Inline().share(weights.read_bytes())
    elsewhere = backbone_of(f"/nowhere/{weights.name}")
    got = sample_features(Source(elsewhere, decided, content, tmp_path, backbone_fingerprint(trunk)), IMAGES[:4])
    for layer in expected:
        np.testing.assert_allclose(got[layer], expected[layer], rtol=1e-6)
    assert len(list((tmp_path / "weights").glob("*.keras"))) == 1


def test_a_worker_whose_backbone_is_another_refuses(trunk: BackboneConfig, tmp_path: Path):
    assert _source(trunk, SMALL, tmp_path, Inline()).fingerprint == backbone_fingerprint(trunk)
    with pytest.raises(UserError, match=r"its files on .* are others than where the work was given out; put the same"):
        sample_features(Source(trunk, replace(SMALL, batch_size=3), fingerprint="another"), IMAGES[:4])


def test_too_little_space_is_said_in_units_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1500))
    sample = {"top": np.ones((2, 8), "float32")}
    with pytest.raises(UserError, match=r"the features take 32\.0 kB and 1\.5 kB are free in .*: free space, say "):
        _check_fit(sample, "float16", 2000, tmp_path)
