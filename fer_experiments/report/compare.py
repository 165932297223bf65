"""`fer compare`: runs, sweeps, registered models and published systems in one table, and which of them differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import compress

from fer_experiments import terminal, tracking
from fer_experiments.config import Config
from fer_experiments.report import markup
from fer_experiments.report.entries import Entry, entries
from fer_experiments.report.page import MOMENT, document
from fer_experiments.report.pairs import Pair, pairs
from fer_experiments.report.report import log_where_allowed, note
from fer_experiments.terminal import Echo, csv_line, fit, say

COLUMNS = ("name", "classes", "accuracy", "low", "high", "split", "chosen", "seeds", "training_s", "hardware",
           "epochs", "parameters", "trainable", "mb", "ms", "source")  # fmt: skip
HEAD = ("row", "what", "classes", "accuracy", "95 % interval", "split", "chosen on it", "validation over seeds",
        "training", "hardware", "epochs", "parameters", "trained", "MB", "ms/image", "run or source")  # fmt: skip
PAIR_HEAD = ("rows", "difference on the same images", "one alone right", "McNemar p", "difference over seeds",
             "Welch p", "so")  # fmt: skip
READ = (
    "Intervals are 95 %. A difference is one where every test that can be made of two rows finds it (p < 0.05, Holm's "
    "over all pairs): McNemar's exact test on the same images, Welch's t test of validation accuracies over seeds. Of "
    "several fits a row's accuracy is the mean, and the images' test is of the one that was kept."
)


def compare(config: Config, names: Sequence[str], form: str = "table", echo: Echo = say) -> None:
    """Prints the table of what these words name, and logs it on the run of its first row that has one.

    Args:
        config: where runs and sweeps are recorded (paths, tracking); nothing else of it is looked at.
        names: see `entries`.
        form: table, markdown, html, or csv, which has the rows alone, their numbers as they are recorded.
        echo: takes the text.

    Raises:
        UserError: what `entries` raises.
    """
    rows = entries(config, names)
    found, without = pairs(rows)
    made = {
        "markdown": _text(rows, found, without, terminal.markdown),
        "csv": _csv(rows),
        "html": _html(rows, found, without),
    }
    echo(made[form] if form in made else _text(rows, found, without, terminal.table))
    first = next((row for row in rows if row.run and row.store), None)
    if first and first.run and first.store:
        log_where_allowed(first.store, first.run.run_id, partial(_log, made), partial(note, verb="compare"))


def _log(made: Mapping[str, str], run: tracking.Run) -> None:
    for form, text in made.items():
        run.log_text(text, f"comparison.{'md' if form == 'markdown' else form}")


def _text(
    rows: Sequence[Entry],
    found: Sequence[Pair],
    without: Sequence[int],
    table: Callable[[Sequence[Sequence[str]]], str],
) -> str:
    parts = [table(_cells(rows))]
    if found:
        parts += [table([PAIR_HEAD, *map(_pair_cells, found)]), READ]
    return "\n\n".join([*parts, *_remarks(without)])


def _csv(rows: Sequence[Entry]) -> str:
    lines = [csv_line(COLUMNS)]
    for row in rows:
        values = (getattr(row, column) for column in COLUMNS)
        lines.append(csv_line("" if v is None else v if isinstance(v, int | float) else str(v) for v in values))
    return "\n".join(lines)


def _html(rows: Sequence[Entry], found: Sequence[Pair], without: Sequence[int]) -> str:
    said = [markup.paragraph(line) for line in _remarks(without)]
    head, *cells = _cells(rows)
    parts = [markup.section("rows", "Rows", markup.table(head, cells), *said)]
    if found:
        parts.append(
            markup.section("pairs", "Differences", markup.table(PAIR_HEAD, map(_pair_cells, found)), hint=READ)
        )
    when = markup.paragraph(f"Made at {datetime.now(UTC):{MOMENT}}.")
    return document("Comparison", when, "".join(parts))


def _remarks(without: Sequence[int]) -> list[str]:
    if not without:
        return []
    rows = ", ".join(map(str, without))
    return [f"No paired test of row{'s'[: len(without) != 1]} {rows}: no predictions of single images are on record."]


def _cells(rows: Sequence[Entry]) -> list[list[str]]:
    """The head and a line a row, without columns of which nothing is known."""
    cells = [[str(place), *map(fit, _row(row))] for place, row in enumerate(rows, start=1)]
    told = [any(column) for column in zip(*cells, strict=True)]
    return [list(compress(line, told)) for line in (HEAD, *cells)]


def _row(row: Entry) -> list[str]:
    return [
        row.name,
        _shown(row.classes),
        _shown(row.accuracy, ".4f"),
        "" if row.low is None or row.high is None else f"{row.low:.4f} to {row.high:.4f}",
        row.split,
        row.chosen,
        str(row.seeds or ""),
        "" if row.training_s is None else _duration(row.training_s),
        row.hardware or "",
        _shown(row.epochs),
        _shown(row.parameters, ","),
        _shown(row.trainable, ","),
        _shown(row.mb, ".1f"),
        _shown(row.ms, ".1f"),
        row.source,
    ]


def _pair_cells(pair: Pair) -> list[str]:
    paired = pair.paired
    d = paired.difference if paired else None
    return [
        f"{pair.first} - {pair.second}",
        f"{d.value:+.4f} ({d.low:+.4f} to {d.high:+.4f})" if d else "",
        f"{paired.mcnemar.only_first}, {paired.mcnemar.only_second}" if paired else "",
        _shown(pair.paired_p, ".3g"),
        _shown(pair.seeds, "+.4f"),
        _shown(pair.seeds_p, ".3g"),
        pair.verdict,
    ]


def _shown(value: float | None, form: str = "") -> str:
    return "" if value is None else f"{value:{form}}"


def _duration(seconds: float) -> str:
    """As 2 h 29 min 45 s; without hours, and minutes, where there are none."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (left, "s")]
    begins = next((place for place, (count, _) in enumerate(parts) if count), 2)
    return " ".join(f"{count} {unit}" for count, unit in parts[begins:])
