"""Sends images through a backbone and stores what comes out, shard by shard."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fer_experiments.backbones import load_backbone
from fer_experiments.config import BackboneConfig, FeaturesConfig
from fer_experiments.errors import UserError
from fer_experiments.shards import is_intact, read_manifest, write_manifest, write_shard

Echo = Callable[[str], None]

CHECKED = 16  # images whose features are compared with those of Keras itself before any is stored


def extract(
    images: np.ndarray,
    backbone_cfg: BackboneConfig,
    features_cfg: FeaturesConfig,
    path: Path,
    content: dict[str, Any],
    echo: Echo,
) -> str:
    """Makes every view in `path` complete, and returns how long it took; "" when all shards were there already.

    content: what the manifests say besides the shards. The caller holds the folder's lock.

    Raises:
        UserError: features that do not fit the dtype, too little space, a compiled network that is wrong.
        OSError: a folder that cannot be written.
    """
    size = features_cfg.shard_size
    starts = list(range(0, len(images), size))
    views = [view for view in features_cfg.views if read_manifest(path / view) is None]
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
        how = _forward(images, backbone_cfg, features_cfg, path, missing)
    content = {**content, "dtype": features_cfg.dtype, "count": len(images), "shard_size": size}
    for view in views:
        write_manifest(path / view, content, starts)
    return how


def _forward(
    images: np.ndarray,
    backbone_cfg: BackboneConfig,
    features_cfg: FeaturesConfig,
    path: Path,
    missing: list[tuple[str, int]],
) -> str:
    from tqdm import tqdm

    from fer_experiments.forward import check_parity, compile_forward

    backbone = load_backbone(backbone_cfg, images.shape[1:])
    forward = compile_forward(backbone, features_cfg.batch_size, features_cfg.precision)
    sample = images[: min(CHECKED, features_cfg.batch_size)]
    check_parity(backbone, forward, sample, features_cfg.precision)
    size, dtype = features_cfg.shard_size, features_cfg.dtype
    count = sum(min(size, len(images) - start) for _, start in missing)
    _check_fit(dict(zip(backbone.layers, forward(sample), strict=True)), dtype, count, path)

    started = time.perf_counter()
    every = 0.1 if sys.stderr.isatty() else 30  # seconds; a log file gets a line now and then
    with tqdm(total=count, desc=f"features of {backbone_cfg.name}", unit="image", mininterval=every) as bar:
        for view, start in missing:
            rows = images[start : start + size]
            stored: list[list[np.ndarray]] = []
            for first in range(0, len(rows), features_cfg.batch_size):
                pixels = _seen(rows[first : first + features_cfg.batch_size], view)
                stored.append(
                    [_stored(x, dtype, layer) for x, layer in zip(forward(pixels), backbone.layers, strict=True)]
                )
                bar.update(len(pixels))
            arrays = [np.concatenate(parts) for parts in zip(*stored, strict=True)]
            write_shard(path / view, start, dict(zip(backbone.layers, arrays, strict=True)))
    seconds = time.perf_counter() - started
    return f"{seconds:.0f} s ({count / seconds:,.0f} images/s)"


def _seen(pixels: np.ndarray, view: str) -> np.ndarray:
    """Images [b, h, w(, 3)] as the view shows them."""
    if view == "original":
        return pixels
    if view == "flip":
        return np.ascontiguousarray(pixels[:, :, ::-1])
    raise UserError(f"features.views: {view} is unknown; choose out of original and flip")


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


def _check_fit(sample: dict[str, np.ndarray], dtype: str, count: int, path: Path) -> None:
    """Refuses a dtype that loses the features, and a disk that cannot hold those of `count` images."""
    needed = 0
    for layer, features in sample.items():
        stored = _stored(features, dtype, layer)
        needed += stored[0].nbytes * count
        lost = float(np.linalg.norm(stored - features)) / max(float(np.linalg.norm(features)), 1e-30)
        if lost > 1e-2:  # float16 keeps 3 digits, but nothing under 6e-8: random networks get there
            raise UserError(
                f"features of {layer} are too small for {dtype} ({lost:.0%} lost): say features.dtype=float32"
            )
    free = shutil.disk_usage(path).free
    if needed > free:
        raise UserError(
            f"paths.cache: the features take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free in {path}: free "
            "space, say backbone.pooling=avg, or paths.cache=<folder>"
        )
