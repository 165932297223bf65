"""Pages of states that a small sweep does not come to; read by a parser."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from parsed_page import Read
from plotly.offline import get_plotlyjs

from fer_experiments.config import SweepConfig, flatten
from fer_experiments.report import figures
from fer_experiments.report.cost import seconds
from fer_experiments.report.page import PARTS, page
from fer_experiments.report.record import Record
from fer_experiments.report.scales import MISSING, scale_of
from fer_experiments.search.state import State
from fer_experiments.search.trials import read_trial

EVIL = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>\'&%{x}'
SPACE = {
    "head.l2": {"type": "float", "min": 1e-6, "max": 1e-1, "sampling": "log"},
    "head.dropout": {"type": "float", "min": 0.0, "max": 0.6},
    "head.dense_widths": {"type": "choice", "values": [[], [32], [128, 64]]},
    "head.normalize": {"type": "bool"},
    "training.optimizer": {"type": "choice", "values": ["adam", "sgd", EVIL]},
}
FOUND = {"Training": 28709, "PublicTest": 3589, "PrivateTest": 3589}
CLEANING = {
    **{"steps": ["conflicting"], "found_by_usage": FOUND, "found": 35887},
    **{"removed": {"conflicting": {"Training": 100}}, "kept_by_usage": FOUND, "kept": 35787},
}


def made_up(
    trials: list[dict[str, Any]],
    *,
    oracle: str = "random",
    status: str = "finished",
    space: dict[str, Any] | None = None,
    **more: Any,
) -> Record:
    """A sweep with these trials, over SPACE where none is given."""
    sweep = SweepConfig(name="made-up", oracle=oracle, space=space or SPACE)
    identity = {**flatten({"sweep": to_dict_of(sweep)}), "data.task": "demo", "head.name": "pooled"}
    order = [n for t in trials for n in [t["number"]] * (1 if t["status"] == "asked" else 2)]
    state = State("made-up-01234567", "made-up", identity, run_id="a" * 32, order=order, seconds=3600.0)
    state.trials = [read_trial(t) for t in trials]
    state.updated = "2026-01-02T03:04:05+00:00"
    nothing: dict[str, Any] = {"counts": None, "cleaning": None, "hardware": None, "best_config": None}
    empty: dict[str, Any] = {"times": {}, "curves": {}, "matrices": {}, "seeds": pd.DataFrame(), "killed": []}
    return Record(state=state, sweep=sweep, run_id="a" * 32, status=status, **{**nothing, **empty, **more})


def to_dict_of(sweep: SweepConfig) -> dict[str, Any]:
    return {key: value for key, value in vars(sweep).items() if key not in ("max_trials", "max_hours", "target")}


def trial(number: int, status: str = "finished", **more: Any) -> dict[str, Any]:
    values = {
        "head.l2": 10 ** -(1 + number % 50 / 10),
        "head.dropout": number % 7 / 10,
        "head.dense_widths": [[], [32], [128, 64]][number % 3],
        "head.normalize": number % 2 == 0,
        "training.optimizer": ["adam", "sgd", EVIL][number % 3],
    }
    own = {"number": number, "trial_id": f"{number:04}", "values": values, "raw": values, "status": status}
    if status == "asked":
        return {**own, "score": None}
    if status == "failed":
        return {**own, "score": None, "seconds": 1.0, "error": f"ValueError: {EVIL}", **more}
    score = 0.5 + (number * 37 % 100) / 250
    metrics = {
        "final/val_accuracy": score,
        "final/val_accuracy_low": score - 0.05,
        "final/val_accuracy_high": score + 0.05,
    }
    ended = {"score": score, "metrics": metrics, "epochs": 5, "best_epoch": 3, "seconds": 2.0, "fit_s": 1.0}
    return {**own, **ended, "run_id": f"{number:032}", **more}


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([], {"leaderboard": "No trial has ended yet", "objective": "No trial has ended yet"}),
        ([trial(0, "failed")], {"best": "No trial has finished", "slices": "No trial has a score", "failures": EVIL}),
        ([trial(0, "pruned"), trial(1, "failed")], {"best": "No trial has finished", "failures": "pruned"}),
        ([trial(0, raw={"tuner/initial_epoch": 2})], {"best": "Hyperband went on from an earlier trial's weights"}),
        ([trial(0), trial(1, "repeated", of=0)], {"importances": "It takes 10 trials", "failures": "repeated"}),
        ([trial(n, ["finished", "failed", "pruned", "asked"][n % 4]) for n in range(12)], {"failures": "in flight"}),
    ],
)
def test_sweeps_with_little_in_them_have_a_page(trials: list[dict[str, Any]], expected: dict[str, str]):
    read = Read(page(made_up(trials, oracle="hyperband", status="stopped")))
    assert [a["id"] for tag, a in read.tags if tag == "section"] == list(PARTS)
    for part, text in expected.items():
        assert text in read.sections[part], part
    assert any(tag == "form" for tag, _ in read.tags) == any(t["score"] is not None for t in trials)


def hostile() -> Record:
    trials = [trial(n, "failed" if n == 4 else "finished") for n in range(12)]
    history = pd.DataFrame({"epoch": [0, 1], "val/accuracy": [0.4, 0.5], "val/loss": [1.0, 0.9]})
    return made_up(
        trials,
        counts=pd.DataFrame({"split": ["train"], EVIL: [5]}),
        cleaning=CLEANING,
        curves={0: history, 1: history},
        matrices={n: ([EVIL, "happy"], [[3, 1], [0, n]]) for n in range(3)},
        times={n: (n / 10, n / 10 + 0.05) for n in range(12)},
        killed=[EVIL],
    )


def test_texts_of_users_are_never_markup():
    text = page(hostile())
    read = Read(text)
    assert not [tag for tag, a in read.tags if tag == "img" or any(key.startswith("on") for key in a)]
    assert all(EVIL in read.sections[part] for part in ("searched", "data", "failures"))
    own = text.replace(get_plotlyjs(), "")
    assert "<img" not in own and "<script>window" not in own
    assert own.count("</script>") == own.count("<script") == sum(tag == "script" for tag, _ in read.tags)


def test_a_thousand_trials_stay_below_ten_megabytes():
    trials = [trial(n, "failed" if n % 10 == 9 else "pruned" if n % 10 == 8 else "finished") for n in range(1000)]
    text = page(made_up(trials, times={n: (n / 100, n / 100 + 0.01) for n in range(1000)}))
    assert len(text) - len(get_plotlyjs()) < 3e6
    assert len(Read(text).tables["trials"]) == 1001


def test_every_axis_has_its_sliders_or_a_box_for_each_value():
    read = Read(page(made_up([trial(0), trial(1)])))
    assert [a["name"] for tag, a in read.tags if tag == "fieldset"] == [*SPACE, "final/val_accuracy"]
    inputs = [a for tag, a in read.tags if tag == "input"]
    sliders = [(a["aria-label"], float(a["min"] or ""), float(a["max"] or "")) for a in inputs if a["type"] == "range"]
    assert sliders[:2] == [(f"head.l2 (log) {end}", 0, 100) for end in ("from", "to")] and len(sliders) == 6
    assert not any("step" in a for a in inputs), "a key moves a slider by the browser's own step, 1"
    boxes = [float(a["value"] or "") for a in inputs if a["type"] == "checkbox"]
    assert boxes == [*range(3), *range(2), *range(3)]


def test_an_absent_value_lies_below_what_the_space_allows_and_is_named():
    numbers = scale_of("head.l2", SPACE["head.l2"], [1e-3, MISSING])
    assert numbers.at[1] < numbers.at[0] and numbers.low <= numbers.at[1] < -6
    assert numbers.ticks[numbers.at[1]] == "absent" and len(numbers.ticks) > 3
    linear = scale_of("head.dropout", {"type": "float", "min": 0.2, "max": 0.6}, [MISSING, 0.4])
    assert linear.ticks[linear.at[0]] == "absent" and {"0.2", "0.6"} <= set(linear.ticks.values())
    widths = scale_of("w", SPACE["head.dense_widths"], [[128, 64], MISSING])
    assert widths.ticks[widths.at[1]] == "absent" and widths.at[1] < min(p for p in widths.ticks if p != widths.at[1])


def test_null_is_a_value_and_not_absent():
    space = {
        "training.optimizer": {"type": "choice", "values": ["adam", "sgd"]},
        "training.decay": {"type": "choice", "values": [None, 0.1], "when": {"training.optimizer": "sgd"}},
    }
    had = [{"training.optimizer": "adam"}, *({"training.optimizer": "sgd", "training.decay": d} for d in (None, 0.1))]
    record = made_up([trial(n, values=values) for n, values in enumerate(had)], space=space)
    decay = figures.axes(record)["training.decay"]
    assert [decay.ticks[at] for at in decay.at] == ["absent", "null", "0.1"]
    points = figures.slices(record).data[1]
    assert list(points.hovertext) == ["trial 0: absent", "trial 1: null", "trial 2: 0.1000"]
    assert "training.decay = null" in figures.about(record.state.trials[1])
    head, *rows = Read(page(record)).tables["trials"]
    cells = {row[head.index("trial")]: row[head.index("training.decay")] for row in rows}
    assert [cells[str(n)] for n in range(3)] == ["", "null", "0.1000"]


def test_only_choices_have_ticks_in_parallel_coordinates():
    (drawn,) = figures.parallel_coordinates(made_up([trial(0), trial(1)])).data
    ticked = {dimension.name for dimension in drawn.dimensions if dimension.tickvals is not None}
    assert ticked == {"head.dense_widths", "head.normalize", "training.optimizer"}, "Plotly snaps what is selected"


def test_trials_of_several_fits_have_error_bars_and_others_none():
    several = [trial(n, scores=[trial(n)["score"] + d for d in (-0.03, 0.0, 0.03)]) for n in range(3)]
    record = made_up([*several, trial(3, "failed")])
    for drawn in (figures.objective(record), figures.slices(record)):
        bars = [trace.error_y for trace in drawn.data if trace.error_y.array is not None and trace.visible is not False]
        assert bars[0].visible and list(bars[0].array) == pytest.approx([0.03] * 3)
    assert "± 0.0300 over 3 fits" in figures.objective(record).data[0].hovertext[0]
    assert "Each trial has several fits" in Read(page(record)).sections["seeds"]
    assert not any(trace.error_y.visible for trace in figures.slices(made_up([trial(0), trial(1)])).data)


@pytest.mark.parametrize(("count", "step"), [(3, 1), (12, 1), (13, None), (40, None)])
def test_few_trials_have_a_tick_each_and_none_between_them(count: int, step: int | None):
    record = made_up([trial(n) for n in range(count)])
    drawn = figures.objective(record)
    assert drawn.layout.xaxis.dtick == step and figures.slices(record).layout.coloraxis.colorbar.dtick == step
    by_trial, by_time = (button.args[1] for button in drawn.layout.updatemenus[0].buttons)
    assert (by_trial["xaxis.dtick"], by_time["xaxis.dtick"]) == (step, None)


def test_a_trial_s_seconds_are_told_by_what_they_were_spent_on():
    ended = made_up([trial(0), trial(1, "failed"), trial(2, fit_s=None), trial(3, "repeated", of=0)])
    spent = {bar.name.partition(":")[0]: list(bar.y) for bar in seconds(ended.state.ended).data}
    assert spent == {"fits": [1, 0, 0, 1], "the rest": [1, 0, 2, 1], "failed": [0, 1, 0, 0]}
    assert "0.00 of them in fits" in Read(page(ended)).sections["cost"]


def test_a_scale_spans_the_space_and_names_its_values():
    log = scale_of("head.l2", SPACE["head.l2"], [1e-3, 1e-1])
    assert log.at == pytest.approx([-3, -1]) and (log.low, log.high) == pytest.approx((-6, -1))
    assert list(log.ticks.values()) == ["1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1"]
    narrow = scale_of("a", {"type": "float", "min": 2e-4, "max": 5e-3, "sampling": "log"}, [])
    assert list(narrow.ticks.values()) == ["0.0002", "0.0005", "0.001", "0.002", "0.005"]
    widths = scale_of("w", SPACE["head.dense_widths"], [[128, 64], []])
    assert widths.at == [2, 0] and widths.ticks == {0: "[]", 1: "[32]", 2: "[128, 64]"}
