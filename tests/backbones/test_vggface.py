"""VGGFace's ResNet-50, and the file of its weights, written here with the names and shapes that keras-vggface's has."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from fer_experiments.backbones import weights
from fer_experiments.backbones.networks import backbone_fingerprint, load_backbone
from fer_experiments.backbones.preprocessing import preprocess
from fer_experiments.backbones.trunks import load_trunk
from fer_experiments.backbones.vggface import read_weights
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.training.result import trainable_parameters

RESNET = compose(["backbone=resnet50_vggface2"]).backbone
SMALL = replace(RESNET, weights=None, input_size=32)
RGB = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
Public = tuple[Path, dict[str, np.ndarray]]  # the file, and what it holds
WITHOUT_WEIGHTS = ["input_1", "activation_1", "max_pooling2d_1", "add_1", "avg_pool"]


def convolutions() -> Iterator[tuple[str, tuple[int, ...]]]:
    """The convolutions of keras-vggface's RESNET50, and the shapes of their kernels."""
    yield "conv1/7x7_s2", (7, 7, 3, 64)
    before = 64
    for stage, blocks, filters in ((2, 3, 64), (3, 4, 128), (4, 6, 256), (5, 3, 512)):
        for block in range(1, blocks + 1):
            name = f"conv{stage}_{block}"
            yield f"{name}_1x1_reduce", (1, 1, before, filters)
            yield f"{name}_3x3", (3, 3, filters, filters)
            yield f"{name}_1x1_increase", (1, 1, filters, 4 * filters)
            if block == 1:
                yield f"{name}_1x1_proj", (1, 1, before, 4 * filters)
            before = 4 * filters


def write(path: Path) -> dict[str, np.ndarray]:
    """Such a file with random weights, which come back as they are called in it."""
    rng, written = np.random.default_rng(0), {}
    with h5py.File(path, "w") as file:
        layers = list(WITHOUT_WEIGHTS)
        for name, shape in convolutions():
            layers += [name, f"{name}/bn"]
            written[f"{name}/kernel:0"] = rng.standard_normal(shape, np.float32)
            for weight in ("gamma", "beta", "moving_mean", "moving_variance"):
                written[f"{name}/bn/{weight}:0"] = rng.uniform(0.5, 1, shape[-1]).astype("float32")
        file.attrs["layer_names"] = np.array(layers, "S")
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.0.8"
        for layer in layers:
            own = [name for name in written if name.rpartition("/")[0] == layer]
            group = file.require_group(layer)
            group.attrs["weight_names"] = np.array(own, "S")
            for name in own:
                group[name] = written[name]
    return written


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Public:
    path = tmp_path_factory.mktemp("public") / "rcmalli_vggface_tf_notop_resnet50.h5"
    return path, write(path)


@pytest.fixture(scope="module")
def loaded(public: Public) -> keras.Model:
    return load_trunk(replace(SMALL, weights=str(public[0])))


def test_each_weight_of_the_file_is_in_its_place(loaded: keras.Model, public: Public) -> None:
    path, written = public
    assert sum(array.size for array in written.values()) == loaded.count_params()
    assert round(path.stat().st_size / 1e6) == weights.VGGFACE_MB
    for name, array in written.items():
        layer, _, weight = name.removesuffix(":0").rpartition("/")
        (found,) = (w for w in loaded.get_layer(layer.replace("/", "_")).weights if w.name == weight)
        np.testing.assert_array_equal(found, array, name)


def test_the_network_is_that_of_keras_vggface() -> None:
    trunk = load_trunk(replace(RESNET, weights=None))
    assert trainable_parameters(trunk) == 23_508_032
    shapes = {name: trunk.get_layer(name).output.shape[1:] for name in ("conv2_3", "conv3_4", "conv4_6", "conv5_3")}
    assert shapes == {
        "conv2_3": (49, 49, 256),
        "conv3_4": (25, 25, 512),
        "conv4_6": (13, 13, 1024),
        "conv5_3": (7, 7, 2048),
    }
    assert trunk.output_shape == (None, 7, 7, 2048)
    first = {name: trunk.get_layer(f"conv3_1_{name}").strides for name in ("1x1_reduce", "3x3", "1x1_proj")}
    assert first == {"1x1_reduce": (2, 2), "3x3": (1, 1), "1x1_proj": (2, 2)}
    norm = trunk.get_layer("conv2_1_1x1_reduce_bn")
    assert norm.epsilon == pytest.approx(1e-3) and norm.momentum == pytest.approx(0.99)


