"""Reports of a real small sweep, and of states that a small sweep does not come to; read by a parser and a browser."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from chromium import PATIENCE
from plotly.offline import get_plotlyjs
from stores import store_in

from fer_experiments.config import Config, SweepConfig, experiment, flatten, mlruns_dir, to_dict
from fer_experiments.config.commands import train_command
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.report.page import PARTS, page
from fer_experiments.report.record import Record
from fer_experiments.report.report import write_report
from fer_experiments.report.scales import scale_of
from fer_experiments.report.sweep import sweep
from fer_experiments.search.recorded import find_sweep
from fer_experiments.search.state import State, digest_of, load_state, only_one
from fer_experiments.search.trials import read_trial
from fer_experiments.tracking import connect
from fer_experiments.tracking.store import client_of

ROOT = Path(__file__).resolve().parents[2]
EVIL = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>\'&%{x}'
SPACE = {
    "head.l2": {"type": "float", "min": 1e-6, "max": 1e-1, "sampling": "log"},
    "head.dropout": {"type": "float", "min": 0.0, "max": 0.6},
    "head.dense_widths": {"type": "choice", "values": [[], [32], [128, 64]]},
    "head.normalize": {"type": "bool"},
    "training.optimizer": {"type": "choice", "values": ["adam", "sgd", EVIL]},
}


class Read(HTMLParser):
    """A page as its tags, its text by section, and its tables as rows of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.inside = self.table = ""
        self.raw = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.raw = tag in ("script", "style")
        if tag in ("section", "header"):
            self.inside = dict(attrs).get("id") or tag
        elif tag == "table":
            self.table = dict(attrs).get("id") or f"{self.inside} {len(self.tables)}"
            self.tables[self.table] = []
        elif tag == "tr":
            self.tables[self.table].append([])
        elif tag in ("td", "th"):
            self.tables[self.table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.raw = False
        if tag == "table":
            self.table = ""

    def handle_data(self, data: str) -> None:
        if self.raw:
            return
        self.sections[self.inside] = self.sections.get(self.inside, "") + data
        if self.table and self.tables[self.table] and self.tables[self.table][-1]:
            self.tables[self.table][-1][-1] += data


def made_up(trials: list[dict[str, Any]], *, oracle: str = "random", status: str = "finished", **more: Any) -> Record:
    """A sweep over SPACE with these trials."""
    sweep = SweepConfig(name="made-up", oracle=oracle, space=SPACE)
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


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, State]:
    """A real sweep with finished, repeated and failed trials, and its best fitted once more with another seed."""
    from fer_experiments.experiment.train import train
    from fer_experiments.search.sweep import run_sweep

    folder = tmp_path_factory.mktemp("report")
    file = folder / "small.yaml"
    file.write_text(
        "defaults:\n  - override /data: demo\n  - override /backbone: pocket\n  - override /head: pooled\n"
        "sweep:\n  oracle: grid\n  max_trials: null\n  space:\n"
        "    training.learning_rate: {type: choice, values: [1.0e-3, 1.0e+38, 1.0e-2]}\n"
        "    head.l2: {type: choice, values: [0, 0.0]}\n"
    )
    small = ["data.limit=60", "data.demo_size=600", "training.epochs=1", "tracking.system_metrics=false"]
    paths = [f"paths.mlruns={folder / 'mlruns'}", f"paths.cache={folder / 'cache'}"]
    config = compose([f"sweep={file}", *small, *paths])
    state = run_sweep(config, lambda line: None)
    command = shlex.split(written(config, state).command)
    assert command[:2] == ["fer", "train"]
    train(compose([*command[2:], "training.seed=1", "tracking.system_metrics=false", *paths]), echo=lambda line: None)
    return config, state


