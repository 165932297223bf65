"""The MLflow UI over a real sweep and a real promotion, seen and clicked in a browser as a user does."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from chromium import PATIENCE, mlflow_ui
from PIL import Image
from stores import store_in

from fer_experiments.config.compose import compose
from fer_experiments.registry.promote import promote
from fer_experiments.report.sweep import sweep
from fer_experiments.search.state import State
from fer_experiments.tracking import Store, models
from fer_experiments.tracking.store import client_of

MODEL = "fer-demo"
ELSEWHERE = re.compile(r"^(https?|wss?)://(?!([^/@]*@)?127\.0\.0\.1[:/])")
MLFLOWS_OWN = (
    # It asks who is logged in; without its basic-auth app nobody answers.
    re.compile(r"status of 404 .*/ajax-api/2\.0/mlflow/users/current$"),
    # Chromium's notice that a layout took one frame more; no function has failed.
    re.compile(r"ResizeObserver loop completed with undelivered notifications"),
)


class Room(NamedTuple):
    """A sweep of three trials whose best was promoted, in one sqlite file."""

    store: Store
    folder: Path
    state: State

    def run(self, number: int) -> str:
        return str(self.state.trials[number].run_id)

    def artifact(self, run_id: str, path: str) -> Path:
        return Path(client_of(self.store).download_artifacts(run_id, path, str(self.folder)))


@pytest.fixture(scope="module")
def room(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Room:  # the browser first: without it, no sweep
    folder = tmp_path_factory.mktemp("ui")
    options = ["tracking.system_metrics=false", f"paths.mlruns={folder / 'mlruns'}", f"paths.cache={folder / 'cache'}"]
    made = ["sweep=quick", "data.demo_size=1500", "training.epochs=6", "sweep.max_trials=3"]
    state = sweep(compose([*made, *options]), lambda line: None)
    taken = ["promote=default", "gate=none", "promote.top_k=1", "promote.seeds=1", "promote.corruptions=0"]
    promote(compose([*taken, *options]), sweep=state.id, echo=lambda line: None)
    return Room(store_in(folder / "mlruns"), folder, state)


@pytest.fixture(scope="module")
def opened(browser: Any, room: Room) -> Iterator[Any]:
    """A user's first visit: MLflow's offers (its assistant, its tour of the registry) are closed as they come up."""
    with mlflow_ui(room.store.mlruns) as (address, printed):
        context = browser.new_context(viewport={"width": 1400, "height": 900}, base_url=address)
        context.set_default_timeout(PATIENCE)
        tab = context.new_page()
        tab.said, tab.asked = [], []
        tab.on("console", lambda m: tab.said.append(f"{m.text} {m.location['url']}") if m.type == "error" else None)
        tab.on("pageerror", lambda error: tab.said.append(str(error)))
        tab.on("request", lambda request: tab.asked.append(request.url))
        context.route(ELSEWHERE, lambda route: route.abort())
        tab.add_locator_handler(tab.get_by_role("button", name="Try it now"), lambda button: button.click())
        tab.goto(printed)
        assert tab.url.startswith(address)
        tab.goto("/#/experiments")
        tab.get_by_role("button", name="Close", exact=True).click()
        tab.get_by_text("Model training", exact=True).click()
        yield tab
        context.close()


@pytest.fixture
def tab(opened: Any) -> Iterator[Any]:
    """The tab, of which nothing may be an error, nor come from another machine, once the test has ended."""
    yield opened
    said = [line for line in opened.said if not any(own.search(line) for own in MLFLOWS_OWN)]
    elsewhere = [url for url in opened.asked if ELSEWHERE.search(url)]
    opened.said.clear()
    opened.asked.clear()
    assert not said and not elsewhere


def row_of(tab: Any, run: str) -> Any:
    return tab.get_by_role("row").filter(has=tab.get_by_role("link", name=run, exact=True))


def show_trials(tab: Any, room: Room) -> None:
    """Opens the experiment from the list of experiments, and the sweep's row in it."""
    tab.goto("/#/experiments")
    tab.get_by_role("row").get_by_role("link", name="fer/demo", exact=True).click()
    row_of(tab, room.state.id).wait_for()
    if not tab.get_by_role("link", name="trial 0", exact=True).is_visible():  # the UI remembers what was open
        row_of(tab, room.state.id).get_by_role("button").first.click()
    tab.get_by_role("link", name="trial 0", exact=True).wait_for()


def test_the_experiment_lists_the_sweep_and_its_trials_nested_under_it(tab: Any, room: Room) -> None:
    show_trials(tab, room)
    sweep = tab.get_by_role("link", name=room.state.id, exact=True)
    promotion = tab.get_by_role("link", name=f"promotion of sweep {room.state.id}", exact=True)
    assert sweep.get_attribute("href").endswith(f"/runs/{room.state.run_id}") and promotion.is_visible()
    x, y = sweep.bounding_box()["x"], sweep.bounding_box()["y"]
    for number in range(3):
        trial = tab.get_by_role("link", name=f"trial {number}", exact=True)
        assert trial.get_attribute("href").endswith(f"/runs/{room.run(number)}")
        assert trial.bounding_box()["x"] > x and trial.bounding_box()["y"] > y
    row_of(tab, room.state.id).get_by_role("button").first.click()
    tab.get_by_role("link", name="trial 0", exact=True).wait_for(state="detached")
    assert sweep.is_visible() and tab.get_by_role("link", name=re.compile("^trial")).count() == 0


