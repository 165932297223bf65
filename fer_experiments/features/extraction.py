"""Sends images through a backbone and stores what comes out, shard by shard."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from fer_experiments import termination
from fer_experiments.backbones.networks import Backbone, backbone_fingerprint, load_backbone
from fer_experiments.backbones.views import shown
from fer_experiments.backbones.weights import weights_file
from fer_experiments.config import BackboneConfig, FeaturesConfig
from fer_experiments.errors import UserError
from fer_experiments.executors.executor import Executor, Lost, Shared
from fer_experiments.features.engine import Forward, check_parity, compile_forward, joined
from fer_experiments.features.engines import Unsuited
from fer_experiments.features.shards import is_intact, read_manifest, write_manifest, write_shard
from fer_experiments.files import write_atomically
from fer_experiments.terminal import Echo, size

MAX_LOST = 3  # workers that may die of one shard
CHECKED = 16  # images whose features are compared with those of Keras itself before any is stored


@dataclass(frozen=True)
class Source:
    """What a worker needs to make features: which, and the weights' file where its machine may not have it.

    fingerprint: the backbone's where the work was given out; "" for whatever it is where it is done.
    """

    backbone: BackboneConfig
    features: FeaturesConfig
    weights: Shared | None = None
    cache: Path | None = None  # where the worker keeps them
    fingerprint: str = ""


def extract(
    images: np.ndarray,
    backbone_cfg: BackboneConfig,
    features_cfg: FeaturesConfig,
    path: Path,
    content: dict[str, Any],
    echo: Echo,
    executor: Executor | None = None,
) -> str:
    """Makes every view in `path` complete, and returns how long it took; "" when all shards were there already.

    content: what the manifests say besides the shards. The caller holds the folder's lock. executor: computes the
    shards, in this process when there is none.

    Raises:
        UserError: features that do not fit the dtype, too little space, a compiled network that is wrong.
        OSError: a folder that cannot be written.
    """
    size = features_cfg.shard_size
    starts = list(range(0, len(images), size))
    views = [view for view in dict.fromkeys(features_cfg.views) if read_manifest(path / view) is None]
    missing = []
    for view in views:
        (path / view).mkdir(exist_ok=True)
        for start in starts:
            if not is_intact(path / view, start, min(size, len(images) - start), features_cfg.dtype):
                missing.append((view, start))
    how = ""
    if missing:
        total = len(starts) * len(views)
        if len(missing) < total:
            echo(f"features: {total - len(missing)} of {total} shards are there already")
        how = _forward(images, _source(backbone_cfg, features_cfg, path.parents[1], executor), path, missing, executor)
    content = {**content, "dtype": features_cfg.dtype, "count": len(images), "shard_size": size}
    for view in views:
        write_manifest(path / view, content, starts)
    return how


def unsuited(
    images: np.ndarray,
    backbone_cfg: BackboneConfig,
    features_cfg: FeaturesConfig,
    cache: Path,
    executor: Executor | None = None,
) -> str:
    """Why the config's engine and precision do not suit the backbone, tried on the first images; "" when they do.

    Raises:
        UserError: what `load_backbone` raises.
    """
    try:
        _sampled(_source(backbone_cfg, features_cfg, cache, executor), images, executor)
    except Unsuited as error:
        return str(error)
    return ""


def _source(
    backbone_cfg: BackboneConfig, features_cfg: FeaturesConfig, cache: Path, executor: Executor | None
) -> Source:
    weights = weights_file(backbone_cfg) if executor is not None and executor.foreign_hosts() else None
    shared = executor.share(weights.read_bytes()) if executor is not None and weights is not None else None
    return Source(backbone_cfg, features_cfg, shared, cache, backbone_fingerprint(backbone_cfg))


def _sampled(source: Source, images: np.ndarray, executor: Executor | None) -> dict[str, np.ndarray]:
    """`sample_features` of the first images, where the shards are computed."""
    sample = images[: min(CHECKED, source.features.batch_size)]
    return sample_features(source, sample) if executor is None else _sample_elsewhere(executor, source, sample)


def _forward(
    images: np.ndarray, source: Source, path: Path, missing: list[tuple[str, int]], executor: Executor | None
) -> str:
    """Computes and stores the missing shards."""
    from tqdm import tqdm

    size, dtype = source.features.shard_size, source.features.dtype
    count = sum(min(size, len(images) - start) for _, start in missing)
    _check_fit(_sampled(source, images, executor), dtype, count, path)

    started = time.perf_counter()
    every = 0.1 if sys.stderr.isatty() else 30  # seconds; a log file gets a line now and then
    with tqdm(total=count, desc=f"features of {source.backbone.name}", unit="image", mininterval=every) as bar:
        if executor is None:
            for view, start in missing:
                write_shard(path / view, start, shard_features(source, images[start : start + size], view, bar.update))
        else:
            for (view, start), arrays in _spread(executor, source, images, missing):
                write_shard(path / view, start, arrays)
                bar.update(min(size, len(images) - start))
    seconds = time.perf_counter() - started
    return f"{seconds:.0f} s ({count / seconds:,.0f} images/s)"


def _sample_elsewhere(executor: Executor, source: Source, sample: np.ndarray) -> dict[str, np.ndarray]:
    """`sample_features` in a worker; another takes over when it dies."""
    for deaths in range(MAX_LOST):
        try:
            seen: dict[str, np.ndarray] = executor.submit(sample_features, source, sample).result()
            return seen
        except Lost as error:
            _count(deaths + 1, error)
    raise AssertionError("_count has raised")


def _spread(
    executor: Executor, source: Source, images: np.ndarray, missing: list[tuple[str, int]]
) -> Iterator[tuple[tuple[str, int], dict[str, np.ndarray]]]:
    """The shards as the executor's workers finish them; that of a worker that dies is given to another."""
    waiting, lost = list(missing), Counter[tuple[str, int]]()
    running: dict[Future[dict[str, np.ndarray]], tuple[str, int]] = {}
    while waiting or running:
        termination.check()
        while waiting and len(running) < executor.slots + 1:  # one more: no worker waits for this process
            view, start = shard = waiting.pop(0)
            rows = images[start : start + source.features.shard_size]
            running[executor.submit(shard_features, source, rows, view)] = shard
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            shard = running.pop(future)
            try:
                yield shard, future.result()
            except Lost as error:
                lost[shard] += 1
                _count(lost[shard], error)
                waiting.append(shard)


