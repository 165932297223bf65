"""Where a backbone's weights lie, how they get there, and what identifies them.

Imports no Keras: that weights are missing is said before anything heavy is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from urllib.request import urlopen

from fer_experiments.ambient import keras_home
from fer_experiments.backbones.hub import preset_files, preset_folder
from fer_experiments.config import BackboneConfig, project_root
from fer_experiments.config.folders import expanded
from fer_experiments.errors import UserError

POCKET_WEIGHTS = Path(__file__).parents[1] / "assets" / "pocket.npz"
IMAGENET_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
NOTOP = "weights_tf_dim_ordering_tf_kernels_notop.h5"

# Path below IMAGENET_URL, size in MB, and the MD5 that Keras checks (it checks none for MobileNetV2), as in
# keras.applications of 3.15. An architecture that is not here works too: Keras downloads its weights.
IMAGENET: dict[str, tuple[str, int, str | None]] = {
    "InceptionResNetV2": (f"inception_resnet_v2/inception_resnet_v2_{NOTOP}", 219, "d19885ff4a710c122648d3b5c3b684e4"),
    "InceptionV3": (f"inception_v3/inception_v3_{NOTOP}", 88, "bcbd6486424b2319ff4ef7d526e38f63"),
    "ResNet50": (f"resnet/resnet50_{NOTOP}", 95, "4d473c1dd8becc155b73f8504c6f6626"),
    "MobileNetV2": ("mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", 9, None),
    "EfficientNetV2B0": ("efficientnet_v2/efficientnetv2-b0_notop.h5", 24, "893217f2bb855e2983157299931e43ff"),
}
VGGFACE_URL = "https://github.com/rcmalli/keras-vggface/releases/download/v2.0/rcmalli_vggface_tf_notop_resnet50.h5"
VGGFACE_MB = 95


def public_weights(cfg: BackboneConfig) -> tuple[str, int, str | None] | None:
    """Address, size in MB and MD5 of a file that `obtain_weights` downloads; None where it does not."""
    if cfg.kind == "vggface" and cfg.weights == "vggface2":
        return VGGFACE_URL, VGGFACE_MB, None
    if cfg.kind == "application" and cfg.weights == "imagenet" and (known := IMAGENET.get(cfg.architecture or "")):
        return IMAGENET_URL + known[0], *known[1:]
    return None


def weights_file(cfg: BackboneConfig) -> Path | None:
    """The file with the backbone's weights, there or not; None for random ones, and where only Keras(Hub) knows."""
    if cfg.kind == "pocket" and cfg.weights == "embedded":
        return POCKET_WEIGHTS
    if cfg.weights is None or cfg.kind == "keras_hub":
        return None
    if public := public_weights(cfg):
        return keras_home() / "models" / Path(public[0]).name
    if cfg.kind == "application" and cfg.weights == "imagenet":
        return None
    given = expanded(cfg.weights, "backbone.weights")
    candidates = [project_root() / given, Path.cwd() / given]
    return next((path.resolve() for path in candidates if path.exists()), candidates[0])


def weights_told(cfg: BackboneConfig) -> str:
    """What the backbone's weights are, for others: of a preset in a folder its name alone."""
    if cfg.weights is None:
        return "random weights"
    preset = cfg.preset or ""
    name = (preset if "://" in preset else Path(preset).name) if cfg.kind == "keras_hub" else cfg.weights
    return f"weights {name}, under their own terms"


def obtain_weights(cfg: BackboneConfig) -> Path | None:
    """`weights_file`, and the file is there: public weights and presets that are not are downloaded.

    Raises:
        UserError: no such file, or no network; with where the file belongs and how to go on without.
    """
    if cfg.kind == "keras_file" and cfg.weights is None:
        raise UserError(f"backbone={cfg.name} has no weights of its own: say backbone.weights=<file>.keras")
    if cfg.kind == "pocket" and cfg.weights is None:
        raise UserError("backbone=pocket needs weights: say backbone.weights=embedded, or the .npz of `fer pretrain`")
    if cfg.kind == "keras_hub":
        with impatient():
            preset_folder(cfg)
    path = weights_file(cfg)
    if path is None or path.is_file():
        return path
    if public := public_weights(cfg):
        _download(cfg, public[0], public[2], path)
        return path
    if path.exists():
        raise UserError(f"backbone.weights={cfg.weights}: is not a file")
    raise UserError(f"backbone.weights={cfg.weights}: no such file in {project_root()} or {Path.cwd()}")


def weights_identity(cfg: BackboneConfig) -> str:
    """What tells these weights from others: the sha256 of their file, or the seed that draws them.

    Of a preset, whose files say its architecture and preprocessing too, those of all.
    """
    path = obtain_weights(cfg)
    if path is not None:
        return _sha256_of(path)
    files = {path.name: _sha256_of(path) for path in preset_files(cfg)} if cfg.kind == "keras_hub" else {}
    said = [json.dumps(files)] if files else []
    if cfg.weights is None:  # the same seed draws other numbers on another backend
        said.append(f"random, seed {cfg.seed}, {os.environ['KERAS_BACKEND']}")
    if said:
        return ", ".join(said)
    return f"imagenet of keras {version('keras')}"  # Keras checks the file against a hash of its own


def _sha256_of(path: Path) -> str:
    found = path.stat()
    return _sha256(path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@cache
def _sha256(path: Path, *_state: int) -> str:
    """Of a file, read once a process while its state (as `stat` gives it) is the same; some are of 200 MB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def how_to_go_on(cfg: BackboneConfig) -> str:
    """The end of the message for public weights that cannot be had."""
    public = public_weights(cfg)
    where = f"put it at {weights_file(cfg)} ({public[1]} MB), or " if public else ""
    return f"{where}go on without: backbone.weights=null or backbone=pocket"


@contextmanager
def impatient(seconds: float = 10) -> Iterator[None]:
    """Gives up on a silent network after that time: a download by Keras waits for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _download(cfg: BackboneConfig, address: str, md5: str | None, target: Path) -> None:
    """Fetches public weights. Not with keras.utils.get_file, which has no timeout and needs Keras."""
    from tqdm import tqdm

    part = target.with_name(f"{target.name}.part{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urlopen(address, timeout=10) as response, part.open("wb") as file:
            size = int(response.headers.get("Content-Length", 0)) or None
            with tqdm.wrapattr(response, "read", total=size, desc=target.name, leave=False) as reader:
                shutil.copyfileobj(reader, file)
        with part.open("rb") as file:
            if md5 and hashlib.file_digest(file, "md5").hexdigest() != md5:
                raise OSError("what came is not that file (MD5)")
        part.replace(target)
    except OSError as error:  # urllib's errors and timeouts are OSErrors
        part.unlink(missing_ok=True)
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"backbone.weights={cfg.weights}: cannot get {address} ({reason}); {how_to_go_on(cfg)}"
        ) from error
