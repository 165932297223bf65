"""What is selected in a sweep's parallel coordinates, by the form and by the mouse: lines, rows and form are one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from test_report_in_browser import SAID, SHOWN, drag, shown
from test_report_page import made_up, trial

from fer_experiments.report.record import Record

# The trials whose lines are drawn bright, seen where they meet the last axis.
LINES = """chart => {
    const canvas = chart.querySelector(".gl-canvas-focus"), at = canvas.getBoundingClientRect();
    const axes = [...chart.querySelectorAll(".domain")].map(axis => axis.getBoundingClientRect());
    const axis = axes.sort((a, b) => a.right - b.right).at(-1), ratio = canvas.width / at.width;
    const { values, range: [low, high] } = chart.data[0].dimensions.at(-1);
    const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
    const drawn = copy.getContext("2d");
    drawn.drawImage(canvas, 0, 0);
    return chart.data[0].ids.filter((_, n) => {
        const y = axis.bottom - axis.height * (values[n] - low) / (high - low) - at.top;
        const { data } = drawn.getImageData((axis.right - 3 - at.left) * ratio, (y - 5) * ratio, 1, 10 * ratio);
        return data.some(value => value > 0);
    });
}"""
# A logarithmic axis, a linear one, one of each that not all trials have, and a choice with null.
NUMBERS: dict[str, Any] = {
    "head.l2": {"type": "float", "min": 1e-6, "max": 1e-1, "sampling": "log"},
    "head.dropout": {"type": "float", "min": 0.0, "max": 0.6},
    "training.optimizer": {"type": "choice", "values": ["adam", "sgd"]},
    "training.momentum": {"type": "float", "min": 0.5, "max": 0.9, "when": {"training.optimizer": "sgd"}},
    "training.rate": {
        "type": "float",
        "min": 1e-4,
        "max": 1e-1,
        "sampling": "log",
        "when": {"training.optimizer": "sgd"},
    },
    "training.decay": {"type": "choice", "values": [None, 0.1], "when": {"training.optimizer": "sgd"}},
}


def numbers() -> Record:
    """Eleven trials, of which the odd ones have what the second optimizer has."""
    trials = []
    for n in range(11):
        values: dict[str, Any] = {"head.l2": 10 ** -(1.02 + n * 0.48), "head.dropout": n * 7 % 11 * 0.053 + 0.01}
        values["training.optimizer"] = ["adam", "sgd"][n % 2]
        if n % 2:
            values |= {"training.momentum": 0.52 + n / 30, "training.rate": 10 ** -(1.1 + n * 0.23)}
            values["training.decay"] = [None, 0.1][n % 4 // 2]
        trials.append(trial(n, values=values, score=0.3 + n / 20))
    return made_up(trials, space=NUMBERS)


@pytest.fixture(scope="module")
def counted(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page of `numbers`, with its form open."""
    with shown(browser, numbers(), tmp_path_factory.mktemp("page")) as tab:
        tab.locator("#coordinates summary").click()
        yield tab


def is_selected(tab: Any, trials: set[int]) -> None:
    """Waits until so many trials are said to be selected; then the rows and the lines are theirs."""
    tab.wait_for_function(f"{SAID} === '{len(trials)} of 11 trials selected.'")
    rows, lines = tab.eval_on_selector_all("#trials tbody tr", SHOWN), tab.eval_on_selector("#coordinates-chart", LINES)
    assert set(map(int, rows)) == set(map(int, lines)) == trials


def release(tab: Any) -> None:
    tab.locator("#selection button").click()
    tab.wait_for_function(f"{SAID} === 'All 11 trials.'")
    assert len(tab.eval_on_selector("#coordinates-chart", LINES)) == 11


EVEN = set(range(0, 11, 2))  # those without the keys of axes 3 and 4


def test_lines_and_rows_are_those_that_the_form_selects(counted: Any):
    for axis, low, high, inside in (
        (0, 13, 61, {5, 6, 7, 8, 9}),
        (0, 42, 42, {6}),
        (1, 30, 70, {1, 4, 7, 10}),
        (3, 0, 30, EVEN | {1}),
        (3, 20, 60, {1, 3, 5}),
        (4, 0, 5, EVEN),
        (4, 50, 80, {3, 5}),
    ):
        ends = counted.locator("#selection fieldset").nth(axis).locator("input")
        ends.nth(1).fill(str(high))
        ends.nth(0).fill(str(low))
        is_selected(counted, inside)
        assert [end.input_value() for end in ends.all()] == [str(low), str(high)], "the form keeps what it was told"
        ends.nth(0).fill("0")
        ends.nth(1).fill("100")
        counted.wait_for_function(f"{SAID} === 'All 11 trials.'")  # whole, and so none


def test_lines_and_rows_are_those_that_a_drag_selects(counted: Any):
    for axis, low, high, inside in (
        (0, 0.18, 0.56, {5, 6, 7, 8}),
        (1, 0.32, 0.68, {1, 4, 7, 10}),
        (3, 0.05, 0.45, {1, 3}),
        (4, 0.4, 0.7, {5, 7}),
    ):
        drag(counted, axis, low, high)
        is_selected(counted, inside)
        ends = counted.locator("#selection fieldset").nth(axis).locator("input")
        assert [int(end.input_value()) for end in ends.all()] == pytest.approx([100 * low, 100 * high], abs=2)
        release(counted)


def test_the_form_tells_null_from_absent(counted: Any):
    for text, inside in (("null", {1, 5, 9}), ("absent", EVEN)):
        counted.locator("fieldset[name='training.decay'] label", has_text=text).click()
        is_selected(counted, inside)
        release(counted)


def test_axes_of_numbers_have_ticks_that_read_well(counted: Any):
    texts = "axes => axes.map(axis => [...axis.querySelectorAll('.tick text')].map(text => text.textContent))"
    read = counted.eval_on_selector_all("#coordinates-chart .axis", texts)
    assert read[0] == ["1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1"]
    assert {"0", "0.1", "0.5"} <= set(read[1]) and read[2] == ["adam", "sgd"]
    assert read[3] == ["absent", "0.5", "0.7", "0.9"] and read[4] == ["absent", "0.0001", "0.001", "0.01", "0.1"]
    heights = "axis => [...axis.querySelectorAll('.tick line, .domain')].map(one => one.getBoundingClientRect().bottom)"
    domain, *ticks = counted.locator("#coordinates-chart .axis").nth(3).evaluate(heights)
    height = domain - ticks[-1]
    assert ticks == pytest.approx([domain - share * height for share in (0, 0.1, 0.55, 1)], abs=2)
