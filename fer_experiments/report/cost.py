"""The end of the page: how trials ended that did not finish, and what the sweep cost."""

from __future__ import annotations

from collections import Counter, defaultdict

import plotly.graph_objects as go

from fer_experiments.config import ALL_FOLDS
from fer_experiments.evaluation.style import BLUE, ORANGE, PURPLE
from fer_experiments.report.figures import LEGEND, finish, ids
from fer_experiments.report.markup import facts, figure, paragraph, section, table
from fer_experiments.report.record import Record
from fer_experiments.search.budget import per_hour
from fer_experiments.search.trials import Trial
from fer_experiments.training.pruning import REASONS

NAMED = 12  # trials named beside a reason


def endings(record: Record) -> str:
    """Failures with their reasons; and trials that were pruned, repeated, out of time or killed."""
    reasons: dict[str, list[Trial]] = defaultdict(list)
    for trial in record.state.ended:
        if trial.failed or (trial.status == "repeated" and trial.score is None):
            reasons[trial.error or "no reason is recorded"].append(trial)
    rows = [(text, len(trials), _numbers(trials)) for text, trials in reasons.items()]
    rows.sort(key=lambda row: -row[1])
    parts = [table(("reason", "trials", "which"), rows)] if rows else [paragraph("No trial failed.")]
    ended = record.state.ended
    others = [
        ("pruned", REASONS.get(record.sweep.pruner, ""), [t for t in ended if t.status == "pruned"]),
        (
            "repeated",
            "the same config was tried before and not run again",
            [t for t in ended if t.status == "repeated"],
        ),
        (
            "out of time",
            "ended by sweep.max_trial_minutes, best epoch kept",
            [t for t in ended if t.out_of_time],
        ),
        ("in flight", "asked, and not ended yet", record.state.in_flight),
    ]
    lines: list[tuple[str, str, int, str]] = [(k, why, len(some), _numbers(some)) for k, why, some in others if some]
    lines += [("killed", why, count, "") for why, count in Counter(record.killed).most_common()]
    if lines:
        parts += ["<h3>Other endings</h3>", table(("", "why", "how many", "trials"), lines)]
    return section("failures", "Failures and their reasons", *parts)


def cost(record: Record) -> str:
    """Hours, images and trials in them, and the machine."""
    state = record.state
    ran = _ran(record)
    busy = sum(t.seconds or 0 for t in ran)
    lost = sum(t.seconds or 0 for t in ran if t.failed)
    fits = sum(t.fit_s or 0 for t in ran)
    known = [("hours, all processes that worked on it", f"{state.seconds / 3600:.2f}")] if state.seconds else []
    if state.seconds:
        known.append(("trials per hour", f"{per_hour(state) or 0:,.1f}"))
    of_them = f"{fits / 3600:.2f} of them in fits, {lost / 3600:.2f} in failed trials"
    known.append(("hours in trials", f"{busy / 3600:.2f}, {of_them}"))
    if state.seconds:
        known.append(("trials at once, on average", f"{busy / state.seconds:.2f}"))
    if ran:
        longest = max(ran, key=lambda t: t.seconds or 0)
        mean = busy / len(ran)
        known.append(
            ("seconds a trial", f"{mean:.1f} on average, at most {longest.seconds or 0:.1f} (trial {longest.number})")
        )
    known.append(("epochs", f"{sum(t.epochs or 0 for t in ran):,}"))
    known.append(("images per second in fits", _images_per_second(record, ran)))
    if record.hardware:
        machine = record.hardware
        gpus = ", ".join(str(gpu) for gpu in machine["gpus"]) or "no GPU"
        size = f"{machine.get('cores')} cores, {machine.get('memory_gb')} GB"
        known.append(("machine of the driver", f"{machine.get('host')}: {machine.get('cpu')}, {size}, {gpus}"))
    return section("cost", "What it cost", facts(known), *([figure("cost-chart", seconds(ran))] if ran else []))


def seconds(trials: list[Trial]) -> go.Figure:
    """Bars of each trial's seconds by what they were spent on; features were there before it."""
    rest = "the rest: scores, plots, the record"
    spent: list[tuple[str, str, list[float]]] = [
        ("fits", BLUE, [t.fit_s or 0 for t in trials]),
        (rest, ORANGE, [0 if t.failed else max(0, (t.seconds or 0) - (t.fit_s or 0)) for t in trials]),
        ("failed", PURPLE, [(t.seconds or 0) if t.failed else 0 for t in trials]),
    ]
    made = go.Figure()
    for name, colour, heights in spent:
        if any(heights):
            hover = f"trial %{{x}}, {name}: %{{y:.1f}} s<extra></extra>"
            numbers = [trial.number for trial in trials]
            bars = go.Bar(x=numbers, y=heights, ids=ids(trials), name=name, hovertemplate=hover)
            made.add_trace(bars.update(marker={"color": colour}))
    made.update_xaxes(title="trial")
    made.update_yaxes(title="seconds")
    return finish(made, 360, barmode="stack", bargap=0.1, showlegend=True, legend=LEGEND)


def _ran(record: Record) -> list[Trial]:
    return [trial for trial in record.state.ended if trial.status != "repeated"]


def _images_per_second(record: Record, ran: list[Trial]) -> str:
    """Training images in all epochs of the fits by the seconds they took, validation and waiting included."""
    timed = [t for t in ran if t.fit_s and t.epochs]
    if record.counts is None or not timed:
        return "not recorded"
    train = record.counts[record.counts["split"] == "train"].drop(columns="split").to_numpy().sum()
    if record.state.identity.get("data.fold") == ALL_FOLDS:  # a fit leaves its fold out
        train -= train // record.state.identity["data.folds"]
    images = float(train) * sum(t.epochs or 0 for t in timed)
    return f"{images / sum(t.fit_s or 0 for t in timed):,.0f} (stored features; {train:,} training images an epoch)"


def _numbers(trials: list[Trial]) -> str:
    named = ", ".join(str(trial.number) for trial in trials[:NAMED])
    return named + (f" and {len(trials) - NAMED} more" if len(trials) > NAMED else "")
