"""Datasets ready to train on, and the one door to the sealed test split."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from fer_experiments.config import DataConfig, check_data
from fer_experiments.data.cleaning import canonical_order, clean_rows, clean_steps, identical_groups
from fer_experiments.data.faces import EMOTIONS, Faces, images_digest
from fer_experiments.data.folds import Fold, class_weight, each_fold, fold_notes, together
from fer_experiments.data.kept import kept_faces
from fer_experiments.data.names import Naming, doubts, emotion_named, natural_key
from fer_experiments.data.near_twins import NearTwins, find_twins
from fer_experiments.data.readers import find_source, read_faces
from fer_experiments.data.splits import PARTS, SET_ASIDE, Rows, share_notes, split_notes, split_rows
from fer_experiments.errors import UserError

SMOKE_LIMIT = 32  # images a split
SMOKE_DEMO_SIZE = 600
SHOWN = 32  # pairs of near twins


@dataclass(frozen=True)
class TwinSample:
    """Some pairs of near twins, no image of the test among them: images [2k, h, w], two a pair, with their titles."""

    images: np.ndarray
    titles: list[str]


@dataclass(frozen=True)
class Dataset:
    """The training and validation images of a task; the test split's images and labels are never in it.

    images: uint8 [n, h, w], train and val together, in canonical order. labels: int64 [n], index into classes.
    emotions, ids, usage: str [n] (usage "" where the source has none). train, val: int64 rows of images, ascending.
    counts: split -> class -> images, the test's too. cleaning: JSON-able report. fingerprint: sha256 of pixels, labels,
    classes, cleaning and split of all three parts; images_fingerprint: sha256 of `images`. Neither depends on where
    the data lay, nor on container or file order. twins: some near twins, to look at. near_training: bool [n], of images
    that have a near twin in the source's Training part, where cleaning has removed it; None where none were sought.
    folds: with data.fold=all, the splits that are fitted on (`parts`); train and val are what is in any of them, then.
    test_digest: the test split's `images_digest`, which no choice of training or validation images changes.
    """

    images: np.ndarray
    labels: np.ndarray
    emotions: np.ndarray
    ids: np.ndarray
    usage: np.ndarray
    train: np.ndarray
    val: np.ndarray
    classes: tuple[str, ...]
    class_weight: dict[int, float] | None
    task: str
    source: str
    counts: dict[str, dict[str, int]]
    cleaning: dict[str, Any]
    fingerprint: str
    images_fingerprint: str
    twins: TwinSample | None = None
    near_training: np.ndarray | None = None
    folds: tuple[Fold, ...] = ()
    test_digest: str = ""

    def parts(self) -> list[Dataset]:
        """Return what a config is fitted on: of data.fold=all a dataset a fold, else this one."""
        return [
            replace(self, train=t, val=v, folds=(), class_weight=self.class_weight and class_weight(self.labels[t]))
            for t, v in self.folds
        ] or [self]


@dataclass(frozen=True)
class TestSplit:
    """The sealed part, opened. Rows as in Dataset; fingerprint is the Dataset's. near_training: as there.

    digest: the Dataset's test_digest.
    """

    __test__ = False  # pytest: no test class

    images: np.ndarray
    labels: np.ndarray
    emotions: np.ndarray
    ids: np.ndarray
    usage: np.ndarray
    classes: tuple[str, ...]
    fingerprint: str
    near_training: np.ndarray | None = None
    digest: str = ""


@dataclass(frozen=True)
class _Parts:
    """All three parts, before the test is put away."""

    faces: Faces
    labels: np.ndarray
    rows: Rows
    folds: list[Rows]
    classes: tuple[str, ...]
    cleaning: dict[str, Any]
    fingerprint: str
    twins: TwinSample | None
    near_training: np.ndarray | None


def load_dataset(cfg: DataConfig, *, smoke: bool = False, cache: Path | None = None) -> Dataset:
    """Read, clean, group, split and fingerprint the data of `cfg`; smoke keeps a few images of each part.

    cache: the folder that keeps the faces and which of them are near twins; without it both are made again.

    Raises UserError for whatever in the config, the path or the files has to be mended.
    """
    parts = _load_parts(cfg, smoke, cache)
    rows = np.unique(np.concatenate([parts.rows["train"], parts.rows["val"]]))
    faces, labels = parts.faces.take(rows), parts.labels[rows]
    train = np.searchsorted(rows, parts.rows["train"])
    folds = [(np.searchsorted(rows, fold["train"]), np.searchsorted(rows, fold["val"])) for fold in parts.folds]
    return Dataset(
        images=faces.images,
        labels=labels,
        emotions=faces.emotion,
        ids=faces.ids,
        usage=faces.usage,
        train=train,
        val=np.searchsorted(rows, parts.rows["val"]),
        classes=parts.classes,
        class_weight=class_weight(labels[train]) if cfg.balance == "class_weight" else None,
        task=cfg.task,
        source=cfg.source,
        counts=_counts(parts),
        cleaning=parts.cleaning,
        fingerprint=parts.fingerprint,
        images_fingerprint=_sha256([str(faces.images.shape).encode(), np.ascontiguousarray(faces.images).data]),
        twins=parts.twins,
        near_training=None if parts.near_training is None else parts.near_training[rows],
        folds=tuple(folds) if len(folds) > 1 else (),
        test_digest=_test_digest(parts),
    )


def open_test_split(cfg: DataConfig, *, smoke: bool = False, cache: Path | None = None) -> TestSplit:
    """Return the test split of `cfg`. Whoever calls this records that it was opened."""
    parts = _load_parts(cfg, smoke, cache)
    rows = parts.rows["test"]
    faces = parts.faces.take(rows)
    near = None if parts.near_training is None else parts.near_training[rows]
    told = (faces.images, parts.labels[rows], faces.emotion, faces.ids, faces.usage, parts.classes)
    return TestSplit(*told, fingerprint=parts.fingerprint, near_training=near, digest=_test_digest(parts))


def _test_digest(parts: _Parts) -> str:
    rows = parts.rows["test"]
    return images_digest(parts.faces.images[rows], parts.labels[rows], parts.classes)


def _load_parts(cfg: DataConfig, smoke: bool, cache: Path | None) -> _Parts:
    steps = clean_steps(cfg.clean)
    if cfg.source == "demo":  # each face is drawn by itself: there is no photograph to have twins of
        steps = tuple(step for step in steps if step != "near_twins")
    check_data(cfg)
    if smoke:
        cfg = replace(cfg, per_class=None, demo_size=min(cfg.demo_size, SMOKE_DEMO_SIZE))
    faces, digests = _read(cfg, cache)
    classes, label_of = _classes(cfg, np.unique(faces.emotion).tolist())
    notes = [*(doubts(classes) if cfg.classes is None else []), *split_notes(faces, cfg), *fold_notes(cfg)]
    if smoke:
        cfg = replace(cfg, limit=max(min(cfg.limit or SMOKE_LIMIT, SMOKE_LIMIT), len(classes)))
    groups = identical_groups(digests)
    twins = find_twins(faces.images, digests, groups, cache) if "near_twins" in steps else None
    kept, cleaning = clean_rows(faces, groups, steps, twins, SET_ASIDE[cfg.split])
    kept = kept[np.isin(faces.emotion[kept], list(label_of))]
    cleaning["in_classes"] = len(kept)
    cleaning["notes"] = notes
    source, faces, groups = faces, faces.take(kept), (groups if twins is None else twins.groups)[kept]
    labels = np.array([label_of[emotion] for emotion in faces.emotion.tolist()], np.int64)
    _refuse_empty_class(np.bincount(labels, minlength=len(classes)), classes, "after cleaning")
    folds = [split_rows(faces, labels, groups, classes, each) for each in each_fold(cfg)]
    for rows, part in product(folds, PARTS):
        _refuse_empty_class(np.bincount(labels[rows[part]], minlength=len(classes)), classes, f"in the {part} split")
    prints = [_fingerprint(digests[kept], faces.images.shape[1:], labels, rows, classes, steps) for rows in folds]
    fingerprint = prints[0] if len(prints) == 1 else _sha256(map(str.encode, prints))
    rows = together(folds)
    notes += share_notes(rows, groups, cfg)
    if twins is None:
        return _Parts(faces, labels, rows, folds, classes, cleaning, fingerprint, None, None)
    sample = _sample(source, twins, kept[rows["test"]])
    near = np.isin(groups, twins.groups[source.usage == "Training"]) & (faces.usage != "Training")
    return _Parts(faces, labels, rows, folds, classes, cleaning, fingerprint, sample, near)


def _sample(faces: Faces, twins: NearTwins, test: np.ndarray) -> TwinSample | None:
    """Return pairs spread over the scores, the least alike first."""
    shown = np.flatnonzero(~np.isin(twins.rows, test).any(axis=1))
    shown = shown[np.argsort(twins.score[shown], kind="stable")]
    chosen = shown[np.unique(np.linspace(0, len(shown) - 1, min(SHOWN, len(shown))).astype(int))]
    rows = twins.rows[chosen].ravel()
    told = [note for i in chosen for note in (f"{twins.score[i]:.3f}", "mirrored" if twins.mirrored[i] else "")]
    titles = [f"{faces.usage[row]}\n{faces.emotion[row]} {note}".strip() for row, note in zip(rows, told, strict=True)]
    return TwinSample(faces.images[rows], titles) if titles else None


def _read(cfg: DataConfig, cache: Path | None) -> tuple[Faces, np.ndarray]:
    """Return the faces in canonical order, with their digests."""
    path = find_source(cfg)
    read: Callable[[], Faces]
    said: list[object]
    if path is None:
        from fer_experiments.data import demo

        path, said = Path(demo.__file__), ["demo", cfg.demo_size, cfg.seed, np.__version__]
        read = partial(demo.draw_faces, cfg.demo_size, cfg.seed)
    else:
        naming = Naming(cfg.source, cfg.emotions or {})
        said, read = [naming.source, sorted(naming.emotions.items())], partial(read_faces, path, naming)
    if cache is None:
        return canonical_order(read())
    return kept_faces(path, said, cache, lambda: canonical_order(read()))


def _classes(cfg: DataConfig, emotions: list[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the classes' names, and the class index of every emotion that is in one."""
    if cfg.classes is None:
        known = [emotion for emotion in EMOTIONS if emotion in emotions]
        names = known + sorted(set(emotions) - set(known), key=natural_key)
        grouping = {name: [name] for name in names}
    else:
        grouping = {name: list(members) for name, members in cfg.classes.items()}
    if len(grouping) < 2:
        where = "the source has" if cfg.classes is None else "there is"
        raise UserError(f"data.classes: {where} {len(grouping)} class ({', '.join(grouping)}); at least two are needed")
    label_of: dict[str, int] = {}
    for label, (name, members) in enumerate(grouping.items()):
        if not members:
            raise UserError(f"data.classes: class {name} has no emotion; name some of {', '.join(emotions)}")
        for emotion in map(emotion_named, members):
            if emotion not in emotions:
                close = difflib.get_close_matches(emotion, emotions, n=3) or emotions
                raise UserError(
                    f"data.classes: unknown emotion {emotion!r} in {name}; did you mean {', '.join(close)}?"
                )
            if emotion in label_of:
                raise UserError(f"data.classes: emotion {emotion} is in two classes; leave it in one")
            label_of[emotion] = label
    return tuple(grouping), label_of


