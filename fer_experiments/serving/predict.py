"""`fer predict`: pictures in files, folders or standard input to the probability of each class."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from fer_experiments.config import Config
from fer_experiments.config.folders import expanded
from fer_experiments.data.folders import read_plain, walk
from fer_experiments.data.images import HEAD, LIMIT, begins_picture, is_picture, limited, read_picture, read_whole
from fer_experiments.errors import UserError
from fer_experiments.serving import finding
from fer_experiments.serving.finding import Face
from fer_experiments.terminal import DASHES, Echo, csv_line, fit, say
from fer_experiments.tracking.models import UNCERTAIN, labels

if TYPE_CHECKING:
    from fer_experiments.serving.fast import Answering

BATCH = 64  # pictures that are held at once
FORMS = ("table", "json", "csv")
STDIN = "-"
NAME = 1 << 16  # bytes, more than any name of a file has
LONGEST = 200  # bytes of the name of a copy; file systems take 255
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm")  # of what is no override


class Row(NamedTuple):
    """A picture's name, its label (see `models.labels`), the probability of each class, float32 [classes], and the face
    in it that they are of, where faces were looked for."""

    name: str
    label: str
    probabilities: np.ndarray
    face: Face | None = None


def names_picture(word: str, own: Container[str] = ()) -> bool:
    """Whether a word of `fer predict` names a picture, or a folder, and is no override or option; own: its own keys."""
    if word == "-" or os.path.exists(word):  # noqa: PTH110  Path.exists raises of a name that is too long
        return True
    key, equals, _ = word.partition("=")
    if word[0:1] in DASHES:
        return False
    return not equals or (Path(word).suffix.lower() in SUFFIXES and "." not in key and key not in own)


def predict(
    config: Config,
    paths: Sequence[str],
    form: str = "table",
    echo: Echo = say,
    version: str = "champion",
    find_faces: bool = False,
    marked: str | None = None,
) -> int:
    """Prints what the registered model says of pictures; returns the exit code, 2 when one could not be read.

    What cannot be read is named on standard error, a line each, and the rest goes on; so are pictures of one gray
    level, which are no faces, and how many files of folders are none. Rows come out as batches are
    done. Where no face is looked for, the end of a table says so.

    Args:
        config: data.task says which model.
        paths: pictures, folders of them, or "-": a picture, or a list of files, on standard input.
        form: table, json or csv.
        echo: takes each line.
        version: alias or number.
        find_faces: each picture is searched for faces, and has a row for each.
        marked: a folder for copies of the pictures with these framed and labelled.

    Raises:
        UserError: an unknown form, no path, no such model, no detector of faces, no place for copies.
    """
    if form not in FORMS:
        raise UserError(f"format={form}: choose one of {', '.join(FORMS)}")
    if not paths:
        raise UserError("nothing to predict: name pictures, a folder of them, or - for standard input")
    if marked and not find_faces:
        raise UserError(f"marked={marked}: faces are marked where they are looked for; say --find-faces too")
    copies = _copies(marked, paths) if marked else None
    if find_faces:
        finding.check_detector()
    said = _Said()
    present = [path for path in paths if path == STDIN or _exists(path, said)]
    if not present:
        return 2  # without the seconds that it takes to load a model
    if copies:
        finding.make_folder(copies)
    from fer_experiments.serving.fast import load_answering

    model = load_answering(config, version)

    said.copies = copies
    rows = _faces(present, model, copies, said) if find_faces else _crops(present, model, said)
    if form == "csv":
        _csv(rows, model.classes, echo, Face._fields if find_faces else ())
    else:
        {"table": _table, "json": _json}[form](rows, model.classes, echo)
    said.end(form, find_faces)
    return 2 if said.failures else 0


def _copies(marked: str, paths: Sequence[str]) -> Path:
    """The folder for marked copies; refuses one that is searched itself."""
    folder = expanded(marked, "marked")
    real = folder.resolve()
    searched = (path for path in paths if path != STDIN and os.path.isdir(path))  # noqa: PTH112  as in `_exists`
    if within := [path for path in searched if _is_in(path, real)]:
        raise UserError(f"marked={marked}: {within[0]} is searched for pictures, copies too; name another folder")
    return folder


def _is_in(path: str, folder: Path) -> bool:
    return Path(path).resolve().is_relative_to(folder)


def _crops(paths: Iterable[str], model: Answering, said: _Said) -> Iterator[Row]:
    """A row a picture, each taken for a face."""
    pictures = _pictures(paths, lambda content, name: read_picture(content, name, model.size), said)
    while batch := list(itertools.islice(pictures, BATCH)):
        names, pixels = zip(*batch, strict=True)
        for name in (name for name, one in batch if np.ptp(one) == 0):
            said.line(f"{fit(name)}: {finding.CONSTANT}, and its label says nothing")
        probabilities = model.probabilities(np.stack(pixels))
        yield from map(Row, names, labels(probabilities, model.classes, model.threshold), probabilities)


def _faces(paths: Iterable[str], model: Answering, marked: Path | None, said: _Said) -> Iterator[Row]:
    """A row for each face that is found in the pictures; marked: where copies of these go."""
    written: set[str] = set()
    for name, gray in _pictures(paths, read_whole, said):
        faces, crops, note = finding.look(gray, model.size)
        if not faces:
            said.line(f"{fit(name)}: {note}")
            continue
        probabilities = model.probabilities(crops)
        named = labels(probabilities, model.classes, model.threshold)
        if marked:
            own = "stdin" if name == STDIN else os.fsdecode(os.fsencode(Path(name).name)[:LONGEST])
            while f"{own}.png" in written:
                own = f"{own}_"
            written.add(f"{own}.png")
            finding.mark(gray, list(zip(faces, named, strict=True)), marked / f"{own}.png")
        yield from map(Row, itertools.repeat(name), named, probabilities, faces)


class _Said:
    """What is said on standard error: what could not be read, and what is odd."""

    def __init__(self) -> None:
        self.failures = 0
        self.copies: Path | None = None  # no pictures to look at
        self.ignored: list[str] = []

    def failure(self, error: UserError) -> None:
        self.failures += 1
        self.line(str(error))

    def line(self, text: str) -> None:
        say(f"fer predict: {text}", sys.stderr)

    def end(self, form: str, find_faces: bool) -> None:
        if self.ignored:
            self.line(f"other files ignored: {len(self.ignored)}, the first {fit(self.ignored[0])}")
        if form == "table" and not find_faces:
            self.line("no face is looked for: every picture is taken for a face that fills it (see --find-faces)")


def _exists(path: str, said: _Said) -> bool:
    if os.path.exists(path):  # noqa: PTH110  Path.exists raises of a name that is too long
        return True
    said.failure(UserError(f"{path}: no such file or folder"))
    return False


def _pictures(
    paths: Iterable[str], read: Callable[[bytes, str], np.ndarray], said: _Said
) -> Iterator[tuple[str, np.ndarray]]:
    """Names and pixels uint8 [h, w] of what can be read."""
    for name, content in _contents(paths, said):
        try:
            pixels = read(content, name)
        except UserError as error:
            said.failure(error)
            continue
        yield name, pixels


def _contents(paths: Iterable[str], said: _Said) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        if path == STDIN:
            yield from _from_stdin(sys.stdin.buffer, said)
        else:
            yield from _from_path(path, said)


def _from_path(path: str, said: _Said) -> Iterator[tuple[str, bytes]]:
    """The file's bytes, or those of all pictures in the folder."""

    def refuse(error: OSError) -> None:
        said.failure(UserError(f"{error.filename}: cannot be read ({error.strerror})"))

    for name in _files(path, refuse, said) if os.path.isdir(path) else [path]:  # noqa: PTH112  it raises nothing
        try:
            yield name, limited(read_plain(Path(name), LIMIT + 1), name)
        except OSError as error:
            refuse(error)
        except (UserError, ValueError) as error:  # ValueError: a NUL in a name
            said.failure(error if isinstance(error, UserError) else UserError(f"{name!r}: {error}"))


