"""Readers that detect what they are given: the competition's CSV files, and trees of class folders, packed or not."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from fer_experiments.config import project_root
from fer_experiments.data.archives import Container, is_archive, open_container
from fer_experiments.data.faces import EMOTIONS, USAGES, Faces
from fer_experiments.data.images import decode_images
from fer_experiments.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm")
SPLIT_FOLDERS = {
    "train": "Training",
    "training": "Training",
    "val": "PublicTest",
    "valid": "PublicTest",
    "validation": "PublicTest",
    "publictest": "PublicTest",
    "test": "PrivateTest",
    "privatetest": "PrivateTest",
}
COMPETITION_FILES = ("fer2013.csv", "icml_face_data.csv")
SIDE = 48
PIXEL = {str(value): value for value in range(256)}


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key under which "face-10" comes after "face-9"."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def find_fer2013() -> Path | None:
    """Return $FER2013, else the first data/fer2013* under the current folder or the project's root, else None.

    Raises UserError where $FER2013 is set and nothing is there.
    """
    if given := os.environ.get("FER2013"):
        path = Path(given).expanduser()
        if not path.exists():
            raise UserError(f"$FER2013: no file or folder {path}; mend or unset it")
        return path
    for folder in dict.fromkeys((Path.cwd() / "data", project_root() / "data")):
        for path in sorted(folder.glob("fer2013*")):
            if path.is_dir() or path.name.endswith((".zip", ".csv", ".tar.gz", ".tgz")):
                return path
    return None


def read_faces(path: Path) -> Faces:
    """Read the labelled faces of a CSV file, a folder, a zip or a tar.gz, in the order found there.

    CSV: columns emotion (0..6), pixels (48x48 values 0..255) and, if there is one, Usage. Folders: <class>/<image> or
    <split>/<class>/<image>; a file name's prefix Training_, PublicTest_ or PrivateTest_ is its Usage. Raises UserError
    naming file, row or member for anything that cannot be read exactly.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; mend data.path")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read it; mend its permissions")
    if path.is_file() and path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; fetch it again")
    if path.is_file() and not is_archive(path):
        return _read_csv(str(path), path.read_bytes())
    with open_container(path) as container:
        if table := _competition_file(container):
            return _read_csv(str(path / table), container.read(table))
        return _read_tree(container)


def _competition_file(container: Container) -> str | None:
    """Return the CSV to read: one with the competition's name, or the only one where there are no images."""
    by_name = {PurePosixPath(name).name.lower(): name for name in container.files}
    for name in COMPETITION_FILES:
        if name in by_name:
            return by_name[name]
    tables = [name for name in container.files if name.lower().endswith(".csv")]
    if not tables or any(_is_image(name) for name in container.files):
        return None
    if len(tables) > 1:
        raise UserError(f"{container.path}: several CSV files ({', '.join(tables)}); give one of them as data.path")
    return tables[0]


def _read_csv(name: str, content: bytes) -> Faces:
    rows = _csv_rows(name, content)
    _, header = next(rows, (1, []))
    columns = {title.strip().lower(): index for index, title in enumerate(header)}
    if missing := {"emotion", "pixels"} - set(columns):
        raise UserError(
            f"{name}: line 1 names no column {' or '.join(sorted(missing))}; "
            "expected fer2013.csv (emotion,pixels,Usage), a folder of class folders, a .zip or a .tar.gz"
        )
    pixels, emotions, usages, lines = bytearray(), [], [], []
    for line, row in rows:
        where = f"{name}: row {line}"
        if len(row) != len(header):
            raise UserError(f"{where}: {len(row)} fields where the header has {len(header)}; is the file cut off?")
        emotions.append(_emotion(where, row[columns["emotion"]]))
        usages.append(_usage(where, row[columns["usage"]]) if "usage" in columns else "")
        pixels += _pixels(where, row[columns["pixels"]])
        lines.append(f"row-{line:06d}")
    if not lines:
        raise UserError(f"{name}: no rows under the header; fetch it again")
    images = np.frombuffer(pixels, np.uint8).reshape(-1, SIDE, SIDE)
    return Faces(images, np.array(emotions), np.array(usages), np.array(lines))