def _count(deaths: int, error: Lost) -> None:
    """Ends the extraction when workers die of the same work again and again."""
    if deaths == MAX_LOST:
        raise UserError(
            f"features: {deaths} workers died of the same images, the last: {error}; lower features.batch_size or "
            "compute.workers, and give the same command again to go on"
        ) from error


def check_fingerprint(cfg: BackboneConfig, wanted: str) -> None:
    """Refuses a backbone that is another one on this machine than where its features are asked for, or were made.

    Raises:
        UserError: naming this machine.
    """
    if backbone_fingerprint(cfg) != wanted:
        raise UserError(
            f"backbone={cfg.name}: its files on {platform.node()} are others than where the work was given out; put "
            "the same there"
        )


def sample_features(source: Source, images: np.ndarray) -> dict[str, np.ndarray]:
    """The float32 features of a few images by layer, checked against Keras' own.

    Raises:
        UserError: what `load_backbone` and `check_parity` raise.
    """
    backbone, forward = _network(source, images.shape[1:])
    key = (source.features.precision, hashlib.sha256(np.ascontiguousarray(images).data).hexdigest())
    if key not in _samples:
        _samples[key] = check_parity(backbone, forward, images, source.features.precision)
    return dict(zip(backbone.layers, _samples[key], strict=True))