def _files(top: str, refuse: Callable[[OSError], None], said: _Said) -> Iterator[str]:
    """The pictures in a folder and below, by the rule of the data's readers: those by name, and those by content."""
    found = False
    copies = said.copies and said.copies.resolve()
    for folder, _, names in walk(Path(top), refuse):
        if copies and _is_in(folder, copies):
            said.line(f"{fit(folder)}: holds marked copies, and is not searched")
            continue
        for file in (Path(folder) / name for name in names):
            if is_picture(file.name, partial(read_plain, file, HEAD)):
                found = True
                yield str(file)
            else:
                said.ignored.append(str(file))
    if not found:
        said.failure(UserError(f"{top}: no picture in this folder"))


def _from_stdin(stream: BinaryIO, said: _Said) -> Iterator[tuple[str, bytes]]:
    """A picture's bytes, or the contents of the files that it lists."""
    head = stream.read(4096)
    if b"\0" in head or begins_picture(head):  # a zero is in no name, and not in each PGM
        try:
            yield STDIN, limited(head + stream.read(LIMIT), STDIN)
        except UserError as error:
            said.failure(error)
        return
    lines = itertools.chain((head + stream.readline(NAME)).splitlines(), iter(lambda: stream.readline(NAME), b""))
    listed = False
    for name in (os.fsdecode(line.rstrip(b"\r\n")) for line in lines):
        if name.strip():
            listed = True
            yield from _from_path(name, said)
    if not listed:
        said.failure(UserError(f"{STDIN}: neither a picture nor a name in it"))


