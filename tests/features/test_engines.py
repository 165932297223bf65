"""Every engine against Keras itself, what `auto` comes to, and what engine and precision change."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import keras
import numpy as np
import pytest
from test_cache import IMAGES, backbone_of, expected, extract

from fer_experiments.backbones.networks import Backbone, load_backbone
from fer_experiments.config import AUTO, BackboneConfig, FeaturesConfig
from fer_experiments.config.compose import compose
from fer_experiments.environment import hardware
from fer_experiments.errors import UserError
from fer_experiments.features import engine
from fer_experiments.features.engine import ENGINES, check_parity, compile_forward, decisions, joined
from fer_experiments.features.engines import Compiled

HERE = [(name, p) for name, (precisions, needed) in ENGINES.items() for p in precisions if needed == "tensorflow"]


@pytest.fixture(scope="module")
def loaded(backbone: BackboneConfig) -> Backbone:
    return load_backbone(backbone, (12, 12))


@pytest.mark.parametrize(("name", "precision"), HERE)
@pytest.mark.parametrize("count", [1, 8, 50])  # of batches of 8: less than one, one, more than are ahead and a rest
def test_an_engine_gives_what_keras_gives_in_order(loaded: Backbone, name: str, precision: str, count: int):
    forward = compile_forward(loaded, 8, name, precision)
    parts = list(forward(IMAGES[:count]))
    assert sum(len(second) for second, _ in parts) == count and all(0 < len(second) <= 8 for second, _ in parts)
    theirs = loaded.model.predict(IMAGES[:count], verbose=0)
    for ours, keras_own in zip(joined(iter(parts)), theirs, strict=True):
        assert ours.dtype == np.float32 and ours.shape == keras_own.shape
        errors = np.linalg.norm((ours - keras_own).reshape(count, -1), axis=1)
        allowed = 0.03 if precision == "bfloat16" else 1e-5
        assert (errors <= allowed * np.linalg.norm(keras_own.reshape(count, -1), axis=1)).all(), "each image its own"
    again = joined(forward(IMAGES[:count]))
    assert all(np.array_equal(one, other) for one, other in zip(again, joined(iter(parts)), strict=True))


def test_a_network_that_another_thread_frees_leaves_signals_as_they_were():
    code = """
