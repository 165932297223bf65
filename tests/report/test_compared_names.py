"""What the words of a comparison name, and damaged records of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from stores import config_in
from test_report_page import made_up, trial

from fer_experiments import tracking
from fer_experiments.config import Config
from fer_experiments.errors import UserError
from fer_experiments.report.entries import entries
from fer_experiments.report.report import write_report
from fer_experiments.search.state import digest_of
from fer_experiments.tracking import Store, models


class Named(NamedTuple):
    """A store, and the trial of each sweep in it."""

    config: Config
    store: Store
    runs: dict[str, str]


SWEEPS = ("fer-tuned", "published", "vggnet_2021", "fer-demo")


@pytest.fixture
def named(tmp_path: Path) -> Named:
    config = config_in(tmp_path, task="demo")
    store, runs = tracking.connect(config), {}
    for name in SWEEPS:
        runs[name] = log_run(store, name)
        sweep_of(tmp_path, name, runs[name])
    models.add_version(store, "fer-demo", runs["fer-demo"], {}, {}, "")
    return Named(config, store, runs)


def log_run(store: Store, name: str) -> str:
    with tracking.start_run(store, "trial", name, system_metrics=False) as run:
        run.log_metrics({"final/val_accuracy": 0.5})
    return run.id


def sweep_of(mlruns: Path, name: str, run_id: str, parent: str | None = None) -> str:
    made = made_up([trial(0)], space={"head.l2": {"type": "float", "min": 1e-5, "max": 1.0}}).state
    values = {"head.l2": 0.5}
    sweep_id = f"{name}-{digest_of(made.identity)}"
    state = replace(
        made,
        id=sweep_id,
        name=name,
        run_id=parent,
        trials=[replace(made.trials[0], run_id=run_id, values=values, raw=values)],
    )
    state.save(mlruns / "sweeps" / sweep_id)
    return sweep_id


def test_a_run_is_one_row_however_often_it_is_named(named: Named):
    run_id = named.runs["fer-demo"]
    sweep_id = next(folder.name for folder in (named.store.mlruns / "sweeps").glob("fer-demo-*"))
    rows = entries(named.config, [run_id, "fer-tuned", sweep_id, "fer-demo/1", "paper_system", run_id])
    assert [row.source for row in rows][:2] == [run_id, named.runs["fer-tuned"]] and len(rows) == 3


def test_a_sweep_may_be_called_as_models_are(named: Named):
    (row,) = entries(named.config, ["fer-tuned"])
    assert row.source == named.runs["fer-tuned"] and row.name.startswith("fer-tuned-")


@pytest.mark.parametrize(
    "word",
    [
        "",
        "/",
        "/fer-demo",
        "fer-demo/",
        "../fer-demo",
        "fer-*",
        "fer-tuned-[0-9]",
        "x" * 300,
        "fer-a:b/1",
        "fer-demo/a/b",
        "fer-demo/latest:1",
        "fer-demo/%",
    ],
)
def test_odd_words_name_nothing(named: Named, word: str):
    with pytest.raises(UserError, match=re.escape(word or "sweep=:")):
        entries(named.config, [word])


@pytest.mark.parametrize(
    ("name", "other"),
    [("published", "published systems"), ("vggnet_2021", "a published system"), ("fer-demo", "a registered model")],
)
def test_what_two_things_are_called_is_refused_and_a_sweeps_id_is_not(named: Named, name: str, other: str):
    with pytest.raises(UserError, match=f"^{name}: {other} and a sweep of that name; say the sweep's id"):
        entries(named.config, [name])
    (folder,) = (named.store.mlruns / "sweeps").glob(f"{name}-*")
    assert entries(named.config, [folder.name])[0].source == named.runs[name]


def test_all_published_systems_may_be_named_beside_a_sweep_called_as_one_of_them(named: Named):
    (folder,) = (named.store.mlruns / "sweeps").glob("published-*")
    (folder / "state.json").unlink()
    folder.rmdir()
    assert len(entries(named.config, ["published"])) > 1


@pytest.mark.parametrize("text", ["[1]", '{"classes": 3}', '"a"', "null", '{"classes": [1]}', "[" * 100_000])
def test_a_record_that_is_not_what_was_written_is_a_line(named: Named, text: str, capsys: pytest.CaptureFixture[str]):
    run_id = named.runs["fer-tuned"]
    for name in ("metrics/confusion_matrix.json", "environment/hardware.json"):
        tracking.Run(named.store, run_id).log_text(text, name)
    tracking.Run(named.store, run_id).log_text("a\n1\n", "metrics/history.csv")
    (row,) = entries(named.config, [run_id])
    assert row.classes is row.hardware is None
    said = capsys.readouterr().err
    assert said.count(f"run {run_id}: metrics/confusion_matrix.json cannot be read (") == 1
    assert said.count("cannot be read") == 2


def test_pages_of_sweeps_whose_names_are_long_have_names_that_files_may_have(tmp_path: Path):
    config = config_in(tmp_path, task="demo")
    store = tracking.connect(config)
    ids = []
    for letter in "abc":
        with tracking.start_run(store, "sweep", letter, system_metrics=False) as run:
            pass
        ids.append(sweep_of(tmp_path, letter * 100, log_run(store, letter), run.id))
    path = write_report(config, ",".join(ids))
    assert path.is_file() and len(path.name) < 255
