"""Faces in folders, whose names are their classes, packed or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import TypeVar

import numpy as np

from fer_experiments.data.archives import Container
from fer_experiments.data.faces import USAGES, Faces
from fer_experiments.data.images import HEAD, decode_images, is_picture
from fer_experiments.data.names import KNOWN, Naming, emotion_named, split_named
from fer_experiments.errors import UserError

T = TypeVar("T")

LAYOUTS = "<class>/<image> or <train|val|test>/<class>/<image>"
LABELS = (".csv", ".txt", ".json", ".npy", ".xml", ".mat", ".xlsx")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


def pictures(container: Container) -> list[str]:
    """Return the files that are pictures by their content, and those that should be by their name."""
    return [name for name in container.files if is_picture(name, partial(container.read, name, HEAD))]


def read_tree(container: Container, names: list[str], naming: Naming) -> Faces:
    """Read the pictures `names`, in that order; a name's prefix Training_, PublicTest_ or PrivateTest_ is its Usage.

    In a split folder it may only tell PublicTest from PrivateTest. Raises UserError naming the file or folder that is
    out of line, by what most are like.
    """
    if not names:
        raise UserError(f"{container.path}: {_nothing(container)}")
    places = _places(container, names)
    folders = [place[-2] for place in places]
    _refuse_meaningless(container, sorted(set(folders)))
    _refuse_empty_classes(container, names)
    usage = _usages(container, names, places)

    def refuse(folder: str) -> UserError:
        return UserError(f"{container.path}: class folder {folder}: {naming.unknown(folder)}")

    emotion, renamed = naming.apply(folders, refuse)
    images, converted = decode_images(container, names)
    converted |= renamed
    if ignored := len(container.files) - len(names):
        converted["other files ignored"] = ignored
    return Faces(images, np.array(emotion), np.array(usage), np.array(_ids(places)), converted)


def _nothing(container: Container) -> str:
    """Say what is there instead of pictures."""
    if packed := [name for name in container.files if name.lower().endswith(ARCHIVES)]:
        return f"no images in it but {packed[0]}, an archive; unpack it and give that one"
    if "xl/workbook.xml" in container.files:
        return "an Excel workbook; save it as CSV, but mind that it cuts fields at 32,767 characters"
    return "no images and no fer2013.csv in it; expected <class>/<image> folders"


def _places(container: Container, names: list[str]) -> list[tuple[str, ...]]:
    """Return (class, file) or (split, class, file) of every image; whatever lies above must be common to all."""
    parts = [tuple(name.split("/")) for name in names]
    depth = _usual(len(part) for part in parts)
    usual = [part for part in parts if len(part) == depth]
    split = depth >= 3 and 2 * sum(split_named(part[-3]) != "" for part in usual) > len(usual)
    keep = 3 if split else 2
    top = _usual(part[:-keep] for part in usual)
    fits = [
        1 < len(part) == depth and part[:-keep] == top and not (split and not split_named(part[-3])) for part in parts
    ]
    if False in fits:
        stray, example = (names[fits.index(fit)] if fit in fits else None for fit in (False, True))
        like = f" as {example} and most do" if example else ""
        raise UserError(f"{container.path}: {stray} does not fit {LAYOUTS}{like}; move it")
    return [part[-keep:] for part in parts]


def _usages(container: Container, names: list[str], places: list[tuple[str, ...]]) -> list[str]:
    usage = [_prefix(place) or (split_named(place[0]) if len(place) == 3 else "") for place in places]
    _refuse_contradictions(container, names, places)
    without = usage.count("")
    if without in (0, len(usage)):
        return usage
    if 2 * without > len(usage):
        stray = next(name for name, said in zip(names, usage, strict=True) if said)
        raise UserError(
            f"{container.path}: {stray} is by its prefix of an official split, and most are of none; rename it"
        )
    stray = names[usage.index("")]
    raise UserError(
        f"{container.path}: {stray} is in no split folder while others are; move it under train, val or test"
    )


def _prefix(place: tuple[str, ...]) -> str:
    prefix, underscore, _ = place[-1].partition("_")
    return prefix if underscore and prefix in USAGES else ""


def _refuse_contradictions(container: Container, names: list[str], places: list[tuple[str, ...]]) -> None:
    """Refuse a file whose prefix is of another split than its folder: one that was moved may come to train from test.

    FER2013's packings with train and test alone have PublicTest and PrivateTest in test.
    """
    said = [(split_named(place[0]), _prefix(place)) if len(place) == 3 else ("", "") for place in places]
    both = {("PrivateTest", "PublicTest"), ("PrivateTest", "PrivateTest")}
    refined = both if both <= {*said} and "PublicTest" not in {folder for folder, _ in said} else set()
    for name, (folder, prefix) in zip(names, said, strict=True):
        if folder and prefix and folder != prefix and (folder, prefix) not in refined:
            raise UserError(
                f"{container.path}: {name} is of {prefix} by its prefix, and of {folder} by its folder; rename it and "
                "its like where the folders hold, or move them"
            )


def _usual(values: Iterable[T]) -> T:
    return Counter(values).most_common(1)[0][0]


def _ids(places: list[tuple[str, ...]]) -> list[str]:
    """A file's stem, or its place in the tree where the stem is not unique (FER2013 has two such pairs)."""
    stems = [place[-1].rpartition(".")[0] or place[-1] for place in places]
    count = Counter(stems)
    return [stem if count[stem] == 1 else "/".join(place) for stem, place in zip(stems, places, strict=True)]


def _refuse_empty_classes(container: Container, names: list[str]) -> None:
    full = {name.rpartition("/")[0] for name in names}
    depth = names[0].count("/")
    for folder in container.folders:
        if folder.count("/") == depth - 1 and folder not in full:
            others = [name for name in container.files if name.startswith(f"{folder}/")]
            but = f" but {others[0].rpartition('/')[2]}" if others else ""
            raise UserError(f"{container.path}: class folder {folder} holds no image{but}; fill or remove it")


def _refuse_meaningless(container: Container, folders: list[str]) -> None:
    """Refuse class folders that name no expression whatever data.emotions may say: splits, or one word for all."""
    splits = all(map(split_named, folders))
    if not splits and (len(folders) > 1 or emotion_named(folders[0]) in KNOWN):
        return
    what = f"{', '.join(folders)} name splits" if splits else f"all images lie in folders called {folders[0]}"
    labels = [name for name in container.files if name.lower().endswith(LABELS)]
    where = f" (labels in {labels[0]} are not read)" if labels else ""
    raise UserError(
        f"{container.path}: {what}, not expressions{where}; put the images into a folder for each expression, {LAYOUTS}"
    )