import signal, threading
import numpy as np
import openvino.opset15 as operations
from openvino import Model
from fer_experiments.features.engines.openvino import compiled
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
pixels = operations.parameter([1, 2], np.float32)
held = [compiled(Model([operations.relu(pixels)], [pixels]), "float32", "LATENCY")]
freeing = threading.Thread(target=held.clear)
freeing.start()
freeing.join()
signal.raise_signal(signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.parametrize(("name", "precision"), HERE)
def test_a_batch_normalised_application_agrees_with_predict(name: str, precision: str):
    cfg = BackboneConfig(name="mobile", kind="application", architecture="MobileNetV2", weights=None, input_size=32)
    mobile = load_backbone(cfg, (12, 12))
    (ours,) = joined(compile_forward(mobile, 8, name, precision)(IMAGES[:5]))
    theirs = mobile.model.predict(IMAGES[:5], verbose=0)
    allowed = 0.05 if precision == "bfloat16" else 1e-4
    assert np.linalg.norm(ours - theirs) < allowed * np.linalg.norm(theirs)  # relative: random weights give 1e-12


@pytest.mark.parametrize(("name", "precision"), HERE)
def test_facenet_gives_the_maps_of_its_readme_on_real_faces(faces: np.ndarray, name: str, precision: str):
    facenet = replace(compose(["backbone=facenet"]).backbone, layers=["Block17_10_out", "Block8_6_add", "Bottleneck"])
    real = load_backbone(facenet, faces.shape[1:])
    forward = compile_forward(real, 4, name, precision)
    check_parity(real, forward, faces, precision)
    assert [x.shape for x in joined(forward(faces))] == [(9, 8, 8, 896), (9, 3, 3, 1792), (9, 512)]


@pytest.mark.parametrize(("name", "precision"), HERE)
def test_an_engine_enlarges_real_faces_bicubically(faces: np.ndarray, tmp_path: Path, name: str, precision: str):
    pixels = keras.Input((75, 75, 3))
    keras.Model(pixels, keras.layers.Activation("linear")(pixels)).save(tmp_path / "nothing.keras")
    cfg = replace(backbone_of(tmp_path / "nothing.keras"), input_size=75, layers=[], scaling="raw255")
    nothing = load_backbone(replace(cfg, interpolation="bicubic"), faces.shape[1:])
    (ours,) = joined(compile_forward(nothing, 4, name, precision)(faces))
    theirs = keras.layers.Resizing(75, 75, interpolation="bicubic")(faces[..., None].astype("float32"))
    np.testing.assert_allclose(ours, np.repeat(theirs, 3, -1), atol=3 if precision == "bfloat16" else 1e-3)


def test_a_compiled_network_that_disagrees_with_keras_is_stopped(loaded: Backbone):
    right = compile_forward(loaded, 8, "tensorflow", "float32")
    check_parity(loaded, right, IMAGES[:8])
    with pytest.raises(UserError, match="disagree on second"):
        check_parity(loaded, lambda images: ([1.1 * x for x in part] for part in right(images)), IMAGES[:8])


def test_bfloat16_is_close_and_leaves_float32_exact(tmp_path: Path, backbone: BackboneConfig):
    sets = {pair: extract(tmp_path, backbone, IMAGES, engine=pair[0], precision=pair[1]) for pair in HERE}
    assert len({made.path for made in sets.values()}) == len({made.fingerprint for made in sets.values()}) == len(HERE)
    theirs = expected(backbone, IMAGES)
    for (name, precision), made in sets.items():
        for ours, keras_own in zip(made.take(np.arange(len(IMAGES))), theirs, strict=True):
            if precision == "float32":
                np.testing.assert_allclose(ours, keras_own, rtol=2e-3, atol=2e-3)
            else:
                assert np.linalg.norm(ours.astype("float32") - keras_own) < 0.05 * np.linalg.norm(keras_own)
        if precision == "bfloat16" and "avx512_bf16" in hardware()["cpu_features"]:  # elsewhere it may be float32
            rows = np.arange(len(IMAGES))
            assert not np.array_equal(made.take(rows)[0], sets[name, "float32"].take(rows)[0])


def test_features_of_earlier_versions_keep_their_fingerprint(tmp_path: Path, backbone: BackboneConfig):
    """TensorFlow's in float32 had no word for either."""
    import hashlib
    import json

    from fer_experiments.backbones.networks import backbone_fingerprint

    made = extract(tmp_path, backbone, IMAGES, engine="tensorflow", precision="float32")
    old = hashlib.sha256(json.dumps(["of 50", backbone_fingerprint(backbone), "float16"]).encode()).hexdigest()
    assert made.path.name == old[:16]


def cpu_of(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr(engine, "hardware", lambda: {"cpu_features": list(flags), "gpus": []})


def decided(**changes: str) -> tuple[str, str]:
    best = decisions(FeaturesConfig(**changes))[0]
    return best.engine, best.precision


def test_auto_is_what_the_machine_is_fast_with(monkeypatch: pytest.MonkeyPatch):
    cpu_of(monkeypatch, "avx2", "avx512_bf16")
    assert decided() == ("openvino", "bfloat16")
    assert decided(precision="float32") == ("openvino", "float32")
    assert decided(engine="tensorflow") == ("tensorflow", "bfloat16")
    cpu_of(monkeypatch, "amx_bf16")
    assert decided() == ("openvino", "bfloat16")
    cpu_of(monkeypatch, "avx2")
    assert decided() == ("openvino", "float32")
    assert decided(precision="bfloat16") == ("openvino", "bfloat16"), "what is asked for"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert decided() == ("jax", "float32")


def test_auto_takes_what_the_cache_has(tmp_path: Path, backbone: BackboneConfig, monkeypatch: pytest.MonkeyPatch):
    cpu_of(monkeypatch, "avx512_bf16")
    old = extract(tmp_path, backbone, IMAGES, engine="tensorflow", precision="float32")
    said: list[str] = []
    auto = {"precision": "auto"}
    assert extract(tmp_path, backbone, IMAGES, said, **auto).path == old.path and "no image forwarded" in said[-1]
    extract(tmp_path, backbone, IMAGES, said, views=["original", "flip"], **auto)
    assert "(openvino, bfloat16)" in said[-1], "of one view alone they are not what is asked for"
    assert extract(tmp_path, backbone, IMAGES, said, **auto).path != old.path, "the better of two that are there"
    extract(tmp_path, backbone, IMAGES, said, precision="float32", engine="openvino")
    assert "(openvino, float32)" in said[-1]


def test_auto_is_float32_where_bfloat16_is_another_network(
    tmp_path: Path, shared: Path, faces: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    """MobileNetV2's depthwise convolutions lose what they need: a quarter of its features' norm."""
    cpu_of(monkeypatch, "avx512_bf16")
    weights = f"backbone.weights={shared}/weights/mobilenet_v2_imagenet_notop.weights.h5"
    mobile = compose(["backbone=mobilenet_v2", weights]).backbone
    said: list[str] = []
    made = extract(tmp_path, mobile, faces, said, precision="auto")
    assert re.match(
        r"features: not by openvino in bfloat16: the compiled network and Keras disagree on \w+ by", said[0]
    )
    assert "(openvino, float32)" in said[1] and made.count == len(faces)
    assert "no image forwarded" in (extract(tmp_path, mobile, faces, said, precision="auto"), said[-1])[1]
    with pytest.raises(
        UserError, match=r"nothing was stored, another features\.engine= or features\.precision=float32"
    ):
        extract(tmp_path, mobile, faces, precision="bfloat16")


def test_auto_is_tensorflow_where_openvino_cannot(
    tmp_path: Path, backbone: BackboneConfig, monkeypatch: pytest.MonkeyPatch
):
    import openvino

    def refuse(*given: object) -> None:
        raise RuntimeError("No translator found for Strange node.\nand more")

    cpu_of(monkeypatch, "avx2")
    monkeypatch.setattr(openvino, "convert_model", refuse)
    said: list[str] = []
    extract(tmp_path, backbone, IMAGES, said)
    assert said[0] == (
        "features: not by openvino in float32: OpenVINO cannot compile it (RuntimeError: No translator found for "
        "Strange node.)"
    )
    assert "(tensorflow, float32)" in said[1]
    with pytest.raises(UserError, match=r"OpenVINO cannot compile it .*; say features\.engine=tensorflow"):
        extract(tmp_path, backbone, IMAGES[:9], engine="openvino")


@pytest.mark.parametrize(
    ("name", "precision", "said"),
    [
        ("jax", "float32", r"features\.engine=jax: only with KERAS_BACKEND=jax; set it, or say features\.engine=auto"),
        ("jax", "bfloat16", r"features\.precision=bfloat16: features\.engine=jax has float32 alone"),
    ],
)
def test_what_an_engine_cannot_is_said(loaded: Backbone, name: str, precision: str, said: str):
    with pytest.raises(UserError, match=said):
        compile_forward(loaded, 8, name, precision)


def test_an_engine_that_is_not_here_is_said_whatever_is_decided_besides(tmp_path: Path, backbone: BackboneConfig):
    with pytest.raises(UserError, match=r"features\.\w+=\w+: .*features\.engine=(jax|auto)"):
        extract(tmp_path, backbone, IMAGES[:9], engine="jax", precision="auto")


@pytest.mark.parametrize("error", [RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), MemoryError()])
def test_batches_that_do_not_fit_become_smaller(loaded: Backbone, monkeypatch: pytest.MonkeyPatch, error: Exception):
    sizes: list[int] = []

    def limited(backbone: Backbone, batch_size: int, precision: str) -> Compiled:
        sizes.append(batch_size)

        def start(images: np.ndarray):  # type: ignore[no-untyped-def]
            def finish() -> list[np.ndarray]:
                if len(images) > 3:
                    raise error
                return [images.astype("float32")]

            return finish

        return Compiled(start, batch_size, ahead=2)

    module = type("Module", (), {"compile_forward": staticmethod(limited)})
    monkeypatch.setattr(engine, "import_module", lambda name: module)
    forward = compile_forward(loaded, 16, "tensorflow", "float32")
    for _ in range(2):
        np.testing.assert_array_equal(joined(forward(IMAGES))[0], IMAGES)
    assert sizes == [16, 8, 4, 2], "and they stay so"


def test_another_error_is_not_tried_again(loaded: Backbone, monkeypatch: pytest.MonkeyPatch):
    def broken(images: np.ndarray):  # type: ignore[no-untyped-def]
        raise ValueError("no such operation")

    module = type("Module", (), {"compile_forward": staticmethod(lambda *args: Compiled(broken, 16))})
    monkeypatch.setattr(engine, "import_module", lambda name: module)
    with pytest.raises(ValueError, match="no such operation"):
        joined(compile_forward(loaded, 16, "tensorflow", "float32")(IMAGES))


def test_the_config_names_every_engine_and_precision():
    said = {field.name: field.metadata.get("choices") for field in fields(FeaturesConfig)}
    assert set(said["engine"]) == {AUTO, *ENGINES}
    assert set(said["precision"]) == {AUTO, *(p for precisions, _ in ENGINES.values() for p in precisions)}