def _refuse_empty_class(counts: np.ndarray, classes: tuple[str, ...], where: str) -> None:
    for name, count in zip(classes, counts.tolist(), strict=True):
        if count == 0:
            raise UserError(
                f"data.classes: class {name} has no image {where}; "
                "add images, or change data.classes, data.clean, data.split or data.limit"
            )


def _counts(parts: _Parts) -> dict[str, dict[str, int]]:
    return {
        part: {name: int((parts.labels[parts.rows[part]] == label).sum()) for label, name in enumerate(parts.classes)}
        for part in PARTS
    }


def _fingerprint(
    digests: np.ndarray,
    shape: tuple[int, ...],
    labels: np.ndarray,
    rows: Rows,
    classes: tuple[str, ...],
    steps: tuple[str, ...],
) -> str:
    """Hash the pixels and labels of each part, sorted by pixels, with classes, image shape and cleaning steps."""
    sizes = {part: len(rows[part]) for part in PARTS}
    chunks = [json.dumps([shape, classes, steps, sizes]).encode()]
    for part in PARTS:
        records = np.column_stack([digests[rows[part]], labels[rows[part]].astype(">i8")[:, None].view(np.uint8)])
        chunks += sorted(record.tobytes() for record in records)
    return _sha256(chunks)


def _sha256(chunks: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