def _table(rows: Iterator[Row], classes: Sequence[str], echo: Echo) -> None:
    """Aligned columns, as wide as the first batch needs."""
    first = list(itertools.islice(rows, BATCH))
    file = max((len(fit(row.name)) for row in first), default=0)
    label, number = max(map(len, ("label", UNCERTAIN, *classes))), [max(6, len(name)) for name in classes]
    face = max((len(str(row.face)) for row in first if row.face), default=0)
    if first:
        place = ["face".ljust(face)] if face else []
        echo("  ".join(["file".ljust(file), *place, "label".ljust(label), *map(str.rjust, classes, number)]))
    for row in itertools.chain(first, rows):
        values = (f"{p:{width}.4f}" for p, width in zip(row.probabilities, number, strict=True))
        place = [str(row.face).ljust(face)] if row.face else []
        echo("  ".join([fit(row.name).ljust(file), *place, row.label.ljust(label), *values]))


def _json(rows: Iterator[Row], classes: Sequence[str], echo: Echo) -> None:
    """A list of objects, a line each."""
    echo("[")
    last = ""
    for row in rows:
        if last:
            echo(f"{last},")
        values = {name: _plain(p) for name, p in zip(classes, row.probabilities, strict=True)}
        place = {"face": row.face._asdict()} if row.face else {}
        last = json.dumps({"file": row.name, **place, "label": row.label, "probabilities": values})
    echo(f"{last}\n]" if last else "]")


def _csv(rows: Iterator[Row], classes: Sequence[str], echo: Echo, place: Sequence[str]) -> None:
    """With a header, whose names are those of the served model's answers. A text's line ends are kept, in quotes.

    place: the names of what says where a face is.
    """
    echo(csv_line(["file", *place, "label", *(f"probability_{name}" for name in classes)]))
    for row in rows:
        echo(csv_line([row.name, *(row.face or ()), row.label, *map(_plain, row.probabilities)]))


def _plain(probability: np.float32) -> float:
    """Without the digits that float32 does not have."""
    return float(f"{probability:.8g}")
