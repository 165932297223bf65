"""Reports of a real small sweep; read by a parser."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from parsed_page import Read
from plotly.offline import get_plotlyjs
from stores import store_in

from fer_experiments import tracking
from fer_experiments.config import Config, experiment, mlruns_dir, to_dict
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.report.page import PARTS
from fer_experiments.report.record import read_record
from fer_experiments.report.report import write_report
from fer_experiments.report.sweep import sweep
from fer_experiments.search.recorded import find_sweep
from fer_experiments.search.state import State, digest_of, load_state, only_one
from fer_experiments.tracking import connect
from fer_experiments.tracking.store import client_of

ROOT = Path(__file__).resolve().parents[2]


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
    wanted["training"]["precision"] = state.identity["training.precision"]
    got = to_dict(compose(shlex.split(real.command)[2:]))
    assert experiment(got) == experiment(wanted)
    assert got["paths"] == wanted["paths"], "beside the sweep, where the report looks for it"
    assert len(real.command) < 400, "only what differs from conf/"


def test_runs_that_differ_in_their_seed_are_averaged(recorded: tuple[Config, State], real: Written):
    from fer_experiments.tracking import find_runs

    config, state = recorded
    best = state.best()
    assert best is not None
    (other,) = find_runs(store_in(mlruns_dir(config)), {"fer.kind": "train"})
    scores = pd.Series([best.score, other.metrics["final/val_accuracy"]])
    row = real.read.tables["over-seeds"][1]
    assert row[:3] == [str(best.number), "2", f"{scores.mean():.4f} ± {scores.std():.4f}"]


def test_a_mean_over_fits_is_no_fit_of_one_seed(recorded: tuple[Config, State]):
    config, state = recorded
    best, store = state.best(), store_in(mlruns_dir(config))
    assert best is not None
    assert len(read_record(state, mlruns_dir(config) / "sweeps" / state.id, store).seeds) == 1
    several = replace(best, scores=[best.score - 0.1, best.score + 0.1])  # type: ignore[operator]
    others = [several if trial is best else trial for trial in state.trials]
    found = read_record(replace(state, trials=others), mlruns_dir(config) / "sweeps" / state.id, store)
    assert found.seeds.empty


def test_a_config_that_is_damaged_is_a_line_and_the_page_is_made(
    recorded: tuple[Config, State], capsys: pytest.CaptureFixture[str]
):
    config, state = recorded
    best, store = state.best(), store_in(mlruns_dir(config))
    assert best is not None and best.run_id is not None
    text = tracking.artifact_text(store, best.run_id, "config.yaml")
    assert text is not None
    run = tracking.Run(store, best.run_id)
    run.log_text(text[:40] + "\nx: [", "config.yaml")
    found = read_record(state, mlruns_dir(config) / "sweeps" / state.id, store)
    run.log_text(text, "config.yaml")
    assert found.best_config is None
    assert capsys.readouterr().err.startswith(f"run {best.run_id}: config.yaml cannot be read (")


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


def test_two_sweeps_go_side_by_side_in_one_page(recorded: tuple[Config, State], tmp_path: Path):
    from fer_experiments.search.sweep import run_sweep

    config, state = recorded
    assert config.sweep is not None
    other = run_sweep(replace(config, sweep=replace(config.sweep, oracle="random", max_trials=1)), lambda line: None)
    path = write_report(config, f"{state.id},{other.id}")
    assert path == mlruns_dir(config) / "sweeps" / state.id / f"report-with-{other.id}.html"
    head, *rows = Read(path.read_text()).tables["differences 1"]
    assert head == ["", state.id, other.id] and ["sweep.oracle", "grid", "random"] in rows
    client = client_of(connect(config))
    logged = client.download_artifacts(state.run_id, path.name, str(tmp_path))
    assert Path(logged).read_bytes() == path.read_bytes()


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
        early = replace(state, status="running", reason=None, trials=state.trials[:1], order=[0])
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
