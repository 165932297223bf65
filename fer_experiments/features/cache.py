"""Features of a frozen backbone: computed once, stored, read as memory maps.

    <cache>/features/<fingerprint>/<view>/   shards and manifest (see `shards`)

The backbone is a pure function of the pixels, so that the fingerprints of images and backbone, and the dtype, say which
folder holds the features. Each view in it is complete or not on its own: a view that is there is never computed again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from fer_experiments.backbones.networks import backbone_fingerprint
from fer_experiments.config import VIEWS, BackboneConfig, FeaturesConfig, project_root
from fer_experiments.config.parts import YOUNGER
from fer_experiments.errors import UserError
from fer_experiments.executors.executor import Executor
from fer_experiments.features.engine import decisions, is_here
from fer_experiments.features.extraction import Echo, Source, extract, shard_features, unsuited
from fer_experiments.features.shards import open_shards, read_manifest
from fer_experiments.files import digest, is_held
from fer_experiments.terminal import say, size


@dataclass(frozen=True)
class FeatureSet:
    """Stored features of `count` images, in the order of the images.

    layers: names of the cut layers. shapes: of one image's features, one a layer. views: names of VIEWS.
    dtype: float16 or float32. fingerprint: sha256 (hex) of images, backbone, engine, precision, dtype and views.
    """

    path: Path
    layers: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    views: tuple[str, ...]
    dtype: str
    count: int
    fingerprint: str

    def take(self, rows: np.ndarray, view: str = "original") -> list[np.ndarray]:
        """The features of these rows, in this order: an array [len(rows), *shape] of `dtype` for each layer.

        Raises:
            UserError: a view that is not in `views`. IndexError: a row that is not there.
        """
        if view not in self.views:
            raise UserError(f"features.views={list(self.views)}: the view {view} is asked for, and is not among them")
        rows = np.asarray(rows)
        if rows.size and not 0 <= rows.min() <= rows.max() < self.count:
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {self.count} images")
        size, layers = self._shards[view]
        shard, row = (part.tolist() for part in np.divmod(rows, size))
        taken = []
        for shards, shape in zip(layers, self.shapes, strict=True):
            out = np.empty((len(rows), *shape), self.dtype)
            for i, (s, r) in enumerate(zip(shard, row, strict=True)):  # one copy a row: faster than fancy indexing
                out[i] = shards[s][r]
            taken.append(out)
        return taken

    @property
    def bytes(self) -> int:
        """The size of all views and layers."""
        per_image = sum(int(np.prod(shape)) for shape in self.shapes) * np.dtype(self.dtype).itemsize
        return self.count * per_image * len(self.views)

    @cached_property
    def _shards(self) -> dict[str, tuple[int, list[list[np.ndarray]]]]:
        """Of each view: images a shard, and memory maps [layer][shard]."""
        opened = {}
        for view in self.views:
            manifest = read_manifest(self.path / view)
            if manifest is None:
                raise UserError(f"{self.path / view}: changed or gone since it was read; run the same command again")
            opened[view] = (int(manifest["shard_size"]), open_shards(self.path / view, manifest))
        return opened

    def __getstate__(self) -> dict[str, Any]:
        """Without the memory maps: pickled, they would travel as arrays."""
        return {key: value for key, value in self.__dict__.items() if key != "_shards"}


def open_features(path: Path, views: tuple[str, ...]) -> FeatureSet | None:
    """The features in a folder of the cache, or None when one of the views is not complete or has changed."""
    manifests = [read_manifest(path / view) for view in views]
    first = manifests[0]
    if first is None or None in manifests:
        return None
    return FeatureSet(
        path=path,
        layers=tuple(first["layers"]),
        shapes=tuple(tuple(shape) for shape in first["layers"].values()),
        views=views,
        dtype=first["dtype"],
        count=first["count"],
        fingerprint=_of_views(first["fingerprint"], views),
    )


@dataclass(frozen=True)
class Unstored:
    """Features in memory, for what takes a FeatureSet: by view, an array [n, *shape] a cut layer."""

    arrays: dict[str, list[np.ndarray]]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of one image's features, one a layer."""
        return tuple(array.shape[1:] for array in next(iter(self.arrays.values())))

    @property
    def views(self) -> tuple[str, ...]:
        """Their names, out of VIEWS."""
        return tuple(self.arrays)

    def take(self, rows: np.ndarray, view: str = "original") -> list[np.ndarray]:
        """See `FeatureSet.take`."""
        return [array[rows] for array in self.arrays[view]]