def _csv_rows(name: str, content: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number from 1, fields); a byte order mark, Windows line ends and blank lines are no fault."""
    text = (line.decode() for line in io.BytesIO(content.removeprefix(codecs.BOM_UTF8)))
    reader = csv.reader(text)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(
            f"{name}: row {reader.line_num + 1}: not CSV text ({error}); give fer2013.csv, a .zip or a .tar.gz"
        ) from error


def _emotion(where: str, text: str) -> str:
    code = PIXEL.get(text.strip(), -1)
    if not 0 <= code < len(EMOTIONS):
        known = ", ".join(f"{index} {emotion}" for index, emotion in enumerate(EMOTIONS))
        raise UserError(f"{where}: unknown emotion {text[:20]!r}; known are {known}")
    return EMOTIONS[code]


def _usage(where: str, text: str) -> str:
    if text.strip() not in USAGES:
        raise UserError(f"{where}: unknown Usage {text[:20]!r}; known are {', '.join(USAGES)} (is the file cut off?)")
    return text.strip()


def _pixels(where: str, text: str) -> bytes:
    values = text.split()
    if len(values) != SIDE * SIDE:
        raise UserError(f"{where}: {len(values)} pixels, not {SIDE}x{SIDE} = {SIDE * SIDE}; is the file cut off?")
    try:
        return bytes(map(PIXEL.__getitem__, values))
    except KeyError as error:
        raise UserError(
            f"{where}: pixel {str(error.args[0])[:20]!r} is no whole number from 0 to 255; mend the row"
        ) from error


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _read_tree(container: Container) -> Faces:
    names = [name for name in container.files if _is_image(name)]
    if not names:
        raise UserError(f"{container.path}: no images and no fer2013.csv in it; expected <class>/<image> folders")
    places = _places(container, names)
    _refuse_empty_classes(container, names)
    usage = [_tree_usage(place) for place in places]
    if "" in usage and any(usage):
        stray = names[usage.index("")]
        raise UserError(
            f"{container.path}: {stray} is in no split folder while others are; move it under train, val or test"
        )
    folders = [place[-2] for place in places]
    emotion = [folder.lower() if folder.lower() in EMOTIONS else folder for folder in folders]
    images, converted = decode_images(container, names)
    if ignored := len(container.files) - len(names):
        converted["other files ignored"] = ignored
    return Faces(images, np.array(emotion), np.array(usage), np.array(_tree_ids(places)), converted)


def _places(container: Container, names: list[str]) -> list[tuple[str, ...]]:
    """Return (class, file) or (split, class, file) of every image; whatever lies above must be common to all."""
    parts = [tuple(name.split("/")) for name in names]
    depth = len(parts[0])
    split = depth >= 3 and all(len(part) >= 3 and part[-3].lower() in SPLIT_FOLDERS for part in parts)
    keep = 3 if split else 2
    for part in parts:
        if len(part) != depth or depth < 2 or part[:-keep] != parts[0][:-keep]:
            raise UserError(
                f"{container.path}: {'/'.join(part)} does not fit <class>/<image> or <train|val|test>/<class>/<image>"
                + (f" as {names[0]} does" if part != parts[0] else "")
                + "; move it"
            )
    return [part[-keep:] for part in parts]


def _tree_usage(place: tuple[str, ...]) -> str:
    prefix = place[-1].partition("_")[0]
    if prefix in USAGES:
        return prefix
    return SPLIT_FOLDERS[place[0].lower()] if len(place) == 3 else ""


def _tree_ids(places: list[tuple[str, ...]]) -> list[str]:
    """A file's stem, or its place in the tree where the stem is not unique (FER2013 has two such pairs)."""
    stems = [place[-1].rpartition(".")[0] for place in places]
    count = Counter(stems)
    return [stem if count[stem] == 1 else "/".join(place) for stem, place in zip(stems, places, strict=True)]


def _refuse_empty_classes(container: Container, names: list[str]) -> None:
    full = {name.rpartition("/")[0] for name in names}
    depth = names[0].count("/")
    for folder in container.folders:
        if folder.count("/") == depth - 1 and folder not in full:
            raise UserError(f"{container.path}: class folder {folder} holds no image; fill or remove it")
