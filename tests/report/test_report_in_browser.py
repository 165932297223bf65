"""A sweep's page in a browser: seen, sorted, brushed, printed, and with the keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chromium import PATIENCE
from test_report_page import hostile

from fer_experiments.report.page import page
from fer_experiments.report.record import Record

# Whether a word of these cells lies on two lines; and the charts whose tool bar lies on a button or a text.
BROKEN = """cells => cells.some(cell => [...cell.textContent.matchAll(/[^\\s]+/g)].some(word => {
    const range = document.createRange();
    range.setStart(cell.firstChild, word.index);
    range.setEnd(cell.firstChild, word.index + word[0].length);
    return new Set([...range.getClientRects()].map(rect => rect.top)).size > 1;
}))"""
COVERED = """charts => charts.filter(chart => {
    const bar = chart.querySelector(".modebar").getBoundingClientRect();
    const others = [...document.querySelectorAll(".views button"), ...chart.querySelectorAll(".legend, text")];
    return others.some(other => {
        const box = other.getBoundingClientRect();
        return bar.left < box.right && box.left < bar.right && bar.top < box.bottom && box.top < bar.bottom;
    });
}).map(chart => chart.id)"""
SHOWN = "rows => rows.filter(row => !row.hidden).map(row => row.cells[1].dataset.value)"
# The trials of a chart's points that are not dimmed.
BRIGHT = "chart => chart.data.flatMap(t => t.ids && t.visible !== false ? t.selectedpoints.map(at => t.ids[at]) : [])"

SAID = "document.getElementById('selected').textContent"


@contextmanager
def shown(browser: Any, record: Record, folder: Path) -> Iterator[Any]:
    """A sweep's page, opened from disk without a network."""
    path = folder / "report.html"
    path.write_text(page(record))
    context = browser.new_context(offline=True, viewport={"width": 1300, "height": 900})
    context.set_default_timeout(PATIENCE)
    tab = context.new_page()
    tab.said, tab.asked = [], []
    tab.on("console", lambda message: tab.said.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: tab.said.append(str(error)))
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.goto(path.as_uri())
    tab.wait_for_selector("#coordinates-chart .axis-brush", state="attached")
    yield tab
    context.close()


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The hostile sweep's page."""
    with shown(browser, hostile(), tmp_path_factory.mktemp("page")) as tab:
        yield tab


def test_the_page_renders_without_errors_or_requests(opened: Any):
    charts = opened.eval_on_selector_all(".js-plotly-plot", "all => all.map(one => one.id)")
    assert charts == [
        f"{n}-chart"
        for n in ("objective", "coordinates", "importances", "contours", "slices", "curves", "confusion", "cost")
    ]
    assert opened.locator("#objective-chart .scatterlayer .point").count() >= 12
    assert not opened.said
    assert all(url.startswith(("file:", "data:", "blob:")) for url in opened.asked) and len(opened.asked) == 1
    assert opened.evaluate("window.hacked") is None


def test_a_click_on_a_header_sorts_the_rows_by_number_and_back(opened: Any):
    column = "rows => rows.map(row => row.cells[3].dataset.value)"
    header = opened.locator("#trials th", has_text="head.l2")
    header.locator("button").click()
    values = [float(v) for v in opened.eval_on_selector_all("#trials tbody tr", column)]
    assert len(values) == 12 and values == sorted(values) and header.get_attribute("aria-sort") == "ascending"
    header.locator("button").focus()
    opened.keyboard.press("Enter")
    values = [float(v) for v in opened.eval_on_selector_all("#trials tbody tr", column)]
    assert values == sorted(values, reverse=True) and header.get_attribute("aria-sort") == "descending"
    opened.locator("#trials th", has_text="final/val_accuracy").locator("button").click()
    failed = "rows => rows.map(row => row.cells[2].textContent)"
    assert opened.eval_on_selector_all("#trials tbody tr", failed)[-1] == "", "the failed trial stays last"


def drag(tab: Any, axis: int, start: float, end: float) -> None:
    """From one share of an axis's height to another, from below."""
    brush = tab.locator("#coordinates-chart .axis-brush").nth(axis)
    brush.scroll_into_view_if_needed()
    box = brush.bounding_box()
    x, heights = box["x"] + box["width"] / 2, [box["y"] + (1 - share) * box["height"] for share in (start, end)]
    tab.mouse.move(x, heights[0])
    tab.mouse.down()
    tab.mouse.move(x, heights[1], steps=5)
    tab.mouse.up()


def test_a_drag_along_an_axis_selects_trials_and_rows(opened: Any):
    drag(opened, 0, 0.85, 0.7)
    brushed = "document.getElementById('coordinates-chart').data[0].dimensions[0].constraintrange"
    opened.wait_for_function(f"{brushed} !== undefined")
    low, high = opened.evaluate(brushed)
    assert -6 <= low < high <= -1
    inside = {str(n) for n in range(12) if n != 4 and low <= -(1 + n / 10) <= high}
    assert set(opened.eval_on_selector_all("#trials tbody tr", SHOWN)) == inside and 0 < len(inside) < 11
    assert opened.inner_text("#selected") == f"{len(inside)} of 11 trials selected."
    sliders = "form => [...form.elements['head.l2'].querySelectorAll('input')].map(input => Number(input.value))"
    assert opened.eval_on_selector("#selection", sliders) == [round(20 * (end + 6)) for end in (low, high)]
    told = opened.locator("fieldset[name='head.l2'] span").all_text_contents()
    assert [float(text) for text in told] == pytest.approx([10**low, 10**high], rel=1e-3)