class Written:
    """The page of a sweep as it stands in its folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.html = path, path.read_text()
        self.read = Read(self.html)
        start = self.html.index('<pre id="command">') + len('<pre id="command">')
        self.command = Read(self.html[start : self.html.index("</pre>", start)]).sections[""]


def written(config: Config, state: State) -> Written:
    return Written(write_report(config, state.id))


@pytest.fixture(scope="module")
def real(recorded: tuple[Config, State]) -> Written:
    return written(*recorded)


def test_every_part_is_there_in_the_order_of_the_links(real: Written):
    ids = [attributes["id"] for tag, attributes in real.read.tags if tag == "section"]
    assert ids == list(PARTS)
    assert [a["href"] for tag, a in real.read.tags if tag == "a"] == [f"#{name}" for name in PARTS]


def test_it_says_what_was_searched_on_which_data_and_what_cleaning_removed(real: Written):
    rows = next(rows for name, rows in real.read.tables.items() if name.startswith("searched"))
    assert ["training.learning_rate", "choice", "0.001, 1e+38, 0.01", ""] in rows
    data = [rows for name, rows in real.read.tables.items() if name.startswith("data")]
    assert ["train", "39", "21", "60"] in data[0]
    assert ["found", "60", "60", "480", "600"] in data[1] and ["− redundant copies", "0", "0", "0", "0"] in data[1]


def test_the_leaderboard_has_every_trial_the_best_first(recorded: tuple[Config, State], real: Written):
    _, state = recorded
    head, *rows = real.read.tables["trials"]
    assert head[:3] == ["rank", "trial", "final/val_accuracy"] and len(rows) == len(state.trials) == 6
    best = state.best()
    assert best is not None and rows[0][1] == str(best.number) and rows[0][2] == f"{best.score:.4f}"
    assert sorted(row[head.index("status")] for row in rows) == ["failed"] * 2 + ["finished"] * 2 + ["repeated"] * 2


def test_the_command_composes_to_the_config_of_the_best_trial(recorded: tuple[Config, State], real: Written):
    from fer_experiments.search.sweep import trial_config

    config, state = recorded
    best = state.best()
    assert best is not None
    wanted = to_dict(trial_config(config, best))
    wanted["features"]["engine"] = state.identity.get("features.engine", "tensorflow")  # as they were decided
    wanted["features"]["precision"] = state.identity["features.precision"]
    got = to_dict(compose(shlex.split(real.command)[2:]))
    assert experiment(got) == experiment(wanted)
    assert len(real.command) < 400, "only what differs from conf/"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.classes", {"a": ["angry", "no"], "b c": ["happy"], "x:y,{": ["sad"]}),
        ("data.classes", None),
        ("data.path", "/some where/it's.zip"),
        ("data.path", "back\\slash\\"),
        ("data.path", "1e5"),
        ("data.clean", ["constant"]),
        ("backbone.scaling", {"mean": 1.5, "scale": 3}),
        ("backbone.layers", ["a, b", "c'd", 'e"f', "07", "1:2"]),
        ("training.deterministic", True),
        ("head.l2", 1e-7),
    ],
)
def test_any_config_becomes_a_command_that_composes_to_it(path: str, value: Any):
    container = to_dict(compose(["data=demo", "head=conv"]))
    section, key = path.split(".")
    container[section][key] = value
    assert to_dict(compose(shlex.split(train_command(container))[2:])) == container


def test_runs_that_differ_in_their_seed_are_averaged(recorded: tuple[Config, State], real: Written):
    from fer_experiments.tracking import find_runs

    config, state = recorded
    best = state.best()
    assert best is not None
    (other,) = find_runs(store_in(mlruns_dir(config)), {"fer.kind": "train"})
    scores = pd.Series([best.score, other.metrics["final/val_accuracy"]])
    row = real.read.tables["over-seeds"][1]
    assert row[:3] == [str(best.number), "2", f"{scores.mean():.4f} ± {scores.std():.4f}"]


def test_failures_have_their_reasons_and_the_cost_its_numbers(recorded: tuple[Config, State], real: Written):
    _, state = recorded
    failed = next(t for t in state.trials if t.status == "failed")
    assert failed.error in real.read.sections["failures"] and "loss is not a number" in failed.error
    assert "not run again" in real.read.sections["failures"]
    assert (
        "60 training images an epoch" in real.read.sections["cost"] and "trials per hour" in real.read.sections["cost"]
    )


def test_the_page_is_an_artifact_of_the_parent_run(recorded: tuple[Config, State], real: Written, tmp_path: Path):
    from mlflow import MlflowClient

    config, state = recorded
    assert real.path == mlruns_dir(config) / "sweeps" / state.id / "report.html"
    client = MlflowClient(f"sqlite:///{mlruns_dir(config) / 'mlflow.db'}")
    assert Path(client.download_artifacts(state.run_id, "report.html", str(tmp_path))).read_text() == real.html


def test_nothing_is_fetched_and_the_script_is_there_once(real: Written):
    fetching = [(tag, a) for tag, a in real.read.tags if tag in ("link", "img", "iframe", "object") or "src" in a]
    assert not fetching
    assert real.html.count(get_plotlyjs()[:2000]) == 1
    policy = next(a["content"] for _, a in real.read.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'") and "http" not in policy
    assert "@import" not in real.html.partition("</style>")[0]


def test_the_command_line_takes_an_id_a_name_or_nothing_and_imports_no_tensorflow(recorded: tuple[Config, State]):
    config, state = recorded
    program = (
        "import sys; from fer_experiments.cli import main\n"
        f"codes = [main(['report', *more, 'paths.mlruns={mlruns_dir(config)}']) for more in "
        f"([], ['sweep={state.id}'], ['sweep={state.name}'], ['sweep=smal'], ['data.clean=none', 'sweep=x/../y'])]\n"
        "print(codes, sorted({'tensorflow', 'keras', 'keras_tuner'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env={**os.environ}, capture_output=True, text=True)
    path = mlruns_dir(config) / "sweeps" / state.id / "report.html"
    assert done.stdout.splitlines() == [str(path)] * 3 + ["[0, 0, 0, 2, 2] []"], done.stderr
    unknown, other = done.stderr.splitlines()
    assert unknown.startswith("fer report: sweep=smal: no such sweep in ") and "did you mean small" in unknown
    assert other.endswith(f"there are {state.id}")


def test_the_last_active_sweep_of_a_name_is_taken(tmp_path: Path):
    own = f"-{digest_of({})}"
    names = [(f"quick-er{own}", "quick-er"), (f"quick{own}", "quick"), (f"quick{own}-2", "quick")]
    for place, (identity, name) in enumerate(names):
        State(identity, name, {}).save(tmp_path / identity)
        file = tmp_path / identity / "state.json"
        file.write_text(file.read_text().replace('"updated": "2', f'"updated": "{9 - place}'))
    assert find_sweep(tmp_path, "quick")[0].id == f"quick{own}"
    assert find_sweep(tmp_path, f"quick{own}-2")[0].id == f"quick{own}-2"
    assert find_sweep(tmp_path)[0].id == f"quick-er{own}"
    with pytest.raises(UserError, match=r"sweep=quick-e: no such sweep .* did you mean"):
        find_sweep(tmp_path, "quick-e")
    with pytest.raises(UserError, match=r"no sweeps in .*/none; `\S*fer sweep paths\.mlruns=\S+` starts one"):
        find_sweep(tmp_path / "none")


def test_a_store_without_the_run_is_named(recorded: tuple[Config, State], tmp_path: Path):
    config, state = recorded
    elsewhere = replace(config, tracking=replace(config.tracking, uri=f"sqlite:///{tmp_path}/other.db"))
    with pytest.raises(UserError, match=r"other\.db: nothing is recorded there yet; .* tracking\.uri= and"):
        write_report(elsewhere, state.id)
    connect(elsewhere)
    with pytest.raises(UserError, match=rf"sweep {state.id}: its run {state.run_id} is not in sqlite.*tracking.uri="):
        write_report(elsewhere, state.id)


def test_a_sweep_ends_with_its_report(recorded: tuple[Config, State], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, state = recorded
    path = mlruns_dir(config) / "sweeps" / state.id / "report.html"
    path.unlink(missing_ok=True)
    said: list[str] = []
    monkeypatch.chdir(path.parents[3])
    sweep(config, said.append)
    assert said[-1] == f"  see what it found     mlruns/sweeps/{state.id}/report.html"
    assert "ended by" in Read(path.read_text()).sections["header"]
    client = client_of(connect(config))
    assert Path(client.download_artifacts(state.run_id, "report.html", str(tmp_path))).read_text() == path.read_text()


def test_a_report_that_cannot_be_written_fails_no_sweep(recorded: tuple[Config, State]):
    config, state = recorded
    path = mlruns_dir(config) / "sweeps" / state.id / "report.html"
    path.unlink(missing_ok=True)
    path.mkdir()
    said: list[str] = []
    try:
        sweep(config, said.append)
    finally:
        path.rmdir()
    assert said[-1].startswith(f"sweep {state.id}: no report (IsADirectoryError: ") and "\n" not in said[-1]
    assert f"fer report sweep={state.id} paths.mlruns=" in said[-1] and said[-1].endswith("` writes it")


def test_a_sweep_that_is_stopped_in_its_report_is_finished(
    recorded: tuple[Config, State], monkeypatch: pytest.MonkeyPatch
):
    config, state = recorded
    monkeypatch.setattr("fer_experiments.report.report.page", lambda record: sys.exit(143))
    with pytest.raises(SystemExit):
        sweep(config, lambda line: None)
    kept = load_state(mlruns_dir(config) / "sweeps" / state.id)
    assert kept is not None and kept.status == "finished"


def test_a_running_sweep_is_shown_as_far_as_it_is(recorded: tuple[Config, State]):
    config, state = recorded
    folder = mlruns_dir(config) / "sweeps" / state.id
    kept = (folder / "state.json").read_bytes()
    try:
        early = replace(state, status="running", trials=state.trials[:1], order=[0])
        early.trials = [replace(state.trials[0], status="asked", score=None)]
        early.save(folder)
        with only_one(folder, state.id):
            running = Read(write_report(config, state.id).read_text())
        stopped = Read(write_report(config, state.id).read_text())
    finally:
        (folder / "state.json").write_bytes(kept)
    assert "running, 1 in flight" in running.sections["header"]
    assert "stopped before its end" in stopped.sections["header"]
    assert "No trial has finished yet" in running.sections["best"] and "in flight" in running.sections["failures"]


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([], {"leaderboard": "No trial has ended yet", "objective": "No trial has ended yet"}),
        ([trial(0, "failed")], {"best": "No trial has finished", "slices": "No trial has a score", "failures": EVIL}),
        ([trial(0, "pruned"), trial(1, "failed")], {"best": "No trial has finished", "failures": "pruned"}),
        ([trial(0, raw={"tuner/initial_epoch": 2})], {"best": "Hyperband went on from an earlier trial's weights"}),
        ([trial(0), trial(1, "repeated", of=0)], {"importances": "It takes 4 trials", "failures": "repeated"}),
        ([trial(n, ["finished", "failed", "pruned", "asked"][n % 4]) for n in range(12)], {"failures": "in flight"}),
    ],
)
def test_sweeps_with_little_in_them_have_a_page(trials: list[dict[str, Any]], expected: dict[str, str]):
    read = Read(page(made_up(trials, oracle="hyperband", status="stopped")))
    assert [a["id"] for tag, a in read.tags if tag == "section"] == list(PARTS)
    for part, text in expected.items():
        assert text in read.sections[part], part


def hostile() -> Record:
    trials = [trial(n, "failed" if n == 4 else "finished") for n in range(9)]
    history = pd.DataFrame({"epoch": [0, 1], "val/accuracy": [0.4, 0.5], "val/loss": [1.0, 0.9]})
    return made_up(
        trials,
        counts=pd.DataFrame({"split": ["train"], EVIL: [5]}),
        curves={0: history, 1: history},
        matrices={n: ([EVIL, "happy"], [[3, 1], [0, n]]) for n in range(3)},
        times={n: (n / 10, n / 10 + 0.05) for n in range(9)},
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


def test_an_absent_value_lies_below_what_the_space_allows_and_is_named():
    numbers = scale_of("head.l2", SPACE["head.l2"], [1e-3, None])
    assert numbers.at[1] < numbers.at[0] and numbers.low <= numbers.at[1] < -6
    assert numbers.ticks[numbers.at[1]] == "absent" and len(numbers.ticks) > 3
    linear = scale_of("head.dropout", {"type": "float", "min": 0.2, "max": 0.6}, [None, 0.4])
    assert linear.ticks[linear.at[0]] == "absent" and {"0.2", "0.6"} <= set(linear.ticks.values())
    widths = scale_of("w", SPACE["head.dense_widths"], [[128, 64], None])
    assert widths.ticks[widths.at[1]] == "absent" and widths.at[1] < min(p for p in widths.ticks if p != widths.at[1])


def test_a_scale_spans_the_space_and_names_its_values():
    log = scale_of("head.l2", SPACE["head.l2"], [1e-3, 1e-1])
    assert log.at == pytest.approx([-3, -1]) and (log.low, log.high) == pytest.approx((-6, -1))
    assert list(log.ticks.values()) == ["1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1"]
    narrow = scale_of("a", {"type": "float", "min": 2e-4, "max": 5e-3, "sampling": "log"}, [])
    assert list(narrow.ticks.values()) == ["0.0002", "0.0005", "0.001", "0.002", "0.005"]
    widths = scale_of("w", SPACE["head.dense_widths"], [[128, 64], []])
    assert widths.at == [2, 0] and widths.ticks == {0: "[]", 1: "[32]", 2: "[128, 64]"}


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The hostile sweep's page, opened from disk without a network."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(hostile()))
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


def test_the_page_renders_without_errors_or_requests(opened: Any):
    charts = opened.eval_on_selector_all(".js-plotly-plot", "all => all.map(one => one.id)")
    assert charts == [
        f"{n}-chart" for n in ("objective", "coordinates", "importances", "slices", "curves", "confusion")
    ]
    assert opened.locator("#objective-chart .scatterlayer .point").count() >= 9
    assert not opened.said
    assert all(url.startswith(("file:", "data:", "blob:")) for url in opened.asked) and len(opened.asked) == 1
    assert opened.evaluate("window.hacked") is None


def test_a_click_on_a_header_sorts_the_rows_by_number_and_back(opened: Any):
    column = "rows => rows.map(row => row.cells[3].dataset.value)"
    header = opened.locator("#trials th", has_text="head.l2")
    header.locator("button").click()
    values = [float(v) for v in opened.eval_on_selector_all("#trials tbody tr", column)]
    assert len(values) == 9 and values == sorted(values) and header.get_attribute("aria-sort") == "ascending"
    header.locator("button").focus()
    opened.keyboard.press("Enter")
    values = [float(v) for v in opened.eval_on_selector_all("#trials tbody tr", column)]
    assert values == sorted(values, reverse=True) and header.get_attribute("aria-sort") == "descending"
    opened.locator("#trials th", has_text="final/val_accuracy").locator("button").click()
    failed = "rows => rows.map(row => row.cells[2].textContent)"
    assert opened.eval_on_selector_all("#trials tbody tr", failed)[-1] == "", "the failed trial stays last"


def test_a_drag_along_an_axis_selects_trials_and_rows(opened: Any):
    axis = opened.locator("#coordinates-chart .axis-brush").first
    axis.scroll_into_view_if_needed()
    box = axis.bounding_box()
    x = box["x"] + box["width"] / 2
    opened.mouse.move(x, box["y"] + 0.15 * box["height"])
    opened.mouse.down()
    opened.mouse.move(x, box["y"] + 0.3 * box["height"], steps=5)
    opened.mouse.up()
    brushed = "document.getElementById('coordinates-chart').data[0].dimensions[0].constraintrange"
    opened.wait_for_function(f"{brushed} !== undefined")
    low, high = opened.evaluate(brushed)
    assert -6 <= low < high <= -1
    inside = {str(n) for n in range(9) if n != 4 and low <= -(1 + n / 10) <= high}
    shown = opened.eval_on_selector_all(
        "#trials tbody tr", "rows => rows.filter(row => !row.hidden).map(row => row.cells[1].dataset.value)"
    )
    assert set(shown) == inside and 0 < len(inside) < 8
    assert f"{len(inside)} of 8 trials selected" in opened.inner_text("#selected")
