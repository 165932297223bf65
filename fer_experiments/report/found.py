"""The middle of the page: the best config, the leaderboard, the charts, and scores over seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import plotly.graph_objects as go

from fer_experiments.config import experiment, to_yaml
from fer_experiments.config.commands import train_command
from fer_experiments.errors import UserError
from fer_experiments.report import figures, results
from fer_experiments.report.contours import contours
from fer_experiments.report.markup import figure, folded, paragraph, section, table, to_copy
from fer_experiments.report.record import Record
from fer_experiments.report.selection import selection
from fer_experiments.search import leaderboard
from fer_experiments.search.importance import FEWEST_TRIALS, how_sure, importances
from fer_experiments.search.leaderboard import written
from fer_experiments.search.spread import taken


def best(record: Record) -> str:
    """The best config as a command, and how much its lead is worth."""
    top = taken(record.state)
    if top is None:
        return section("best", "Best config", paragraph("No trial has finished yet."))
    spread = leaderboard.spread_of(top)
    said = f"Trial {top.number}, {record.sweep.objective} {top.score:.4f}{spread}, run {top.run_id}."
    for line in leaderboard.choice(record.state):
        said += f" {line[0].upper()}{line[1:]}."
    low = top.metrics.get(f"{record.sweep.objective}_low")
    if low is not None:
        near = sum(t.finished and t.score is not None and t.score >= low for t in record.state.trials) - 1
        said += f" Within its 95 % interval: {near:,} other finished trial{'s'[: near != 1]}."
        said += " The best of many is flattered by being chosen; the sealed test split tells."
    if top.grant.initial_epoch:
        said += " Hyperband went on from an earlier trial's weights in it; trained again, it starts afresh."
    values = table(("hyperparameter", "value"), [(path, written(value)) for path, value in top.values.items()])
    return section("best", "Best config", paragraph(said), values, *_again(record))


def _again(record: Record) -> list[str]:
    """How to train the best again."""
    if record.best_config is None:
        return [paragraph("Its config.yaml is not on its run.")]
    yaml = folded("The whole config as YAML", to_copy("yaml", to_yaml(experiment(record.best_config))))
    try:
        return [paragraph("Train it again:"), to_copy("command", train_command(record.best_config)), yaml]
    except UserError as error:
        return [paragraph(f"This version of the program cannot train it again: {error}"), yaml]


def board(record: Record) -> str:
    """All trials, the best first."""
    frame = leaderboard.table(record.state, record.sweep)
    if frame.empty:
        return section("leaderboard", "Leaderboard", paragraph("No trial has ended yet."))
    rows = frame.astype(object).where(frame.notna(), None).itertuples(index=False)
    shown = table([str(column) for column in frame], rows, name="trials", sortable=True)
    hint = "A click on a header sorts. Selecting trials in the parallel coordinates below selects rows and points."
    if "tied" in frame:
        hint += " Tied: whether a trial differs from the best by no more than the standard error of that difference."
    return section("leaderboard", "Leaderboard", shown, hint=hint)


class Chart(NamedTuple):
    """A figure with its heading, a hint and what is below it.

    draw returns None when there is nothing to show, and `instead` is said.
    """

    name: str
    title: str
    draw: Callable[[Record], go.Figure | None]
    instead: str
    hint: str = ""
    below: Callable[[Record], str] | None = None


BARS = "Bars: the standard deviation over the fits of a trial, where it has several."
OVERVIEW = (
    Chart("objective", "Objective over time", figures.objective, "No trial has ended yet.", BARS),
    Chart(
        "coordinates",
        "Parallel coordinates",
        figures.parallel_coordinates,
        "No trial has a score yet.",
        "Drag along an axis to select lines, click on it to release them; drag an axis by its name to move it. "
        "The form below selects without the mouse. Failed and repeated trials are left out.",
        selection,
    ),
)
DETAILS = (
    Chart(
        "slices",
        "The objective over each hyperparameter",
        figures.slices,
        "No trial has a score yet.",
        f"Axes span what the space allows. {BARS}",
    ),
    Chart(
        "curves",
        "Learning curves of the best trials",
        results.learning_curves,
        "No learning curves are recorded yet.",
        "Validation solid, training dotted; losses include the L2 penalty. A click in the legend hides a trial.",
    ),
    Chart(
        "confusion",
        "Confusion matrices of the best trials",
        results.confusion_matrices,
        "No confusion matrices are recorded yet.",
        "Of each true class, the share predicted as each class, and the number of validation images. "
        "Below: the difference from the best trial in percentage points.",
    ),
)


def chart(record: Record, made: Chart) -> str:
    """A chart with its heading, or what is said in its place."""
    drawn = made.draw(record)
    if drawn is None:
        return section(made.name, made.title, paragraph(made.instead))
    below = made.below(record) if made.below else ""
    return section(made.name, made.title, figure(f"{made.name}-chart", drawn), below, hint=made.hint)


def mattered(record: Record) -> str:
    """The importances of the hyperparameters and how sure they are; and the objective over the first two."""
    trials = figures.scored(record)
    found = importances(trials, record.sweep.space, record.sweep.direction)
    shares = [paragraph(f"It takes {FEWEST_TRIALS} trials with a score.")]
    if not found.empty:
        shares = [paragraph(how_sure(found, len(trials))), figure("importances-chart", figures.importances(found))]
    two = found["name"][:2].tolist()
    drawn = contours(record, two) if len(two) == 2 else None
    instead = "It takes the importances of two hyperparameters, and a trial that has both."
    over = paragraph(instead) if drawn is None else figure("contours-chart", drawn)
    hints = (
        "PED-ANOVA: how far the values of the best quarter of the trials (five at least) are from those of all. "
        "The mark is where chance ends: what 95 % of shuffled scores stay below.",
        "The objective, smoothed over the trials nearby; each trial is a point in its own colour.",
    )
    return section("importances", "Which hyperparameters mattered", *shares, hint=hints[0]) + section(
        "contours", "The two that mattered most", over, hint=hints[1]
    )


def seeds(record: Record) -> str:
    """Mean and standard deviation over seeds."""
    if record.seeds.empty:
        how = "No config was fitted again with another seed"
        how += "." if record.best_config is None else "; the command above with training.seed=1, 2, … adds them."
        if any(trial.scores for trial in record.state.ended):
            how = "Each trial has several fits, whose standard deviation the leaderboard has."
        return section("seeds", "Over seeds", paragraph(how))
    ordered = record.seeds.sort_values("mean", ascending=record.sweep.direction == "min")
    rows = [
        (int(trial), int(runs), f"{mean:.4f} ± {std:.4f}", low, high)
        for trial, runs, mean, std, low, high in ordered.itertuples(index=False)
    ]
    head = ("config of trial", "seeds", f"{record.sweep.objective}, mean ± std", "lowest", "highest")
    hint = "Runs of one config on the same data and features that differ in their seed alone."
    return section("seeds", "Over seeds", table(head, rows, name="over-seeds"), hint=hint)
