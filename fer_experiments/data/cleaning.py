"""Cleaning: constant images, exact duplicates, contradictory labels and near twins, found, counted and dropped.

It works on the emotions of the whole source, before they are grouped to classes.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import Any

import numpy as np

from fer_experiments.data.faces import Faces
from fer_experiments.data.names import natural_key
from fer_experiments.data.near_twins import THRESHOLD, NearTwins
from fer_experiments.errors import UserError

STEPS = ("constant", "conflicting", "duplicates", "near_twins")  # in the order in which they are applied
PRECEDENCE = ("PrivateTest", "PublicTest", "Training", "")  # whose copy stays: the evaluation's


def clean_steps(clean: Any) -> tuple[str, ...]:
    """Return the steps that a config's `clean` asks for: "all", "none" or a list out of STEPS."""
    if clean == "all":
        return STEPS
    if clean in ("none", None):
        return ()
    given = clean if isinstance(clean, (list, tuple)) else [clean]
    for step in given:
        if step not in STEPS:
            raise UserError(f"data.clean: unknown step {step!r}; give all, none or a list out of {', '.join(STEPS)}")
    return tuple(step for step in STEPS if step in given)


def pixel_digests(images: np.ndarray) -> np.ndarray:
    """Return the sha256 of each image's bytes, uint8 [n, 32]."""
    flat = np.ascontiguousarray(images).reshape(len(images), math.prod(images.shape[1:]))
    joined = b"".join(hashlib.sha256(image.data).digest() for image in flat)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def canonical_order(faces: Faces) -> tuple[Faces, np.ndarray]:
    """Sort faces by (usage as in PRECEDENCE, pixels' sha256, emotion, id); return them with their digests.

    The order depends on neither container nor file order: a zip of JPEGs and the CSV made from it give the same.
    """
    digests = pixel_digests(faces.images)
    usage = np.array([PRECEDENCE.index(usage) for usage in faces.usage.tolist()])
    emotion = np.unique(faces.emotion, return_inverse=True)[1]
    by_id = np.empty(len(faces), np.int64)
    by_id[sorted(range(len(faces)), key=lambda row: natural_key(str(faces.ids[row])))] = np.arange(len(faces))
    words = digests.view(">u8")
    order = np.lexsort((by_id, emotion, words[:, 3], words[:, 2], words[:, 1], words[:, 0], usage))
    return faces.take(order), digests[order]


def identical_groups(digests: np.ndarray) -> np.ndarray:
    """Number the groups of identical pixels: int64 [n], the same number for the same pixels."""
    return np.unique(digests, axis=0, return_inverse=True)[1].reshape(-1)


def clean_rows(
    faces: Faces,
    groups: np.ndarray,
    steps: tuple[str, ...],
    twins: NearTwins | None = None,
    set_aside: tuple[str, ...] = (),
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the rows that stay (int64, ascending) and a JSON-able report of what was found and removed.

    faces: in canonical order, so that the first copy of a group is the one to keep. The statistics of duplicates are
    those of the source, whatever `steps` are taken; those of near twins are there when `twins` are. set_aside: the
    Usages that the split keeps for evaluation, the most sealed first: a near twin of such an image leaves those after
    it, and the rest. Near twins of each other stay, whatever their labels; no draw parts them.
    """
    constant = np.ptp(faces.images.reshape(len(faces), -1), axis=1) == 0
    conflicting = _mixed(groups, faces.emotion)
    first = np.zeros(len(faces), bool)
    first[np.unique(groups, return_index=True)[1]] = True
    faults = {"constant": constant, "conflicting": conflicting, "duplicates": ~first}
    stays = np.ones(len(faces), bool)
    removed: dict[str, dict[str, int]] = {}
    for step in steps:
        if step == "near_twins":
            gone = np.zeros(len(faces), bool) if twins is None else _set_aside(faces, twins.groups, stays, set_aside)
        else:
            gone = stays & faults[step]
        stays &= ~gone
        removed[step] = _by_usage(faces.usage[gone])
    report = {
        "steps": list(steps),
        "found": len(faces),
        "found_by_usage": _by_usage(faces.usage),
        "converted": dict(faces.converted),
        "constant_images": int(constant.sum()),
        "duplicates": _duplicates(faces, groups, conflicting),
        **({} if twins is None else {"near_twins": _near_twins(faces, twins)}),
        "removed": removed,
        "kept": int(stays.sum()),
        "kept_by_usage": _by_usage(faces.usage[stays]),
    }
    return np.flatnonzero(stays), report


def _mixed(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mark the images whose group of identical pixels has more than one of `values`: bool [n]."""
    pairs = np.unique(np.stack([groups, np.unique(values, return_inverse=True)[1]]), axis=1)
    return (np.bincount(pairs[0]) > 1)[groups]


def _duplicates(faces: Faces, groups: np.ndarray, conflicting: np.ndarray) -> dict[str, int]:
    sizes = np.bincount(groups)
    across = _mixed(groups, faces.usage)
    in_training = np.isin(groups, groups[faces.usage == "Training"])
    return {
        "redundant_copies": int(len(groups) - len(sizes)),
        "groups": int((sizes > 1).sum()),
        "groups_across_splits": len(np.unique(groups[across])),
        "conflicting_groups": len(np.unique(groups[conflicting])),
        "private_test_with_twin_in_training": int((in_training & (faces.usage == "PrivateTest")).sum()),
        "public_test_with_twin_in_training": int((in_training & (faces.usage == "PublicTest")).sum()),
    }


def _set_aside(faces: Faces, groups: np.ndarray, stays: np.ndarray, usages: tuple[str, ...]) -> np.ndarray:
    """Mark what stays and has, in its group, an image of an earlier one of the usages: bool [n]."""
    rank = np.full(len(faces), len(usages))
    for place, usage in enumerate(usages):
        rank[faces.usage == usage] = place
    first = np.full(groups.max(initial=-1) + 1, len(usages))
    np.minimum.at(first, groups[stays], rank[stays])
    return stays & (rank > first[groups])


def _near_twins(faces: Faces, twins: NearTwins) -> dict[str, Any]:
    """Count pairs, exact copies counting as one image, and the groups that they make."""
    usage = np.array([name or "all" for name in faces.usage.tolist()])
    rows = np.unique(twins.rows)
    grouped = np.isin(twins.groups, twins.groups[rows])
    between = Counter(" and ".join(sorted(pair)) for pair in usage[twins.rows].tolist())

    def with_twin(inside: str, of: str) -> int:
        theirs = np.unique(twins.groups[grouped & (usage == of)])
        return int((np.isin(twins.groups[rows], theirs) & (usage[rows] == inside)).sum())

    return {
        "threshold": THRESHOLD,
        "pairs": len(twins.rows),
        "mirrored_pairs": int(twins.mirrored.sum()),
        "pairs_between": dict(sorted(between.items())),
        "images": len(rows),
        "groups": len(np.unique(twins.groups[rows])),
        "largest_group": int(np.bincount(twins.groups[rows]).max(initial=0)),
        "conflicting_groups": len(np.unique(twins.groups[grouped & _mixed(twins.groups, faces.emotion)])),
        "private_test_with_twin_in_training": with_twin("PrivateTest", "Training"),
        "public_test_with_twin_in_training": with_twin("PublicTest", "Training"),
        "public_test_with_twin_in_private_test": with_twin("PublicTest", "PrivateTest"),
    }


def _by_usage(usage: np.ndarray) -> dict[str, int]:
    """Count images by usage, "all" standing for a source without."""
    return {name or "all": count for name, count in sorted(Counter(usage.tolist()).items())}
