"""Cleaning: constant images, exact duplicates and contradictory labels, found, counted and dropped.

It works on the emotions of the whole source, before they are grouped to classes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from fer_experiments.data.faces import Faces
from fer_experiments.data.names import natural_key
from fer_experiments.errors import UserError

STEPS = ("constant", "conflicting", "duplicates")  # in the order in which they are applied
PRECEDENCE = ("PrivateTest", "PublicTest", "Training", "")  # whose copy stays: the evaluation's


def clean_steps(clean: Any) -> tuple[str, ...]:
    """Return the steps that a config's `clean` asks for: "all", "none" or a list out of STEPS."""
    if clean == "all":
        return STEPS
    if clean in ("none", None):
        return ()
    given = list(clean) if isinstance(clean, Iterable) and not isinstance(clean, str) else [clean]
    for step in given:
        if step not in STEPS:
            raise UserError(f"data.clean: unknown step {step!r}; give all, none or a list out of {', '.join(STEPS)}")
    return tuple(step for step in STEPS if step in given)


def pixel_digests(images: np.ndarray) -> np.ndarray:
    """Return the sha256 of each image's bytes, uint8 [n, 32]."""
    flat = np.ascontiguousarray(images).reshape(len(images), -1)
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


def clean_rows(faces: Faces, groups: np.ndarray, steps: tuple[str, ...]) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the rows that stay (int64, ascending) and a JSON-able report of what was found and removed.

    faces: in canonical order, so that the first copy of a group is the one to keep. The statistics of duplicates are
    those of the source, whatever `steps` are taken.
    """
    constant = np.ptp(faces.images.reshape(len(faces), -1), axis=1) == 0
    conflicting = _mixed(groups, faces.emotion)
    first = np.zeros(len(faces), bool)
    first[np.unique(groups, return_index=True)[1]] = True
    faults = {"constant": constant, "conflicting": conflicting, "duplicates": ~first}
    stays = np.ones(len(faces), bool)
    removed: dict[str, dict[str, int]] = {}
    for step in steps:
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


def _by_usage(usage: np.ndarray) -> dict[str, int]:
    """Count images by usage, "all" standing for a source without."""
    return {name or "all": count for name, count in sorted(Counter(usage.tolist()).items())}
