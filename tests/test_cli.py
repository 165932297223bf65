"""The `fer` command as it is typed: real subprocesses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VERBS = ("data", "download", "features", "train", "sweep", "pretrain", "doctor")


def fer(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    if "FER2013" not in environment:
        env.pop("FER2013", None)
    return subprocess.run(
        [sys.executable, "-m", "fer_experiments.cli", *arguments], cwd=ROOT, env=env, capture_output=True, text=True
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line a mistake ends in."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


def test_help_names_every_verb():
    done = fer("--help")
    assert done.returncode == 0 and all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb: str):
    done = fer(verb, "--help")
    assert done.returncode == 0 and f"fer {verb}" in done.stdout and "key=value" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "head.l3=1"], "fer train: head.l3: no such config path; did you mean head.l2"),
        (["train", "--frobnicate"], "fer train: --frobnicate: no such option"),
        (["sweep", "sweep=quick", "sweep.oracle=astrology"], "choose one of random, bayesian, tpe, hyperband, grid"),
        (["data", "data.path=no/such/file.zip"], "no/such/file.zip"),
        (["features", "data=demo", "backbone=keras_file"], "backbone.weights"),
        (["train", "data=fer2013"], "make data"),
        (["train", "data=demo", "backbone=pocket", "backbone.pooling=avg"], "head=paper needs a spatial map"),
    ],
)
def test_a_mistake_ends_in_one_line_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path):
    place = [f"paths.mlruns={tmp_path}/mlruns", f"paths.cache={tmp_path}/cache", "tracking.system_metrics=false"]
    smoke = ["training.smoke=true"] if arguments[0] == "train" else []
    assert message in refused(fer(*arguments, *smoke, *place))


def test_a_config_mistake_imports_nothing_heavy():
    program = (
        "import sys; from fer_experiments.cli import main; code = main(['train', 'head.l3=1']); "
        "heavy = {'tensorflow', 'keras', 'mlflow', 'matplotlib', 'sklearn'} & set(sys.modules); "
        "print(code, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "2 []"


def test_a_read_only_mlruns_is_named(tmp_path: Path):
    (tmp_path / "mlruns").write_text("a file where a folder should be")
    done = fer(
        "train", "data=demo", "backbone=pocket", "head=linear", "training.smoke=true", f"paths.mlruns={tmp_path}/mlruns"
    )
    assert "mlruns" in refused(done) and "paths.mlruns" in done.stderr


def test_data_prints_the_table_and_writes_a_sheet(tmp_path: Path):
    done = fer("data", "data=demo", "data.demo_size=500", f"paths.cache={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "negative" in done.stdout and "fingerprint" in done.stdout
    assert len(list((tmp_path / "data").glob("*.png"))) == 1


def test_doctor_reports_on_one_screen(tmp_path: Path):
    done = fer("doctor", f"paths.mlruns={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "Python" in done.stdout and "FER2013" in done.stdout and len(done.stdout.splitlines()) <= 50


def test_multirun_jobs_stand_under_one_parent(tmp_path: Path):
    from fer_experiments.tracking import find_runs

    done = fer(
        *["train", "-m", "data=demo", "backbone=pocket", "head=linear,pooled", "training.smoke=true"],
        *[f"paths.mlruns={tmp_path}/mlruns", f"paths.cache={tmp_path}/cache"],
    )
    assert done.returncode == 0, done.stderr
    runs = find_runs(f"sqlite:///{tmp_path}/mlruns/mlflow.db", "fer/demo", {})
    parents = [r for r in runs if "mlflow.parentRunId" not in r.tags]
    assert len(parents) == 1 and parents[0].tags["fer.multirun"] == "2"
    children = [r for r in runs if r.tags.get("mlflow.parentRunId") == parents[0].run_id]
    assert sorted(r.params["head.name"] for r in children) == ["linear", "pooled"]


def test_pretraining_data_by_a_backbone_that_has_seen_it_is_refused(fer2013_zip: Path, tmp_path: Path):
    done = fer(
        *["train", "data=fer2013", "data.split=stratified", "backbone=pocket", "head=linear", "training.smoke=true"],
        *[f"data.path={fer2013_zip}", f"paths.mlruns={tmp_path}/mlruns", f"paths.cache={tmp_path}/cache"],
    )
    assert "Training" in refused(done) and "pocket" in done.stderr
