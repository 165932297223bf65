from __future__ import annotations

import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from fer_experiments.backbones.networks import load_backbone
from fer_experiments.backbones.views import shown
from fer_experiments.config import BackboneConfig, FeaturesConfig
from fer_experiments.errors import UserError
from fer_experiments.features.cache import FeatureSet, extract_features, open_features

ROOT = Path(__file__).resolve().parents[2]
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 12, 12), dtype=np.uint8)
SMALL = FeaturesConfig(precision="float32", batch_size=8, shard_size=16)

# What a second process runs: <weights> <cache> <images> <shard size>
PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/features")
from test_cache import backbone_of, extract, many
extract(Path(sys.argv[2]), backbone_of(sys.argv[1]), many(int(sys.argv[3])), shard_size=int(sys.argv[4]))
"""


def backbone_of(weights: Path | str) -> BackboneConfig:
    return BackboneConfig(
        name="small",
        kind="keras_file",
        weights=str(weights),
        input_size=16,
        layers=["second", "first"],
        scaling={"mean": 127.5, "scale": 128},
    )


def many(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 12, 12), dtype=np.uint8)


def extract(
    cache: Path, backbone: BackboneConfig, images: np.ndarray, said: list[str] | None = None, **changes: object
) -> FeatureSet:
    def echo(line: str) -> None:
        print(line, flush=True)
        if said is not None:
            said.append(line)

    return extract_features(images, f"of {len(images)}", backbone, replace(SMALL, **changes), cache, echo=echo)  # type: ignore[arg-type]


def shards(cache: Path, view: str = "original") -> list[Path]:
    return sorted(cache.glob(f"features/*/{view}/*.npy"))


def expected(backbone: BackboneConfig, images: np.ndarray) -> list[np.ndarray]:
    return load_backbone(backbone, images.shape[1:]).model.predict(images, verbose=0)


def test_features_are_what_keras_predicts_in_the_order_that_is_asked_for(
    tmp_path: Path, backbone: BackboneConfig
) -> None:
    features = extract(tmp_path, backbone, IMAGES)
    assert features.layers == ("second", "first")
    assert features.shapes == ((4, 4, 6), (8, 8, 4)) and features.count == 50 and features.dtype == "float16"
    rows = np.array([49, 0, 17, 16, 15, 17])
    for ours, theirs in zip(features.take(rows), expected(backbone, IMAGES), strict=True):
        assert ours.dtype == np.float16
        np.testing.assert_allclose(ours, theirs[rows], atol=5e-3)
    with pytest.raises(IndexError):
        features.take(np.array([50]))
    with pytest.raises(UserError, match="flip"):
        features.take(rows, "flip")


def test_the_flip_view_sees_mirrored_faces(tmp_path: Path, backbone: BackboneConfig) -> None:
    features = extract(tmp_path, backbone, IMAGES, views=["original", "flip", "crop2_flip"], dtype="float32")
    mirrored = np.ascontiguousarray(IMAGES[:, :, ::-1])
    seen = {"flip": mirrored, "crop2_flip": np.asarray(shown(mirrored, "crop1"))}
    for view, images in seen.items():
        for ours, theirs in zip(features.take(np.arange(50), view), expected(backbone, images), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_second_extraction_does_not_even_import_keras(tmp_path: Path, backbone: BackboneConfig) -> None:
    first = extract(tmp_path, backbone, IMAGES)
    code = f"""
