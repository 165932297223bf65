"""Faces in a table: the competition's fer2013.csv and icml_face_data.csv, and what has become of them since."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from math import isqrt
from typing import IO

import numpy as np

from fer_experiments.data.faces import USAGES, Faces
from fer_experiments.data.names import KNOWN, SPLITS, Naming, fold
from fer_experiments.errors import UserError

TITLES = {"emotion": "emotion", "label": "emotion", "pixels": "pixels", "usage": "usage", "split": "usage"}
FERPLUS = {"neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"}  # one column each
EXPECTED = "expected fer2013.csv (emotion,pixels,Usage), a folder of class folders, a .zip or a .tar.gz"
WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # begin a table in UTF-16
DELIMITERS = ",;\t"
TABLE = 1 << 30  # bytes; FER2013's has 301 MB
LINES = 1 << 20
ROW = 1 << 24  # characters: pixels of 2,000x2,000; a quote that is never closed is not read to the end
CELL = 32767  # characters, where spreadsheets cut a cell
PIXEL = {f"{value}{point}": value for value in range(256) for point in ("", ".0")}

Rows = Iterator[tuple[int, list[str]]]  # the number of the line from 1, the fields
SMALLEST = 8  # pixels of a side: a shorter row is cut off, and no face


def has_faces(head: bytes) -> bool:
    """Tell by a file's first bytes whether it is a table of emotions and pixels."""
    try:
        first = io.BytesIO(head.splitlines()[0] if head else b"")
        columns = _columns(next(_rows("", first, "replace"), (1, []))[1])
    except UserError:
        return False
    return {"emotion", "pixels"} <= set(columns)


def read_table(name: str, opened: Callable[[], AbstractContextManager[IO[bytes]]], naming: Naming) -> Faces:
    """Read the labelled faces of a CSV file, which is opened twice, in its order; ids are its rows.

    Columns emotion (or label), pixels (values 0..255 of a square, as many in every row) and, if there is one, Usage.
    Commas, semicolons or tabs between them, in UTF-8 or UTF-16. Raises UserError naming file and row.
    """
    with opened() as stream:
        _check_whole(name, stream)
    with _large_fields(), opened() as stream:
        rows = _rows(name, stream)
        header = next(rows, (1, [""]))[1]
        columns = _columns(header)
        if missing := {"emotion", "pixels"} - set(columns):
            raise UserError(_no_column(name, header, sorted(missing)))
        titles = Counter(map(fold, header))
        if twice := [title for title in TITLES if titles[title] > 1]:
            raise UserError(f"{name}: line 1 names {titles[twice[0]]} columns {twice[0]}; remove or rename all but one")
        pixels = bytearray()
        lengths: list[tuple[int, int]] = []
        emotions: dict[int, str] = {}
        usages = []
        for line, row in rows:
            where = f"{name}: row {line}"
            if len(row) != len(header):
                raise UserError(f"{where}: {_wrong_fields(row, header, rows)}")
            text = row[columns["pixels"]]
            emotions[line] = _label(row[columns["emotion"]])
            usages.append(_usage(where, row[columns["usage"]]) if "usage" in columns else "")
            pixels += (values := _pixels(where, text))
            lengths.append((len(values), len(text)))
    if not emotions:
        raise UserError(f"{name}: no rows under the header; fetch it again")
    side = _side(name, list(emotions), lengths)
    _check_labels(name, emotions, naming)
    named, renamed = naming.apply(emotions.values(), lambda said: UserError(f"{name}: {naming.unknown(said)}"))
    ids = np.array([f"row-{line:06d}" for line in emotions])
    images = np.frombuffer(pixels, np.uint8).reshape(-1, side, side)
    return Faces(images, np.array(named), np.array(usages), ids, renamed)


@contextmanager
def _large_fields() -> Iterator[None]:
    before = csv.field_size_limit(ROW)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_whole(name: str, stream: IO[bytes]) -> None:
    """Read to the end what is no larger than a table, so that damage is said before what it has made of a row."""
    size, lines, wide = 0, 1, None
    while piece := stream.read(1 << 20):
        wide = piece.startswith(WIDE) if wide is None else wide
        size += len(piece)
        if size > TABLE:
            raise UserError(f"{name}: larger than {TABLE >> 30} GB; give a smaller file")
        if not wide and (at := piece.find(b"\0")) >= 0:
            row = lines + piece.count(b"\n", 0, at)
            raise UserError(
                f"{name}: row {row}: a NUL byte, which no CSV has: the rest was never written (a full disk, a download "
                "that broke off), or it is a file of another kind; fetch it again"
            )
        lines += piece.count(b"\n")
        if lines > LINES:
            raise UserError(f"{name}: more than {LINES:,} lines; give a smaller file")


def _rows(name: str, stream: IO[bytes], errors: str = "strict") -> Rows:
    """Yield the rows; a byte order mark, Windows line ends and blank lines are no fault."""
    number = held = 0
    mark = stream.read(len(codecs.BOM_UTF8))
    stream.seek(len(mark) if mark == codecs.BOM_UTF8 else 0)
    text = io.TextIOWrapper(stream, "utf-16", "replace", newline="") if mark.startswith(WIDE) else stream

    def lines() -> Iterator[str]:
        nonlocal held
        while line := text.readline(ROW + 1):
            held += len(line)
            if held > ROW:
                raise csv.Error(f"{ROW >> 20} MB and no end of it")
            yield line if isinstance(line, str) else line.decode(errors=errors)

    try:
        rest = lines()
        first = next(rest, "")
        reader = csv.reader(chain([first], rest), delimiter=max(DELIMITERS, key=first.count))
        for fields in reader:
            number = reader.line_num
            held = 0
            if fields:
                yield number, fields
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(
            f"{name}: row {number + 1}: not CSV text ({error}); give fer2013.csv, a .zip or a .tar.gz"
        ) from error


