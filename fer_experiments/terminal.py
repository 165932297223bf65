"""What people read: lines, paths, tables, numbers, sizes. Whatever it says, it moves no cursor and forges no line."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from unicodedata import category

FORMULA = re.compile(r"\s*[=+@-]\s*\S|\s*[＝＋－＠]")
DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2212"
Echo = Callable[[str], None]  # takes what a command says, line by line


def fit(text: str) -> str:
    """A text of anyone's, such as a file's name, on one line: what a terminal would act on is shown as its code."""
    return "".join(c if c.isprintable() or category(c) == "Zs" else c.encode("unicode_escape").decode() for c in text)


def say(text: str, stream: TextIO | None = None) -> None:
    """Prints lines, each made `fit`; names in them that may hold a line's end have been made so before."""
    print("\n".join(map(fit, text.split("\n"))), file=stream or sys.stdout, flush=stream is not None)


@contextmanager
def in_place() -> Iterator[Echo | None]:
    """What takes lines and shows them in the place of those before, until the block ends; None without a terminal."""
    if not sys.stdout.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(), auto_refresh=False, transient=True) as live:

        def show(text: str) -> None:
            lines = "\n".join(map(fit, text.split("\n")))
            live.update(Text(lines, no_wrap=True, overflow="ellipsis"), refresh=True)

        yield show


def shown(path: Path) -> str:
    """A path as one would type it here."""
    return fit(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def table(rows: Sequence[Sequence[str]], right: int | None = None) -> str:
    """Rows of as many cells in aligned columns, names first; those from column `right` on are aligned to the right."""
    return "\n".join("  ".join(row).rstrip() for row in _aligned(rows, right))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The same in Markdown."""
    rows = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    head, *body = list(_aligned(rows))
    ruler = "|".join("-" * (len(cell) + 2) for cell in head)
    return "\n".join([_row(head), f"|{ruler}|", *map(_row, body)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _aligned(rows: Sequence[Sequence[str]], right: int | None = None) -> Iterator[list[str]]:
    rows = [[fit(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = enumerate(zip(row, widths, strict=True))
        yield [cell.ljust(w) if right is None or i < right else cell.rjust(w) for i, (cell, w) in cells]


def csv_line(cells: Iterable[str | float]) -> str:
    """A line of CSV without its end. Texts are made `fit` but for their line ends, which stand in quotes, and none is
    one that a spreadsheet takes for a formula."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(_cell(c) if isinstance(c, str) else c for c in cells)
    return text.getvalue().removesuffix("\r\n")


def _cell(text: str) -> str:
    shown = "\n".join(map(fit, text.split("\n")))
    return f"'{shown}" if FORMULA.match(text) else shown


def number(value: float, group: str = "") -> str:
    """A number to be read, four digits after the point or, of a small or large one, four that count.

    group: "," between the thousands of what is whole.
    """
    if isinstance(value, int) or (value.is_integer() and 1000 <= abs(value) < 1e15):
        return f"{value:{group}.0f}"
    return f"{value:.4g}" if abs(value) < 0.01 or abs(value) >= 1000 else f"{value:.4f}"


def counted(number: int, noun: str) -> str:
    """The number with its noun: 1 trial, 1,200 trials."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(count: float) -> str:
    """A number of bytes in the unit that fits it."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} bytes"
