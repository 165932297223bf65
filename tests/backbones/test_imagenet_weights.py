"""ImageNet's weights: where they come from, and that they are downloaded whole and once."""

from __future__ import annotations

import socket
import sys
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import keras
import pytest
from application_configs import MOBILE, SHIPPED

from fer_experiments.backbones import networks, weights
from fer_experiments.errors import UserError


@pytest.mark.parametrize("name", SHIPPED)
def test_the_table_of_imagenet_weights_is_keras_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def get_file(file: str, origin: str, *, cache_subdir: str, file_hash: str | None = None) -> None:
        asked.append((file, origin, cache_subdir, file_hash))
        raise FileNotFoundError

    asked: list[Any] = []
    address, _, md5 = weights.IMAGENET[name]
    build = getattr(keras.applications, name)
    monkeypatch.setattr(sys.modules[build.__module__].file_utils, "get_file", get_file)
    with pytest.raises(FileNotFoundError):
        build(include_top=False, weights="imagenet", input_shape=(75, 75, 3))
    assert asked == [(Path(address).name, weights.IMAGENET_URL + address, "models", md5)]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A real server in the place of the one with the weights; it holds wrong content under two right names."""
    folder = tmp_path / "server"
    for name in ("MobileNetV2", "InceptionV3"):
        file = folder / weights.IMAGENET[name][0]
        file.parent.mkdir(parents=True)
        file.write_bytes(b"weights of another kind")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(weights, "IMAGENET_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    yield tmp_path / "keras" / "models"
    server.shutdown()
    server.server_close()


def test_imagenet_weights_are_downloaded_once(mirror: Path) -> None:
    cfg = replace(MOBILE, weights="imagenet")
    path = weights.obtain_weights(cfg)
    assert path is not None and path.parent == mirror and path.read_bytes() == b"weights of another kind"
    path.write_bytes(b"mine")
    assert weights.obtain_weights(cfg) == path and path.read_bytes() == b"mine"


@pytest.mark.parametrize(("name", "reason"), [("InceptionV3", "MD5"), ("ResNet50", "404|not found")])
def test_a_download_that_goes_wrong_leaves_nothing(mirror: Path, name: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"(?i){reason}"):
        weights.obtain_weights(replace(MOBILE, architecture=name, weights="imagenet"))
    assert list(mirror.iterdir()) == []


def test_without_network_the_message_says_where_the_file_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setattr(weights, "IMAGENET_URL", f"http://127.0.0.1:{port}/")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    cfg = replace(MOBILE, architecture="InceptionResNetV2", weights="imagenet")
    with pytest.raises(UserError) as caught:
        networks.backbone_fingerprint(cfg)
    message = str(caught.value)
    file = tmp_path / "models" / "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5"
    for part in (str(file), "219 MB", "backbone.weights=null", "backbone=pocket"):
        assert part in message
    assert "\n" not in message