def test_three_trials_are_compared_in_tables_and_a_chart(tab: Any, room: Room) -> None:
    show_trials(tab, room)
    for number in range(3):
        row_of(tab, f"trial {number}").get_by_role("checkbox", name="toggle row selection").check()
    tab.get_by_role("button", name="Compare", exact=True).click()
    tab.get_by_role("heading", name="Comparing 3 Runs from 1 Experiment").wait_for()
    row = tab.get_by_role("row").filter(has=tab.get_by_text("training.learning_rate", exact=True))
    assert {float(text) for text in row.get_by_role("cell").all_inner_texts()} == {
        trial.values["training.learning_rate"] for trial in room.state.trials
    }
    scores = [trial.score for trial in room.state.trials]
    for score in scores:
        tab.get_by_text(str(round(score, 3)), exact=True).first.wait_for()
    assert compared(tab, "final/val_accuracy") == pytest.approx(scores, abs=6e-4)
    chart = tab.locator(".js-plotly-plot")
    for name in ("head.l2", "head.dense_widths", "training.learning_rate"):
        chart.get_by_text(name, exact=True).wait_for()
    end = time.monotonic() + PATIENCE / 1000
    while coloured(chart) < 100 and time.monotonic() < end:  # lines come after the axes
        time.sleep(0.5)
    assert coloured(chart) >= 100


def compared(tab: Any, metric: str) -> list[float]:
    """The values of three runs in the table of metrics, whose text is all the names and then all the values."""
    table = tab.locator("body").inner_text().rpartition("\nMetrics\n")[2].splitlines()[1:]
    first = next(place for place, line in enumerate(table) if re.match(r"-?\d", line))
    values = table[first + 3 * table.index(metric) :]
    return [float(value) for value in values[:3]]


def coloured(chart: Any) -> int:
    """How many pixels of a parallel coordinates chart have a colour, left of its colour bar."""
    pixels = np.asarray(Image.open(BytesIO(chart.screenshot())).convert("HSV"))
    return int((pixels[:, : pixels.shape[1] * 3 // 4, 1] > 100).sum())


def open_artifacts(tab: Any, run_id: str | None) -> None:
    assert run_id is not None
    tab.goto(f"/#/experiments/1/runs/{run_id}")
    tab.get_by_role("tab", name="Artifacts").click()


def test_a_picture_among_the_artifacts_is_shown(tab: Any, room: Room) -> None:
    path = "plots/confusion_matrix.png"
    open_artifacts(tab, room.run(0))
    for name in path.split("/"):
        tab.get_by_text(name, exact=True).click()
    shown = tab.get_by_role("img", name=path, exact=True)
    shown.wait_for()
    tab.wait_for_function("image => image.complete", arg=shown.element_handle())
    with Image.open(room.artifact(room.run(0), path)) as image:
        assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == list(image.size)
    assert shown.bounding_box()["width"] > 200


def test_the_sweeps_report_is_shown_among_its_artifacts_with_its_figures(tab: Any, room: Room) -> None:
    open_artifacts(tab, room.state.run_id)
    tab.get_by_text("report.html", exact=True).click()
    page = tab.frame_locator("iframe")
    page.get_by_role("heading", name=f"Sweep {room.state.id}", exact=True).wait_for()
    for chart in ("#objective-chart .scatterlayer .trace", "#coordinates-chart .axis-brush"):
        page.locator(chart).first.wait_for(state="attached")


def test_the_registered_model_is_listed_with_its_champion(tab: Any) -> None:
    tab.goto("/#/models")
    row = tab.get_by_role("row").filter(has=tab.get_by_role("link", name=MODEL, exact=True))
    assert "Version 1" in row.inner_text() and "champion" in row.inner_text()
    row.get_by_role("link", name=MODEL, exact=True).click()
    tab.get_by_role("heading", name=MODEL, exact=True).wait_for()
    version = tab.get_by_role("row").filter(has=tab.get_by_role("link", name="Version 1", exact=True))
    assert "champion" in version.inner_text()


def test_the_version_shows_its_model_card_and_the_run_it_comes_from(tab: Any, room: Room) -> None:
    version = models.find_version(room.store, MODEL, "1")
    assert version is not None
    tab.goto(f"/#/models/{MODEL}/versions/1")
    for name in (MODEL, "Intended use", "Test split", "Known biases and limits", "How it was chosen"):
        tab.get_by_role("heading", name=name, exact=True).wait_for()  # Markdown is rendered, not quoted
    row = tab.get_by_role("row").filter(has=tab.get_by_role("cell", name="accuracy", exact=True))
    assert version.tags["fer.test_accuracy"].split()[0] in row.inner_text()
    assert tab.get_by_text(re.compile(r"^@\s*champion$")).first.is_visible()
    source = tab.get_by_role("link", name=f"promotion of sweep {room.state.id}")
    assert f"/runs/{version.run_id}/" in source.get_attribute("href")