def exact_features(images: np.ndarray, backbone_cfg: BackboneConfig, features_cfg: FeaturesConfig) -> Unstored:
    """The features of a few images in float32, made here and now, and kept nowhere.

    Raises:
        UserError: what `load_backbone` raises.
    """
    source = Source(backbone_cfg, replace(features_cfg, precision="float32", dtype="float32"))
    return Unstored({view: list(shard_features(source, images, view).values()) for view in _views(features_cfg)})


def extract_features(
    images: np.ndarray,
    images_fingerprint: str,
    backbone_cfg: BackboneConfig,
    features_cfg: FeaturesConfig,
    cache: Path,
    *,
    echo: Echo = say,
    executor: Executor | None = None,
) -> FeatureSet:
    """The features of all images: from the cache when complete (no backbone is built then), else through the backbone.

    images: uint8 [n, h, w] or [n, h, w, 3]. images_fingerprint: of their pixels and order. A killed extraction goes on
    at the shard it was in; a damaged shard is computed again; of several processes one works and the others wait.
    executor: computes the shards, in this process when there is none.

    Raises:
        UserError: a cache that cannot be written or is too small; features that do not fit the dtype; what
            `load_backbone` and `check_parity` raise.
    """
    features_cfg = decided(images, images_fingerprint, backbone_cfg, features_cfg, cache, echo=echo, executor=executor)
    fingerprint = _made_of(images_fingerprint, backbone_cfg, features_cfg)
    path = cache / "features" / fingerprint[:16]
    views = _views(features_cfg)
    features, how = open_features(path, views), ""
    if features is None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            if is_held(path / "lock"):
                echo("features: another process is extracting the same ones; waiting for it")
            with FileLock(path / "lock"):
                if open_features(path, views) is None:
                    content = {"fingerprint": fingerprint, "images": images_fingerprint}
                    how = extract(images, backbone_cfg, features_cfg, path, content, echo, executor)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error}): free space, or say paths.cache=<folder>") from error
        features = open_features(path, views)
        if features is None:
            raise UserError(f"{path}: changed while features were written; run the same command again")
    with suppress(OSError):
        os.utime(path)  # its last use: `fer clean` removes what nobody has used for long
    what = f"features: {len(images):,} images" + (f" × {len(views)} views" if len(views) > 1 else "")
    where = path.relative_to(project_root()) if path.is_relative_to(project_root()) else path
    if how:
        engine = f"{features_cfg.engine}, {features_cfg.precision}"
        echo(f"{what} through {backbone_cfg.name} ({engine}) in {how}, {size(features.bytes)} in {where}")
    else:
        echo(f"{what} from {where} (no image forwarded)")
    return features


def decided(
    images: np.ndarray,
    images_fingerprint: str,
    backbone_cfg: BackboneConfig,
    features_cfg: FeaturesConfig,
    cache: Path,
    *,
    echo: Echo = say,
    executor: Executor | None = None,
) -> FeaturesConfig:
    """The config with engine and precision: those of which the cache has features, else the fastest that suit here.

    MobileNetV2's features in bfloat16, for one, were a quarter off. Takes what `extract_features` takes.
    """
    choices = decisions(features_cfg)
    if len(choices) == 1:
        return choices[0]
    for choice in choices:
        path = cache / "features" / _made_of(images_fingerprint, backbone_cfg, choice)[:16]
        if open_features(path, _views(choice)) is not None:
            return choice
    *others, last = [choice for choice in choices if is_here(choice.engine)] or choices[:1]  # one is refused later
    for choice in others:
        if not (why := unsuited(images, backbone_cfg, choice, cache, executor)):
            return choice
        echo(f"features: not by {choice.engine} in {choice.precision}: {why.partition(': ')[2].partition(';')[0]}")
    return last


def features_fingerprint(images_fingerprint: str, backbone_cfg: BackboneConfig, features_cfg: FeaturesConfig) -> str:
    """That of the FeatureSet which `extract_features` gives for a decided config; nothing is computed."""
    return _of_views(_made_of(images_fingerprint, backbone_cfg, features_cfg), _views(features_cfg))


def _made_of(images: str, backbone_cfg: BackboneConfig, features_cfg: FeaturesConfig) -> str:
    """The fingerprint of a folder of the cache; what has only been so since there was a choice is not in it."""
    since = [features_cfg.precision] if features_cfg.precision != "float32" else []
    if features_cfg.engine != YOUNGER["features.engine"]:
        since.append(features_cfg.engine)
    return digest([images, backbone_fingerprint(backbone_cfg), features_cfg.dtype, *since])


def _of_views(fingerprint: str, views: tuple[str, ...]) -> str:
    return digest([fingerprint, sorted(views)])


def _views(features_cfg: FeaturesConfig) -> tuple[str, ...]:
    """In one order: what a fit draws of them, and its digest, are then the same however they were named."""
    return tuple(view for view in VIEWS if view in features_cfg.views)