def test_its_input_is_blue_green_and_red_less_their_means() -> None:
    means = np.array([91.4953, 103.8827, 131.0912])
    np.testing.assert_allclose(preprocess(RGB, SMALL), RGB[..., ::-1] - means, rtol=1e-5, atol=1e-4)
    gray = RGB[..., 0]
    np.testing.assert_allclose(preprocess(gray, SMALL), gray[..., None] - means, rtol=1e-5, atol=1e-4)
    with pytest.raises(UserError, match="channels=1: resnet50_vggface2 scales each channel its own way; say"):
        preprocess(gray, replace(SMALL, channels=1))


def test_features_can_be_cut_and_pooled_and_random_weights_follow_the_seed() -> None:
    backbone = load_backbone(replace(SMALL, layers=["conv4_6"], pooling="avg"), (32, 32))
    assert np.asarray(backbone.model(RGB[..., 0])).shape == (3, 1024)
    for one, again in zip(backbone.trunk.get_weights(), load_trunk(SMALL).get_weights(), strict=False):
        np.testing.assert_array_equal(one, again)
    assert np.ptp(backbone.trunk.get_weights()[0]) > 0


def test_a_file_of_another_network_is_refused(loaded: keras.Model, public: Public, tmp_path: Path) -> None:
    own = tmp_path / "own.h5"
    own.write_bytes(public[0].read_bytes())
    with h5py.File(own, "a") as file:
        layers = file.attrs["layer_names"]
        file.attrs["layer_names"] = np.array([layer for layer in layers if layer != b"conv5_3_3x3/bn"])
    with pytest.raises(ValueError, match="conv5_3_3x3_bn/beta is missing"):
        read_weights(loaded, own)
    with h5py.File(own, "a") as file:
        file.attrs["layer_names"] = np.array([*layers, b"classifier"])
        file.create_group("classifier").attrs["weight_names"] = np.array([b"classifier/bias:0"])
        file["classifier"]["classifier/bias:0"] = np.zeros(8631, "float32")
    with pytest.raises(ValueError, match="classifier/bias is of another network"):
        read_weights(loaded, own)
    with h5py.File(own, "a") as file:
        file.attrs["layer_names"] = layers
        del file["conv1/7x7_s2"]["conv1/7x7_s2/kernel:0"]
        file["conv1/7x7_s2"]["conv1/7x7_s2/kernel:0"] = np.zeros((7, 7, 1, 64), "float32")
    start = r"^backbone\.weights=.*own\.h5: not weights of VGGFace's ResNet-50 without its top, for 3 channels: "
    with pytest.raises(UserError, match=start + r"conv1_7x7_s2/kernel is \(7, 7, 1, 64\), must be \(7, 7, 3, 64\)$"):
        load_trunk(replace(SMALL, weights=str(own)))
    own.write_bytes(b"no HDF5")
    with pytest.raises(OSError, match="file signature not found"):
        read_weights(loaded, own)


def test_weights_that_cannot_be_had_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"backbone.weights=no/such.h5: no such file"):
        backbone_fingerprint(replace(RESNET, weights="no/such.h5"))
    with pytest.raises(UserError, match=r"backbone\.input_size=4: resnet50_vggface2 takes 5 or more"):
        load_trunk(replace(SMALL, input_size=4))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    address = f"http://127.0.0.1:{port}/{Path(weights.VGGFACE_URL).name}"
    monkeypatch.setattr(weights, "VGGFACE_URL", address)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(UserError) as caught:
        backbone_fingerprint(RESNET)
    file = tmp_path / "models" / "rcmalli_vggface_tf_notop_resnet50.h5"
    start, end = str(caught.value).split(" (", 1)
    assert start == f"backbone.weights=vggface2: cannot get {address}"
    assert end.endswith(f"put it at {file} (95 MB), or go on without: backbone.weights=null or backbone=pocket")


def test_the_file_is_taken_from_where_downloads_go(
    public: Public, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / public[0].name).symlink_to(public[0])
    assert backbone_fingerprint(RESNET) == backbone_fingerprint(replace(RESNET, weights=str(public[0])))
