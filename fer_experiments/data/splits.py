"""Splits: which images train, which choose, which are sealed for the test.

All draws come from numpy's PCG64 with data.seed over faces in canonical order: the same on every platform, and for
every container of the same data.
"""

from __future__ import annotations

import copy

import numpy as np

from fer_experiments.config import DataConfig
from fer_experiments.data.faces import Faces
from fer_experiments.errors import UserError

PARTS = ("train", "val", "test")
MISSED = 0.05  # of a share that was asked for: so much is said
OFFICIAL = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
# What of the source's own parts a split keeps for evaluation, the most sealed first.
SET_ASIDE = {"official": ("PrivateTest", "PublicTest"), "kfold": ("PrivateTest",), "stratified": ()}
TEST_SHARE = 0.2  # what kfold keeps for the test where the source has no PrivateTest

Rows = dict[str, np.ndarray]


def split_rows(faces: Faces, labels: np.ndarray, groups: np.ndarray, classes: tuple[str, ...], cfg: DataConfig) -> Rows:
    """Return the rows of "train", "val" and "test" (int64, ascending, disjoint) of faces in canonical order.

    labels: int64 [n]; groups: int64 [n], equal for images that no draw may part, copies and near twins; a Usage of the
    source may, where data.clean leaves them in. Balancing draws from the whole data for stratified, from the training
    part otherwise.
    """
    rng = np.random.Generator(np.random.PCG64(cfg.seed))
    if cfg.split == "stratified":
        pool = undersample(np.arange(len(labels)), labels, classes, cfg, rng)
        part = allocate(labels[pool], groups[pool], cfg.fractions, rng)
        rows = {name: pool[part == index] for index, name in enumerate(PARTS)}
        return {name: _limited(rows[name], labels, classes, cfg, rng) for name in PARTS}
    rows = (_official if cfg.split == "official" else _folds)(faces, labels, groups, cfg, rng)
    # Balancing draws from a copy of the generator: what it takes for training moves no validation image.
    balanced = copy.deepcopy(rng)
    train = undersample(rows["train"], labels, classes, cfg, balanced)
    limited = {name: _limited(rows[name], labels, classes, cfg, rng) for name in PARTS}
    if cfg.balance == "undersample":
        limited["train"] = _limited(train, labels, classes, cfg, balanced)
    return limited


def allocate(labels: np.ndarray, groups: np.ndarray, shares: list[float], rng: np.random.Generator) -> np.ndarray:
    """Deal images to parts of the given shares: int64 [n], the part of each.

    Each class is shared out to the image (largest remainder) as long as single images can even out the groups, which
    are never parted.
    """
    if len(labels) == 0:
        return np.zeros(0, np.int64)
    counts = np.bincount(labels)
    room = np.stack([apportion(np.array(shares) * n / sum(shares), n) for n in counts])  # [classes, parts]
    part = np.full(len(labels), -1, np.int64)
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    together = np.flatnonzero(size[group] > 1)
    members = np.split(together[np.argsort(group[together], kind="stable")], np.cumsum(size[size > 1])[:-1])
    for index in rng.permutation(len(members)) if len(together) else ():
        rows = members[index]
        need = np.bincount(labels[rows], minlength=len(counts))
        fits = np.where((room >= need[:, None]).all(axis=0), room[need > 0].sum(axis=0), 0)
        choice = (
            int(rng.choice(len(shares), p=fits / fits.sum())) if fits.any() else int(room[need > 0].sum(0).argmax())
        )
        part[rows] = choice
        room[:, choice] -= need
    for label in range(len(counts)):
        single = rng.permutation(np.flatnonzero((labels == label) & (part < 0)))
        part[single] = np.repeat(np.arange(len(shares)), apportion(np.maximum(room[label], 0), len(single)))
    return part


def apportion(quotas: np.ndarray, total: int) -> np.ndarray:
    """Round quotas to whole numbers that sum to `total` (largest remainder), none at 0 where the total allows it."""
    if total == 0 or quotas.sum() == 0:
        return np.zeros(len(quotas), np.int64)
    quotas = quotas * (total / quotas.sum())
    counts = np.floor(quotas).astype(np.int64)
    counts[np.argsort(counts - quotas, kind="stable")[: total - counts.sum()]] += 1
    for empty in np.flatnonzero((counts == 0) & (quotas > 0)):
        if counts.max() > 1:
            counts[counts.argmax()] -= 1
            counts[empty] += 1
    return counts


