"""Pictures of a recorded sweep for the README: `python docs/screenshots.py <mlruns> <sweep id> <out>`.

Writes ui_sweep.png, ui_compare.png, ui_model.png (MLflow's UI) and report.png (`fer report`'s page) into <out>.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path += [str(Path(__file__).resolve().parents[1] / folder) for folder in ("tests", "benchmarks")]

from chromium import PATIENCE, mlflow_ui, open_browser

from fer_experiments.search.state import State, load_state
from fer_experiments.tracking.store import Store, client_of

WIDTH, HEIGHT = 1400, 900
ROOM = 730  # px, of the run table beside the names and times of the runs
MOST = 300_000  # bytes of a picture
# What a user has who has closed the assistant and chosen "Model training" (MLflow 3.17's names).
SETTLED = {
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
    "mlflow.workflowType_v1": '"machine_learning"',
}
HIDDEN = "[data-assistant-ui] { display: none !important }"  # the assistant's button lies over the tables


def save(tab: Any, path: Path) -> None:
    """Writes what the tab shows."""
    time.sleep(2)  # animations and WebGL
    tab.screenshot(path=path, style=HIDDEN)
    print(f"{path}: {path.stat().st_size // 1000} kB" + (", too large" if path.stat().st_size > MOST else ""))


def settle(tab: Any, experiment: str, state: State) -> None:
    """Gives the tab the choices of a user who has opened the sweep and chosen the columns that tell most."""
    objective = state.identity["sweep.objective"]
    params = [f"params.`{name}`" for name in state.identity["sweep.space"]][:4]
    metrics = [f"metrics.`{name}`" for name in dict.fromkeys([objective, "final/val_roc_auc"])][: 5 - len(params)]
    columns = [*metrics, *params]
    view = {
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Run Name`", "runDateAndNestInfo", *columns],
        "columnWidths": dict.fromkeys(columns, ROOM // len(columns)),
        "runsExpanded": {state.run_id: True},
    }
    table = f'MLflowLocalStorage-1.1-ExperimentPage-["{experiment}"]-ReactComponentState'
    choices = json.dumps({**SETTLED, table: json.dumps(view)})
    setting = f"for (const [key, value] of Object.entries({choices})) localStorage.setItem(key, value)"
    tab.add_init_script(f"if (location.protocol === 'http:') {{ {setting} }}")
    tab.goto("about:blank")  # another page of the UI would be no new document, and run no script


def sweep_picture(tab: Any, experiment: str, state: State, out: Path) -> None:
    """The run table with the sweep's trials nested under it; sorted by a metric MLflow would not nest them."""
    only = quote(f"tags.fer.sweep_id = '{state.id}'")
    order = "orderByKey=attributes.start_time&orderByAsc=true"
    tab.goto(f"/#/experiments/{experiment}/runs?searchFilter={only}&{order}")
    tab.get_by_role("link", name=re.compile(r"^trial \d+$")).first.wait_for()
    save(tab, out / "ui_sweep.png")


def compare_picture(tab: Any, experiment: str, state: State, out: Path) -> None:
    """Three trials compared: the best, the median and the worst."""
    sign = -1 if state.identity["sweep.direction"] == "max" else 1
    ranked = sorted((t for t in state.trials if t.status == "finished"), key=lambda trial: sign * trial.score)
    if len(ranked) < 3:
        raise SystemExit(f"{state.id} has {len(ranked)} finished trials; a comparison takes three")
    runs = [trial.run_id for trial in (ranked[0], ranked[len(ranked) // 2], ranked[-1])]
    tab.set_viewport_size({"width": WIDTH, "height": 950})  # down to the end of the first table
    tab.goto(f"/#/compare-runs?runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([experiment]))}")
    chart = tab.locator(".js-plotly-plot")
    chart.wait_for()
    objective = state.identity["sweep.objective"]
    metrics = tab.get_by_role("combobox").nth(1)
    metrics.click(force=True)  # an input of no size, under its own box
    tab.keyboard.press("Backspace")  # the metric that comes first by name
    tab.keyboard.type(objective)
    tab.get_by_title(objective, exact=True).first.click()
    tab.keyboard.press("Escape")
    tab.evaluate("document.activeElement.blur()")
    chart.get_by_text(objective, exact=True).wait_for()
    save(tab, out / "ui_compare.png")
    tab.set_viewport_size({"width": WIDTH, "height": HEIGHT})


def model_picture(tab: Any, store: Store, state: State, out: Path) -> None:
    """The champion that came out of the sweep, else the last version that did."""
    client = client_of(store)
    found = client.search_model_versions(f"tags.`fer.sweep_id` = '{state.id}'")
    if not found:
        print(f"{state.id}: nothing of it is registered, no ui_model.png")
        return
    champions = [v for v in found if "champion" in client.get_model_version(v.name, v.version).aliases]
    version = max(champions or found, key=lambda version: int(version.version))
    tab.set_viewport_size({"width": WIDTH, "height": 1250})  # down to the end of the test split's table
    tab.goto(f"/#/models/{version.name}/versions/{version.version}")
    tab.get_by_role("heading", name="Intended use").wait_for()
    save(tab, out / "ui_model.png")
    tab.set_viewport_size({"width": WIDTH, "height": HEIGHT})


def report_picture(tab: Any, page: Path, out: Path) -> None:
    """The report's head, the first rows of its leaderboard and its parallel coordinates, with their form."""
    tab.goto(page.resolve().as_uri())
    tab.wait_for_selector("#coordinates-chart .axis-brush", state="attached")
    shown = "section:not(#leaderboard, #coordinates), #trials tbody tr:nth-child(n + 7) { display: none }"
    shown += " #trials :is(th, td):nth-last-child(-n + 2) { display: none }"  # status and run id, cut at the edge
    tab.add_style_tag(content=shown)
    tab.locator("#coordinates summary").click()
    tab.evaluate("scrollTo(0, 0)")
    end = tab.evaluate("document.getElementById('coordinates').getBoundingClientRect().bottom")
    tab.set_viewport_size({"width": WIDTH, "height": int(end) + 20})
    save(tab, out / "report.png")


def main(mlruns: Path, sweep: str, out: Path) -> None:
    """Takes all four pictures."""
    report = mlruns / "sweeps" / sweep / "report.html"
    if not report.is_file():
        raise SystemExit(f"no {report}; first: fer report sweep={sweep} paths.mlruns={mlruns}")
    out.mkdir(parents=True, exist_ok=True)
    state = load_state(mlruns / "sweeps" / sweep)
    assert state is not None and state.run_id is not None
    store = Store(f"sqlite:///{(mlruns / 'mlflow.db').resolve()}", mlruns, f"fer/{state.identity['data.task']}")
    experiment = client_of(store).get_run(state.run_id).info.experiment_id
    with mlflow_ui(mlruns) as (address, printed), open_browser() as browser:
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, base_url=address)
        tab.set_default_timeout(PATIENCE)
        tab.goto(printed)
        settle(tab, experiment, state)
        sweep_picture(tab, experiment, state, out)
        compare_picture(tab, experiment, state, out)
        model_picture(tab, store, state, out)
        report_picture(tab, report, out)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