import sys
from pathlib import Path
import numpy as np
from fer_experiments.config import BackboneConfig, FeaturesConfig
from fer_experiments.features.cache import extract_features
images = np.random.default_rng(0).integers(0, 256, (50, 12, 12), dtype=np.uint8)
print(extract_features(images, "of 50", {backbone!r}, {SMALL!r}, Path({str(tmp_path)!r})).fingerprint)
print("keras" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    said, fingerprint, keras_imported = done.stdout.strip().splitlines()
    assert said.startswith("features: 50 images from ") and said.endswith("(no image forwarded)")
    assert (fingerprint, keras_imported) == (first.fingerprint, "False")


def test_a_view_that_is_there_is_not_computed_again(tmp_path: Path, backbone: BackboneConfig) -> None:
    one = extract(tmp_path, backbone, IMAGES)
    before = [path.stat().st_mtime_ns for path in shards(tmp_path)]
    both = extract(tmp_path, backbone, IMAGES, views=["original", "flip"], shard_size=32)
    assert [path.stat().st_mtime_ns for path in shards(tmp_path)] == before
    assert (both.path, both.views) == (one.path, ("original", "flip"))
    assert both.fingerprint != one.fingerprint
    said: list[str] = []
    assert extract(tmp_path, backbone, IMAGES, said).fingerprint == one.fingerprint
    assert "no image forwarded" in said[-1]


def test_weights_that_are_replaced_in_place_are_read_anew(tmp_path: Path, backbone: BackboneConfig) -> None:
    own = replace(backbone, weights=str(tmp_path / "own.keras"))
    shutil.copy(str(backbone.weights), str(own.weights))
    first = extract(tmp_path, own, IMAGES)
    keras.utils.set_random_seed(1)
    model = keras.models.load_model(str(own.weights))
    model.set_weights([weight + 1 for weight in model.get_weights()])
    model.save(str(own.weights))
    second = extract(tmp_path, own, IMAGES)
    assert second.path != first.path
    rows = np.arange(50)
    for ours, theirs, before in zip(second.take(rows), expected(own, IMAGES), first.take(rows), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-3 * np.abs(theirs).max())
        assert np.abs(ours - before).max() > 1


def test_views_have_one_order_however_they_are_named(tmp_path: Path, backbone: BackboneConfig) -> None:
    orders = (["original", "flip", "crop1"], ["crop1", "original", "flip"])
    one, other = (extract(tmp_path, backbone, IMAGES, views=views) for views in orders)
    assert one.views == other.views == ("original", "flip", "crop1")


def test_each_ingredient_has_its_own_folder(tmp_path: Path, backbone: BackboneConfig) -> None:
    sets = [
        extract(tmp_path, backbone, IMAGES),
        extract(tmp_path, backbone, IMAGES, dtype="float32"),
        extract(tmp_path, backbone, IMAGES[:40]),
        extract(tmp_path, replace(backbone, pooling="avg"), IMAGES),
    ]
    assert len({features.path for features in sets}) == len({features.fingerprint for features in sets}) == 4


@pytest.fixture
def other_process(tmp_path: Path, backbone: BackboneConfig) -> Iterator[subprocess.Popen[str]]:
    """An extraction of 4,000 images in shards of 8, stopped in the act: some shards are there, and it may go on."""
    command = [sys.executable, "-c", PROCESS, str(backbone.weights), str(tmp_path), "4000", "8"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    while len(list(tmp_path.glob("features/*/original/*.json"))) < 3:
        assert process.poll() is None, "the extraction ended before it could be caught"
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)
    yield process
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def test_a_killed_extraction_is_taken_over_by_the_one_that_waits(
    tmp_path: Path, backbone: BackboneConfig, other_process: subprocess.Popen[str]
) -> None:
    said: list[str] = []
    waiting = threading.Thread(
        target=lambda: extract(tmp_path, backbone, many(4000), said, shard_size=8), name="the second extraction"
    )
    waiting.start()
    while not said:
        time.sleep(0.005)
    other_process.kill()
    other_process.wait()
    waiting.join()
    assert "waiting" in said[0] and "shards are there already" in said[1] and "4,000 images through small" in said[2]
    manifest = next(tmp_path.glob("features/*/original/manifest.json")).stat().st_mtime_ns
    kept = int(said[1].split()[1])
    assert 3 <= kept < 500 and len(shards(tmp_path)) == 1000
    assert all(path.stat().st_mtime_ns <= manifest for path in shards(tmp_path))
    features = open_features(next(tmp_path.glob("features/*")), ("original",))
    assert features is not None
    rows = np.arange(0, 4000, 37)
    for ours, theirs in zip(features.take(rows), expected(backbone, many(4000)[rows]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-3)


def test_two_processes_that_want_the_same_do_the_work_once(
    tmp_path: Path, backbone: BackboneConfig, other_process: subprocess.Popen[str]
) -> None:
    said: list[str] = []

    def let_it_go_on() -> None:
        while not said:
            time.sleep(0.005)
        other_process.send_signal(signal.SIGCONT)

    threading.Thread(target=let_it_go_on, daemon=True).start()
    extract(tmp_path, backbone, many(4000), said, shard_size=8)
    assert "waiting" in said[0] and "no image forwarded" in said[1]
    first, _ = other_process.communicate()
    assert other_process.returncode == 0 and "4,000 images through small" in first


def test_what_float16_cannot_hold_is_refused_with_the_remedy(tmp_path: Path, backbone: BackboneConfig) -> None:
    loud, faint = ({"mean": 0, "scale": scale} for scale in (1e-6, 1e9))
    with pytest.raises(UserError, match=r"over float16's 65,504: say features.dtype=float32"):
        extract(tmp_path, replace(backbone, scaling=loud), IMAGES)
    with pytest.raises(UserError, match=r"too small for float16 .* say features.dtype=float32"):
        extract(tmp_path, replace(backbone, scaling=faint), IMAGES)
    assert shards(tmp_path) == []
    assert extract(tmp_path, replace(backbone, scaling=loud), IMAGES, dtype="float32").dtype == "float32"


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, backbone: BackboneConfig) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written .* paths.cache=<folder>"):
        extract(tmp_path / "file", backbone, IMAGES)


def test_a_write_that_fails_half_way_is_named_and_leaves_no_half_file(tmp_path: Path, backbone: BackboneConfig) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # the second layer's 4 kB do not fit
    try:
        with pytest.raises(UserError, match="cannot be written"):
            extract(tmp_path, replace(backbone, layers=["first"]), IMAGES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.glob("features/*/original/*")) == []


def test_features_travel_to_another_process_without_their_content(tmp_path: Path, backbone: BackboneConfig) -> None:
    features = extract(tmp_path, backbone, IMAGES)
    rows = np.arange(50)
    before = features.take(rows)
    pickled = pickle.dumps(features)
    assert len(pickled) < 2000
    for one, other in zip(before, pickle.loads(pickled).take(rows), strict=True):
        np.testing.assert_array_equal(one, other)