def split_notes(faces: Faces, cfg: DataConfig) -> list[str]:
    """Return a line for what a split does to the source's own parts that a person may not expect."""
    own = [usage for usage in OFFICIAL.values() if (faces.usage == usage).any()]
    if cfg.split == "stratified" and len(own) > 1:
        return [f"the source's own {', '.join(own)} are mixed by data.split=stratified; official keeps them apart"]
    if cfg.split == "official" and (part := _missing(faces, cfg)):
        share = f"{_share(part, cfg):.0%}"
        return [f"the source has no {part} part: {share} of its train part, drawn by data.seed, takes its place"]
    return []


def share_notes(rows: Rows, groups: np.ndarray, cfg: DataConfig) -> list[str]:
    """Return a line where a drawn split has other shares than were asked for; groups: of all rows, kept together."""
    total, largest = sum(map(len, rows.values())), int(np.bincount(groups).max(initial=0))
    if cfg.split != "stratified" or cfg.limit or cfg.balance == "undersample" or not total:
        return []
    shares = [len(rows[part]) / total for part in PARTS]
    if max(abs(share - asked) for share, asked in zip(shares, cfg.fractions, strict=True)) < MISSED:
        return []
    told = ["/".join(f"{100 * share:.0f}" for share in each) for each in (shares, cfg.fractions)]
    why = "there are so few images"
    if largest > 1 and largest >= MISSED * total:
        why = (
            f"images of one photograph stay in one part, up to {largest:,} here; data.clean says what is one photograph"
        )
    return [f"the split is {told[0]} % instead of {told[1]} %: {why}"]


def _missing(faces: Faces, cfg: DataConfig) -> str | None:
    """Return the part, val or test, that is drawn from train, as the source has the others.

    FER2013 without one of its parts is not FER2013's official split.
    """
    missing = [part for part, usage in OFFICIAL.items() if not (faces.usage == usage).any()]
    return missing[0] if cfg.source != "fer2013" and len(missing) == 1 and missing != ["train"] else None


def _share(part: str, cfg: DataConfig) -> float:
    """Return a part's share of itself and train."""
    train, own = cfg.fractions[0], cfg.fractions[PARTS.index(part)]
    return own / (train + own)


def _official(faces: Faces, labels: np.ndarray, groups: np.ndarray, cfg: DataConfig, rng: np.random.Generator) -> Rows:
    rows = {part: np.flatnonzero(faces.usage == usage) for part, usage in OFFICIAL.items()}
    if part := _missing(faces, cfg):
        share, train = _share(part, cfg), rows["train"]
        drawn = allocate(labels[train], groups[train], [1 - share, share], rng)
        rows["train"], rows[part] = train[drawn == 0], train[drawn == 1]
    elif empty := [usage for part, usage in OFFICIAL.items() if len(rows[part]) == 0]:
        raise UserError(f"data.split=official: the source has no {' and no '.join(empty)}; use stratified or kfold")
    return rows


def _folds(faces: Faces, labels: np.ndarray, groups: np.ndarray, cfg: DataConfig, rng: np.random.Generator) -> Rows:
    test = faces.usage == OFFICIAL["test"]
    if test.all() or not test.any():
        test = allocate(labels, groups, [1 - TEST_SHARE, TEST_SHARE], rng) == 1
    pool = np.flatnonzero(~test)
    fold = allocate(labels[pool], groups[pool], [1.0] * cfg.folds, rng)
    return {"train": pool[fold != cfg.fold], "val": pool[fold == cfg.fold], "test": np.flatnonzero(test)}


def undersample(
    rows: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], cfg: DataConfig, rng: np.random.Generator
) -> np.ndarray:
    """Return the rows that data.balance leaves: all, or of each class data.per_class, or as many as of the smallest."""
    if cfg.balance != "undersample":
        return rows
    counts = np.bincount(labels[rows], minlength=len(classes)).tolist()
    wanted = cfg.per_class or min(counts)
    for name, count in zip(classes, counts, strict=True):
        if count < wanted:
            raise UserError(
                f"data.per_class: {wanted} is over the {count} images of class {name}; give at most {min(counts)}"
            )
    return _draw(rows, labels, [wanted] * len(classes), rng)


def _limited(
    rows: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], cfg: DataConfig, rng: np.random.Generator
) -> np.ndarray:
    limit = cfg.limit
    if limit is None:
        return rows
    if limit < len(classes):
        raise UserError(f"data.limit: {limit} is under the {len(classes)} classes; give at least {len(classes)}")
    if len(rows) <= limit:
        return rows
    return _draw(rows, labels, apportion(np.bincount(labels[rows]), limit).tolist(), rng)


def _draw(rows: np.ndarray, labels: np.ndarray, wanted: list[int], rng: np.random.Generator) -> np.ndarray:
    drawn = [rng.permutation(rows[labels[rows] == label])[:count] for label, count in enumerate(wanted)]
    return np.sort(np.concatenate(drawn))