def test_the_keyboard_alone_selects_trials_in_the_table_and_the_charts_and_releases_them(opened: Any):
    opened.locator("#coordinates summary").focus()
    moved = "const { data } = document.getElementById('coordinates-chart'); data[0].dimensions.reverse()"
    opened.evaluate(moved)
    opened.keyboard.press("Enter")
    opened.keyboard.press("Tab")
    for key in ("End", *["ArrowLeft"] * 11, "Enter"):  # a hundredth of the axis each: from 10 ** -1.55
        opened.keyboard.press(key)
    opened.wait_for_function(f"{SAID} === '5 of 11 trials selected.'")
    focused = opened.locator("#selection input:focus")
    told = [focused.get_attribute(f"aria-{name}") for name in ("label", "valuetext")]
    assert told == ["head.l2 (log) from", "0.02818"]
    assert opened.eval_on_selector("#selection input:focus", "input => getComputedStyle(input).outlineStyle") == "solid"
    opened.locator("#selection [type=checkbox]").nth(5).focus()  # training.optimizer=adam
    opened.keyboard.press("Space")
    opened.wait_for_function(f"{SAID} === '2 of 11 trials selected.'")
    assert set(opened.eval_on_selector_all("#trials tbody tr", SHOWN)) == {"0", "3"}
    for name, times in (("objective", 1), ("contours", 1), ("slices", 5), ("cost", 3)):
        assert sorted(opened.eval_on_selector(f"#{name}-chart", BRIGHT)) == sorted(["0", "3"] * times), name
    faint = "chart => chart.data.filter(trace => trace.opacity < 1).map(trace => trace.meta)"
    assert set(opened.eval_on_selector("#curves-chart", faint)) == {"1"}
    opened.locator("#selection button").focus()
    opened.keyboard.press("Enter")
    opened.wait_for_function(f"{SAID} === 'All 11 trials.'")
    assert len(opened.eval_on_selector_all("#trials tbody tr", SHOWN)) == 12
    assert opened.locator("#selection :checked").count() == 0 and not opened.said
    assert opened.locator("#selection input").first.get_attribute("aria-valuetext") == "1e-06"


def test_no_tool_bar_sends_anything_away(opened: Any):
    buttons = opened.locator("#objective-chart .modebar-btn")
    names = buttons.evaluate_all("all => all.map(button => button.dataset.title)")
    assert names == ["Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"]


def test_a_finger_scrolls_over_charts(opened: Any, browser: Any):
    context = browser.new_context(viewport={"width": 360, "height": 800}, has_touch=True, is_mobile=True)
    tab = context.new_page()
    tab.goto(opened.url, timeout=PATIENCE)
    tab.wait_for_selector("#coordinates-chart .axis-brush", state="attached", timeout=PATIENCE)
    modes = "charts => charts.map(chart => chart._fullLayout.dragmode)"
    assert set(tab.eval_on_selector_all(".js-plotly-plot", modes)) == {False}
    context.close()


def test_a_print_has_whole_tables_and_nothing_to_press(opened: Any):
    opened.emulate_media(media="print")
    cut = "all => all.filter(one => getComputedStyle(one).overflowY !== 'visible').length"
    assert not opened.eval_on_selector_all(".scroll, .chart, pre", cut)
    assert not any(opened.locator(what).first.is_visible() for what in ("nav", ".views", "form", ".copy button"))
    opened.emulate_media(media="screen")


def test_the_keyboard_alone_shows_trials_by_time_and_back(opened: Any):
    axis = "document.getElementById('objective-chart').layout.xaxis.title.text"
    for name, title in (("by time", "hours since the first trial started"), ("by trial", "trial")):
        button = opened.locator("#objective .views button", has_text=name)
        button.focus()
        opened.keyboard.press("Enter")
        opened.wait_for_function(f"{axis} === '{title}'")
        assert button.get_attribute("aria-pressed") == "true"
        assert opened.locator("#objective .views button[aria-pressed=true]").count() == 1


@pytest.mark.parametrize("width", [360, 1400])
def test_words_stay_whole_and_no_tool_bar_lies_on_a_button(opened: Any, width: int):
    before = opened.viewport_size
    opened.set_viewport_size({"width": width, "height": 900})
    drawn = "c => c.clientWidth < innerWidth && c.querySelector('.main-svg').clientWidth === c.clientWidth"
    opened.wait_for_function(f"({drawn})(document.getElementById('objective-chart'))")
    assert opened.locator("#objective .views button").count() == 2
    assert opened.eval_on_selector_all(".js-plotly-plot", COVERED) == []
    assert not opened.eval_on_selector_all("#data table td:first-child, #cost dd", BROKEN)
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    opened.set_viewport_size(before)