def shard_features(
    source: Source, images: np.ndarray, view: str, advance: Callable[[int], object] = lambda count: None
) -> dict[str, np.ndarray]:
    """The features of a shard's images in the dtype that is stored, by layer; `advance` hears of each batch."""
    backbone, forward = _network(source, images.shape[1:])
    stored: list[list[np.ndarray]] = []
    for arrays in forward(np.asarray(shown(images, view))):
        termination.check()
        named = zip(arrays, backbone.layers, strict=True)
        stored.append([_stored(x, source.features.dtype, layer) for x, layer in named])
        advance(len(arrays[0]))
    return dict(zip(backbone.layers, joined(iter(stored)), strict=True))


_networks: dict[tuple[Any, ...], tuple[Backbone, Forward]] = {}  # of this process: building one takes seconds
_samples: dict[tuple[str, str], list[np.ndarray]] = {}  # of that network, which decisions and extraction both look at


def _network(source: Source, image_shape: tuple[int, ...]) -> tuple[Backbone, Forward]:
    """The backbone, built once in a process, and its forward pass."""
    config, features = source.backbone, source.features
    if source.weights is not None and source.cache is not None:
        config = replace(config, weights=str(_kept(source.weights.get(), source.cache, str(config.weights))))
    wanted = source.fingerprint or backbone_fingerprint(config)
    key = (repr(config), wanted, features.batch_size, features.engine, features.precision, image_shape)
    if key not in _networks:
        _networks.clear()  # one at a time: they are large
        _samples.clear()
        check_fingerprint(config, wanted)
        backbone = load_backbone(config, image_shape)
        compiled = compile_forward(backbone, features.batch_size, features.engine, features.precision)
        check_fingerprint(config, wanted)  # a file that was replaced while it was read
        _networks[key] = (backbone, compiled)
    return _networks[key]


def _kept(content: bytes, cache: Path, name: str) -> Path:
    """The file of weights that came over the network, in the cache of this machine."""
    ending = Path(name).suffix or ".h5"  # "imagenet" is one of those
    path = cache / "weights" / f"{hashlib.sha256(content).hexdigest()[:16]}{ending}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            write_atomically(path, lambda file: file.write(content))
    return path


def _stored(features: np.ndarray, dtype: str, layer: str) -> np.ndarray:
    """Features in the dtype that is stored; refuses what is not finite in it."""
    with np.errstate(over="ignore"):
        stored = features.astype(dtype)
    if not np.isfinite(stored).all():
        largest = float(np.abs(features).max())
        if not np.isfinite(largest):
            raise UserError(f"features of {layer} are not finite; are the backbone's weights whole?")
        raise UserError(f"features of {layer} reach {largest:,.0f}, over {dtype}'s 65,504: say features.dtype=float32")
    return stored


def narrowed(features: np.ndarray, dtype: str, layer: str) -> np.ndarray:
    """Features in the dtype that is stored.

    Raises:
        UserError: it cannot hold them, or loses more of them than rounding takes.
    """
    stored = _stored(features, dtype, layer)
    lost = float(np.linalg.norm(stored - features)) / max(float(np.linalg.norm(features)), 1e-30)
    if lost > 1e-2:  # float16 keeps 3 digits, but nothing under 6e-8: random networks get there
        raise UserError(f"features of {layer} are too small for {dtype} ({lost:.0%} lost): say features.dtype=float32")
    return stored


def _check_fit(sample: dict[str, np.ndarray], dtype: str, count: int, path: Path) -> None:
    """Refuses a dtype that loses the features, and a disk that cannot hold those of `count` images."""
    needed = 0
    for layer, features in sample.items():
        needed += narrowed(features, dtype, layer)[0].nbytes * count
    free = shutil.disk_usage(path).free
    if needed > free:
        raise UserError(
            f"paths.cache: the features take {size(needed)} and {size(free)} are free in {path}: free space, "
            "say backbone.pooling=avg, or paths.cache=<folder>"
        )