def _columns(header: list[str]) -> dict[str, int]:
    """Return where emotion, pixels and usage are, by their own title before another one."""
    titles = {fold(title): index for index, title in enumerate(header)}
    others = {TITLES[title]: index for title, index in titles.items() if title in TITLES}
    return others | {title: index for title, index in titles.items() if title in TITLES.values()}


def _no_column(name: str, header: list[str], missing: list[str]) -> str:
    titles = {fold(title) for title in header}
    if len(FERPLUS & titles) > 4:
        return f"{name}: labels without pixels, as FER+ gives them for the rows of fer2013.csv; give fer2013.csv itself"
    shown = ", ".join(title.strip()[:20] for title in header[:8]) + (", ..." if len(header) > 8 else "")
    return f"{name}: line 1 names no column {' or '.join(missing)} but {shown!r}; {EXPECTED}"


def _wrong_fields(row: list[str], header: list[str], rest: Rows) -> str:
    is_last = len(row) < len(header) and next(rest, None) is None
    remedy = "is the file cut off?" if is_last else "mend or remove the row"
    return f"{len(row)} fields where the header has {len(header)}; {remedy}"


def _label(text: str) -> str:
    """Return what a label says: pandas writes 3 as 3.0 where one is missing."""
    said = text.strip()
    return said.partition(".")[0] if re.fullmatch(r"[0-9]+\.0+", said) else said


def _check_labels(name: str, emotions: dict[int, str], naming: Naming) -> None:
    """Refuse the first row whose label has no meaning: in a table of FER2013 each is one of its own, or known."""
    for said in dict.fromkeys(emotions.values()):
        emotion = naming.name(said)
        strange = naming.source == "fer2013" and emotion not in KNOWN and not naming.is_given(said)
        if strange or not said:
            row = next(line for line, given in emotions.items() if given == said)
            raise UserError(f"{name}: row {row}: {naming.unknown(said)}")


def _usage(where: str, text: str) -> str:
    said = fold(text)
    if said not in SPLITS:
        cut = " (is the file cut off?)" if any(word.startswith(said) for word in SPLITS) else ""
        raise UserError(f"{where}: unknown Usage {text[:20]!r}; known are {', '.join(USAGES)}{cut}")
    return SPLITS[said]


def _pixels(where: str, text: str) -> bytes:
    if (plain := _plain(text)) is not None:
        return plain
    try:
        return bytes(map(PIXEL.__getitem__, text.split()))
    except KeyError:
        bare = re.sub(r"(?<!\S)0+(?=[0-9])", "", re.sub(r"[\[\],;]", " ", text))
        return _odd_pixels(where, bare.split())


def _plain(text: str) -> bytes | None:
    """Whole numbers up to 255, a space between them, as FER2013 has them: in a third of the time. None of all else."""
    codes = np.frombuffer(f" {text} ".encode("ascii", "replace"), np.uint8)
    digits, spaces = codes - np.uint8(ord("0")), np.flatnonzero(codes == ord(" "))
    ends, length = spaces[1:], np.diff(spaces) - 1
    if not 1 <= length.min() <= length.max() <= 3 or np.count_nonzero(digits < 10) + len(spaces) < len(codes):
        return None
    tens, hundreds = digits[ends - 2] * (length > 1), digits[ends - 3] * (length > 2)
    values = digits[ends - 1] + np.uint16(10) * tens + np.uint16(100) * hundreds
    if values.max() > 255 or (1 + (values > 9) + (values > 99) != length).any():  # leading zeros
        return None
    return values.astype(np.uint8).tobytes()


def _odd_pixels(where: str, texts: list[str]) -> bytes:
    """Those that other signs than spaces part, or that had leading zeros."""
    if strange := next((text for text in texts if text not in PIXEL), None):
        raise UserError(f"{where}: pixel {strange[:20]!r} is no whole number from 0 to 255; mend the row")
    return bytes(map(PIXEL.__getitem__, texts))


def _side(name: str, lines: list[int], lengths: list[tuple[int, int]]) -> int:
    """Return the side of the square that most rows hold. Raises UserError naming the first row that does not."""
    counts = Counter(count for count, _ in lengths)
    usual = counts.most_common(1)[0][0]
    side = isqrt(usual)
    square = side * side == usual and side >= SMALLEST
    odd = [row for row, (count, _) in enumerate(lengths) if count != usual or not square]
    if not odd:
        return side
    count, characters = lengths[odd[0]]
    where, many = f"{name}: row {lines[odd[0]]}", f" (so are {len(odd) - 1} other rows)" if len(odd) > 1 else ""
    expected = f"{side}x{side} = {usual}" if square else f"a square of {SMALLEST}x{SMALLEST} or more"
    if characters in (CELL, CELL - 1):
        remedy = f"a spreadsheet has cut the field at {CELL:,} characters; fetch the file again"
    else:
        remedy = "is the file cut off?" if odd == [len(lines) - 1] else "mend or remove what is cut"
    raise UserError(f"{where}: {count} pixels, not {expected}; {remedy}{many}")
