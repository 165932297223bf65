"""What a terminal shows: paths, tables, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2212"


def shown(path: Path) -> str:
    """A path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many cells as aligned columns, the first row being their names."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def size(count: float) -> str:
    """A number of bytes in the unit that fits it."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} bytes"
