"""Pages of several sweeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from parsed_page import Read
from test_report_page import EVIL, made_up, trial

from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.report.record import Record
from fer_experiments.report.report import write_report
from fer_experiments.report.versus import bests_over, side_by_side
from fer_experiments.search.state import State, digest_of


def sweep(name: str, trials: list[dict[str, Any]], **identity: Any) -> Record:
    times = {t["number"]: (t["number"] / 10, (9 - t["number"]) / 10) for t in trials}  # the last asked ends first
    record = made_up(trials, times=times)
    state = replace(record.state, id=name, identity={**record.state.identity, **identity})
    return replace(record, state=state, sweep=state.settings)


def test_the_best_so_far_of_each_is_drawn_over_trials_and_over_time():
    one, other = sweep("one", [trial(n) for n in range(4)]), sweep("other", [trial(0, "failed"), trial(1)])
    figure = bests_over([one, other, sweep("none", [])])
    by_trial, by_time = (button.args[0]["visible"] for button in figure.layout.updatemenus[0].buttons)
    assert [trace.visible for trace in figure.data] == by_trial == [not shown for shown in by_time]
    scores = [t.score for t in one.state.trials]
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert [(line.name, line.visible) for line in lines] == [
        ("one", True),
        ("other", True),
        ("one", False),
        ("other", False),
    ]
    assert list(lines[0].x) == [0, 1, 2, 3] and list(lines[0].y) == [max(scores[: n + 1]) for n in range(4)]
    assert list(lines[2].x) == pytest.approx([0.6, 0.7, 0.8, 0.9])
    assert list(lines[2].y) == [max(scores[n:]) for n in (3, 2, 1, 0)]


def test_what_they_differ_in_and_the_best_of_each_are_told():
    space = {**made_up([]).sweep.space, "head.l2": {"type": "float", "min": 1e-3, "max": 1e-1, "sampling": "log"}}
    one = sweep("one", [trial(n) for n in range(7)], **{"fer.dataset": "a" * 64})
    other = sweep("other", [trial(0)], **{"fer.dataset": "b" * 64, "head.name": EVIL, "sweep.space": space})
    text = side_by_side([one, other])
    read = Read(text)
    head, *rows = read.tables["differences 1"]
    assert head == ["", "one", "other"] and [row[0] for row in rows] == [
        "fer.dataset",
        "head.name",
        "sweep.space: head.l2",
    ]
    assert rows[0][1:] == ["a" * 16, "b" * 16] and rows[1][1:] == ["pooled", EVIL] and "0.001" in rows[2][2]
    assert "scores on other images cannot be compared" in read.sections["sweeps"]
    best = one.state.best()
    assert best is not None and read.tables["sweeps 0"][1][5:7] == [f"{best.score:.4f}", str(best.number)]
    assert [row[:2] for row in read.tables["trials-of-each 2"][1:]] == [
        *(["one", str(n)] for n in range(1, 6)),
        ["other", "1"],
    ]
    assert not [tag for tag, a in read.tags if tag in ("img", "link") or "src" in a]


def test_sweeps_without_a_trial_have_a_page_too():
    read = Read(side_by_side([sweep("one", []), sweep("other", [])]))
    assert "No trial has finished yet" in read.sections["bests"] and "cannot be compared" not in read.sections["sweeps"]


def test_the_hours_of_a_short_sweep_are_not_none():
    short = sweep("one", [trial(0)])
    short = replace(short, state=replace(short.state, seconds=13.0))
    assert Read(side_by_side([short, sweep("other", [])])).tables["sweeps 0"][1][4] == "0.00361"


def test_sweeps_that_cannot_go_side_by_side_are_named(tmp_path: Path):
    config = compose([f"paths.mlruns={tmp_path}"])
    for objective in ("final/val_accuracy", "final/val_loss"):
        identity = {"sweep.objective": objective}
        State(f"some-{digest_of(identity)}", "some", identity).save(tmp_path / "sweeps" / f"some-{digest_of(identity)}")
    one, other = sorted(folder.name for folder in (tmp_path / "sweeps").iterdir())
    with pytest.raises(
        UserError, match=rf"sweep={one},{other}: {one} has final/val_\w+ and {other} final/val_\w+; name"
    ):
        write_report(config, f"{one},{other}")
    with pytest.raises(UserError, match=f"twice the sweep {one}"):
        write_report(config, f"{one},{one}")
    with pytest.raises(UserError, match="sweep=: no such sweep"):
        write_report(config, f"{one},")
