"""The start of the page: what was searched, and on what data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fer_experiments.data.describe import REASONS
from fer_experiments.report.markup import facts, folded, paragraph, section, table
from fer_experiments.report.record import Record
from fer_experiments.search.leaderboard import written
from fer_experiments.search.space import GROUPS
from fer_experiments.search.start import words

KNOWN = {
    "oracle": "sweep.oracle",
    "pruner": "sweep.pruner",
    "seed": "sweep.seed",
    "run first": "sweep.enqueue",
    "told before": "sweep.warm_start",
    "backbone": "backbone.name",
    "cut layers": "backbone.layers",
    "views": "features.views",
    "head": "head.name",
    "epochs": "training.epochs",
}


def searched(record: Record) -> str:
    """The space, and what was the same in all trials."""
    space = record.sweep.space
    varied = (*(f"{path}." for path in space if path in GROUPS), "sweep.space")
    fixed = {k: v for k, v in record.state.identity.items() if k not in space and not k.startswith(varied)}
    rows = [
        (path, entry["type"], _range(entry), entry.get("sampling") or ("linear" if "min" in entry else ""))
        for path, entry in space.items()
    ]
    return section(
        "searched",
        "What was searched",
        table(("hyperparameter", "type", "values", "sampling"), rows),
        paragraph(f"{began[0].upper()}{began[1:]}.") if (began := words(record.state)) else "",
        "<h3>The same in all trials</h3>",
        facts((text, written(fixed[path])) for text, path in KNOWN.items() if path in fixed),
        folded("All of it", table(("config path", "value"), [(k, written(v)) for k, v in fixed.items()])),
    )


def _range(entry: Mapping[str, Any]) -> str:
    when = " and ".join(f"{key} is {written(value)}" for key, value in entry.get("when", {}).items())
    where = f" (when {when})" if when else ""
    if "min" not in entry:
        return ", ".join(written(value) for value in entry.get("values", [False, True])) + where
    step = "" if entry.get("step") is None else f", step {entry['step']}"
    return f"{entry['min']} to {entry['max']}{step}{where}"


def data(record: Record) -> str:
    """The images in each split and class, and what cleaning removed."""
    identity = record.state.identity
    about = {name: written(identity.get(f"data.{name}")) for name in ("task", "source", "split", "balance", "limit")}
    about["fingerprint"] = str(identity.get("fer.dataset"))[:16]
    parts = [facts(about.items())]
    if record.counts is None:
        parts.append(paragraph("The counts are not on the sweep's run."))
    else:
        rows = [(*row, sum(row[1:])) for row in record.counts.itertuples(index=False)]
        parts.append(table((*map(str, record.counts.columns), "total"), rows))
    if record.cleaning:
        parts.append(_cleaning(record.cleaning))
    return section("data", "On what data", *parts)


def _cleaning(report: Mapping[str, Any]) -> str:
    usages = list(report["found_by_usage"])
    lines: list[tuple[str, dict[str, int], int]] = [("found", report["found_by_usage"], report["found"])]
    lines += [(f"− {REASONS.get(step, step)}", by, sum(by.values())) for step, by in report["removed"].items()]
    lines.append(("kept", report["kept_by_usage"], report["kept"]))
    rows: list[tuple[Any, ...]] = [(text, *(by.get(usage, 0) for usage in usages), total) for text, by, total in lines]
    if "in_classes" in report:
        rows.append(("of these in the classes", *(None for _ in usages), report["in_classes"]))
    steps = ", ".join(report["steps"]) or "none"
    return f"<h3>What cleaning removed</h3>{paragraph(f'Steps: {steps}.')}{table(('images', *usages, 'total'), rows)}"
