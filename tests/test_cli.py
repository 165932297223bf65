"""The `fer` command in processes of its own: as it is typed where that is what matters, else forked."""

from __future__ import annotations

import inspect
import os
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from face_files import random_faces, tree, write_zip
from forked import run as fer
from stores import store_in

from fer_experiments.cli import VERBS, main
from fer_experiments.config.compose import compose
from fer_experiments.experiment.look import show_data
from fer_experiments.files import write_atomically
from fer_experiments.search.space import ORACLES

ROOT = Path(__file__).resolve().parents[1]


def typed(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fer_experiments.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line a mistake ends in."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


def test_help_names_every_verb():
    done = typed("--help")
    assert done.returncode == 0 and all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    said = capsys.readouterr().out
    assert VERBS[verb].example in said and "key=value" in said


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_room_that_takes_its_arguments(verb: str):
    module, _, function = VERBS[verb].room.partition(":")
    takes = inspect.signature(getattr(import_module(f"fer_experiments.{module}"), function)).parameters
    assert list(takes)[: verb != "download"] == ["config"][: verb != "download"]
    assert {*VERBS[verb].own.values()} <= set(takes)


@pytest.mark.parametrize("verb", sorted({*VERBS} - {"download"}))
def test_every_verb_names_what_is_mistyped_before_it_begins(verb: str, capsys: pytest.CaptureFixture[str]):
    own = [f"{key}=x" for key in VERBS[verb].own if key not in ("run", "port")]
    assert main([verb, *own, "head.l3=1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"fer {verb}: head.l3: no such config path; did you mean head.l2") and said.count("\n") == 1


@pytest.mark.parametrize("verb", sorted(verb for verb in VERBS if VERBS[verb].own))
def test_an_argument_of_a_verbs_own_has_a_value(verb: str, capsys: pytest.CaptureFixture[str]):
    for key in VERBS[verb].own:
        assert main([verb, f"{key}="]) == 2
        assert f"fer {verb}: {key}=: must not be empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "fer: trian: no such verb; did you mean train"),
        (["=x"], "fer: =x: no such verb"),
        (["train", "–m"], "fer train: –m: no such option (its dash is no hyphen: -m)"),
        (["train", "--config-name=x"], "--config-name=x: no such option"),
        (["train", "-cn", "x"], "-cn: no such option"),
        (["sweep", "--multirun"], "--multirun: no such option"),
        (["train", "--multi"], "--multi: no such option"),
        (["download", "data=demo"], "data=demo: download takes no overrides"),
        (["data", "--", "x"], "x: an override is <key>=<value>"),
        (["data", "--", "-x"], "-x: an override is <key>=<value>"),
        (["train", "data=demo", "data.clean=[scrubbed]"], "data.clean: unknown step 'scrubbed'"),
        (["train", "data=demo", "backbone.scaling=half"], "backbone.scaling=half: choose keras, raw255"),
        (["train", "-m", "training.learning_rate=interval(0,1)"], "not a list of values"),
        (["report", "sweep="], "sweep=: must not be empty"),
        (["export", "format=onnx", "output="], "output=: must not be empty"),
        (["export", "format=onnx"], "fer export: say format=<one of "),
        (["serve", "port=many"], "fer serve: port=many: must be a number up to 65535"),
        (["serve", "prot=1"], "fer serve: prot=1: no such option; did you mean port"),
        (["ui", "prot=3"], "fer ui: prot=3: no such option; did you mean port?"),
        (["promote", "sweep=a", "run=b"], "fer promote: sweep= and run=: say one of them"),
        (["promote", "run=a", "run=b"], "fer promote: run= and run=: say one of them"),
        (["seeds", "run=a", "n=2", "n=3"], "fer seeds: n= and n=: say one of them"),
        (["serve", "version=1", "version=2"], "fer serve: version= and version=: say one of them"),
        (["serve", f"port={'9' * 5000}"], "must be a number up to 65535"),
        (["doctor", ""], 'fer doctor: "": a word must not be empty'),
        (["predict", ""], 'fer predict: "": a word must not be empty'),
        (["predict", "--json", "--", ""], 'fer predict: "": a word must not be empty'),
        (["predict"], "nothing to predict"),
        (["predict", "-x.png"], "-x.png: no such option; pictures of such names go after --"),
        (["predict", "--", "-x.png"], "-x.png: no such file or folder"),
        (["predict", "c=d.png"], "c=d.png: no such file or folder"),
        (["predict", "tracking.urj=x"], "tracking.urj: no such config path; did you mean tracking.uri"),
    ],
)
def test_what_is_mistyped_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


@pytest.mark.parametrize("arguments", [["doctor"], ["sweeps"], ["predict", "a.png"]])
def test_a_folder_that_is_gone_is_said_in_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(arguments) == 2
    said = f"fer {arguments[0]}: the folder that this runs in is gone; change to another\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "head.l3=1"], "fer train: head.l3: no such config path; did you mean head.l2"),
        (["train", "--frobnicate"], "fer train: --frobnicate: no such option"),
        (["sweep", "sweep=quick", "sweep.oracle=astrology"], f"choose one of {', '.join(ORACLES)}"),
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


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "data=demo", "sweep.max_trials=3"],
        ["train", "data=demo", "pretrain.epochs=3"],
        ["train", "data=demo", "head.l3=1"],
        ["train", "data=demo", "+note=x"],
        ["train", "data=demo", "head.l2=-1"],
    ],
)
def test_a_mistake_is_one_without_assertions_too(arguments: list[str]):
    command = [sys.executable, "-O", "-m", "fer_experiments.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    key = arguments[-1].lstrip("+").partition("=")[0]
    assert refused(done).startswith(f"fer train: {key}")


def test_warnings_filters_and_the_terminals_encoding_change_nothing(tmp_path: Path):
    faces = tmp_path / "gesichter-ä"
    arguments = ["data", "data=demo", "data.demo_size=300", f"paths.cache={faces}"]
    plain = typed(*arguments)
    strict = typed(*arguments, PYTHONWARNINGS="error", PYTHONIOENCODING="ascii")
    posix = typed(*arguments, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (plain.returncode, strict.returncode, posix.returncode) == (0, 0, 0), strict.stderr + posix.stderr
    assert "gesichter-ä" in plain.stdout and "gesichter-\\xe4" in strict.stdout
    assert posix.stdout == plain.stdout and strict.stdout == plain.stdout.replace("ä", "\\xe4")
    assert [folder.name for folder in tmp_path.iterdir()] == ["gesichter-ä"]


def test_a_file_in_utf8_is_read_whatever_the_locale(tmp_path: Path):
    path = tmp_path / "ä.yaml"
    path.write_text("data: {task: gesichter-ä}\n", encoding="utf-8")
    done = typed(
        "data", f"experiment={path}", "data.path=nowhere-ä", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
    )
    assert "nowhere-ä: no such file" in refused(done)


def test_what_does_not_fit_on_the_disk_is_named_and_not_half_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = compose(["data=demo", "data.demo_size=300", f"paths.cache={tmp_path}"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        show_data(config)
        with pytest.raises(OSError, match="File too large") as caught:
            write_atomically(tmp_path / "a.bin", lambda file: file.write(bytes(9000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"sample faces: not written, {tmp_path}/data: File too large" in capsys.readouterr().out
    assert caught.value.filename == str(tmp_path / "a.bin")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} <= {"lock"}


def test_data_are_shown_where_the_cache_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("where a folder should be")
    done = fer("data", "data=demo", "data.demo_size=300", f"paths.cache={tmp_path}/file/cache")
    assert done.returncode == 0, done.stderr  # it looks, and needs no right to write
    assert f"sample faces: not written, {tmp_path}/file/cache/data: Not a directory" in done.stdout


def test_a_config_mistake_imports_nothing_heavy():
    program = (
        "import sys; from fer_experiments.cli import main; code = main(['train', 'head.l3=1']); "
        "heavy = {'tensorflow', 'keras', 'mlflow', 'matplotlib', 'sklearn'} & set(sys.modules); "
        "print(code, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "2 []"


def test_an_mlruns_that_is_no_folder_is_named(tmp_path: Path):
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
    runs = find_runs(store_in(tmp_path / "mlruns"))
    parents = [r for r in runs if "mlflow.parentRunId" not in r.tags]
    assert len(parents) == 1 and parents[0].tags["fer.multirun"] == "2"
    children = [r for r in runs if r.tags.get("mlflow.parentRunId") == parents[0].run_id]
    assert sorted(r.params["head.name"] for r in children) == ["linear", "pooled"]
    (lock,) = (tmp_path / "mlruns" / "artifacts").rglob("requirements.lock")  # once, not on every job
    assert parents[0].run_id in lock.parts


def test_a_fit_that_comes_to_nothing_fails_its_job_alone(tmp_path: Path):
    from fer_experiments.tracking import find_runs

    done = fer(
        *["train", "-m", "data=demo", "data.demo_size=300", "backbone=pocket", "head=linear"],
        *["training.learning_rate=1e30,1e-3", "training.epochs=2", "tracking.system_metrics=false"],
        *[f"paths.mlruns={tmp_path}/mlruns", f"paths.cache={tmp_path}/cache"],
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1] == "fer train: 1 of 2 jobs failed (1); the others are recorded"
    assert "job 1 failed: the loss is not a number after 1 epochs: try a smaller training.learning_rate" in done.stdout
    runs = find_runs(store_in(tmp_path / "mlruns"))
    ended = {r.params["training.learning_rate"]: r.status for r in runs if "mlflow.parentRunId" in r.tags}
    assert ended == {"1e+30": "FAILED", "0.001": "FINISHED"}


def test_pretraining_data_by_a_backbone_that_has_seen_it_is_refused(tmp_path: Path):
    archive = write_zip(tmp_path / "fer2013.zip", list(tree(random_faces(per_cell=10)).items()))
    done = fer(
        *["train", "data=fer2013", "data.split=stratified", "backbone=pocket", "head=linear", "training.smoke=true"],
        *[f"data.path={archive}", f"paths.mlruns={tmp_path}/mlruns", f"paths.cache={tmp_path}/cache"],
    )
    assert "Training" in refused(done) and "pocket" in done.stderr
