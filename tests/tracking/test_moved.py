"""A store that was moved or copied: what it recorded is found where it is now, and nothing goes to the old place."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from read_only_mount import fer_read_only
from stores import config_in

from fer_experiments import tracking
from fer_experiments.config.commands import override
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.search.state import State, digest_of, only_one
from fer_experiments.tracking import Store, artifact_text, models
from fer_experiments.tracking.store import client_of

EXPERIMENT = "fer/test"


def record(store: Store, text: str) -> str:
    """The id of a new run that has a text and a folder model/, registered as a version."""
    with tracking.start_run(store, "train", text, system_metrics=False) as run:
        run.log_text(text, "note.txt")
        run.log_text(text, "model/MLmodel")
    files = {"MLmodel": hashlib.sha256(text.encode()).hexdigest()}
    models.add_version(store, "fer-demo", run.id, files, {}, "")
    return run.id


def note(store: Store, run_id: str) -> str | None:
    return artifact_text(store, run_id, "note.txt")


def is_whole(store: Store, texts: dict[str, str]) -> None:
    """Asserts that what is recorded is found in this very folder, by us and by MLflow itself."""
    client, mlruns = MlflowClient(store.uri), store.mlruns
    for run_id, text in texts.items():
        assert note(store, run_id) == text
        path = Path(client.download_artifacts(run_id, "note.txt", tempfile.mkdtemp(dir=mlruns.parent)))
        assert path.read_text() == text
        assert client.get_run(run_id).info.artifact_uri.startswith((mlruns / "artifacts").as_uri())
    for version in models.versions(store, "fer-demo"):
        assert models.fetch_model(store, version, mlruns).is_relative_to(mlruns)
        kept = client.get_model_version_download_uri("fer-demo", str(version.number))
        assert kept.startswith((mlruns / "artifacts").as_uri())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store whose folder was moved away from where it was made, and the id of its run."""
    folder = tmp_path_factory.mktemp("made")
    store = tracking.connect(config_in(folder / "mlruns"))
    run_id = record(store, "first")
    return shutil.move(folder / "mlruns", folder / "moved"), run_id


@pytest.fixture
def moved(made: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """A copy of that store, which has not been opened since, in a folder of its own."""
    return shutil.copytree(made[0], tmp_path / "new" / "mlruns"), made[1]


def test_a_moved_store_is_used_where_it_is(made: tuple[Path, str], moved: tuple[Path, str]):
    mlruns, run_id = moved
    store = tracking.connect(config_in(mlruns))
    again = record(store, "second")
    is_whole(store, {run_id: "first", again: "second"})
    assert not (made[0].parent / "mlruns").exists()


def test_who_only_looks_finds_everything_too(moved: tuple[Path, str]):
    store = tracking.connect_existing(config_in(moved[0]))
    is_whole(store, {moved[1]: "first"})


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="/"), max_size=12)
NASTY = st.text(st.sampled_from(" %?#&;:=+'\"\\()[]{}$`!*~@,äß中a2"), max_size=12)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.one_of(NASTY, NAMES).map(lambda text: f"x{text}").filter(lambda text: unquote(text) == text))
def test_a_store_may_be_moved_into_any_folder(made: tuple[Path, str], name: str):
    with tempfile.TemporaryDirectory() as folder:
        mlruns = shutil.copytree(made[0], Path(folder) / name)
        store = tracking.connect(config_in(mlruns))
        again = record(store, "second")
        is_whole(store, {made[1]: "first", again: "second"})
        assert [path.name for path in Path(folder).iterdir() if not path.name.startswith("tmp")] == [name]
        assert compose([override("paths.mlruns", str(mlruns))]).paths.mlruns == str(mlruns)


def test_a_store_may_be_made_in_a_folder_with_signs(tmp_path: Path):
    mlruns = tmp_path / "a b?c#d 100%" / "mlruns"
    store = tracking.connect(config_in(mlruns))
    is_whole(store, {record(store, "first"): "first"})
    assert [path.name for path in tmp_path.iterdir()] == ["a b?c#d 100%"]
    assert "1 runs" in tracking.describe(config_in(mlruns))


def test_a_folder_from_which_mlflow_cannot_load_models_is_refused_at_once(tmp_path: Path):
    with pytest.raises(UserError, match=r"a%20b.*: MLflow cannot load models from a folder with a % escape"):
        tracking.connect(config_in(tmp_path / "a%20b" / "mlruns"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_utf8_is_refused_at_once(tmp_path: Path):
    with pytest.raises(UserError, match="takes no path that is not UTF-8"):
        tracking.connect(config_in(tmp_path / "a\udcff"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["sqlite:///", "sqlite://", "sqlite:///:memory:", "sqlite:////tmp/a.db?timeout=3"])
def test_an_address_of_no_file_is_refused_at_once(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^tracking\.uri=.*: not a SQLite file; say sqlite:///<file>"):
        tracking.connect(config_in(tmp_path / "mlruns", uri))
    assert list(tmp_path.iterdir()) == []


def test_a_given_address_is_read_as_an_address(tmp_path: Path):
    store = tracking.connect(config_in(tmp_path / "mlruns", f"sqlite:///{tmp_path}/a%20b%3F.db"))
    assert (tmp_path / "a b?.db").is_file()
    assert store == tracking.connect(config_in(tmp_path / "mlruns", store.uri))


def test_copies_keep_to_themselves(tmp_path: Path):
    old, new = tmp_path / "old" / "mlruns", tmp_path / "new" / "mlruns"
    first = record(tracking.connect(config_in(old)), "first")
    shutil.copytree(old, new)
    store = tracking.connect(config_in(new))
    before = sorted(old.rglob("*"))
    second = record(store, "second")
    is_whole(store, {first: "first", second: "second"})
    assert sorted(old.rglob("*")) == before
    shutil.rmtree(new)
    is_whole(tracking.connect(config_in(old)), {first: "first"})


def test_a_folder_that_was_moved_back_is_used_there(made: tuple[Path, str], moved: tuple[Path, str], tmp_path: Path):
    mlruns, run_id = moved
    tracking.connect(config_in(mlruns))
    for place in (tmp_path / "third", mlruns):
        shutil.move(mlruns if mlruns.exists() else tmp_path / "third", place)
        is_whole(tracking.connect(config_in(place)), {run_id: "first"})


def test_what_lies_elsewhere_by_choice_stays_there(tmp_path: Path):
    old, new, own = tmp_path / "old", tmp_path / "new", tmp_path / "own place"
    store = tracking.connect(config_in(old))
    client = client_of(store)
    client.create_experiment(EXPERIMENT, own.as_uri())
    client.create_experiment("remote", "s3://bucket/old/artifacts")
    run_id = record(store, "first")
    shutil.move(old, new)
    store = tracking.connect(config_in(new))
    assert note(store, run_id) == "first" and (own / run_id).is_dir()
    places = {e.name: e.artifact_location for e in client_of(store).search_experiments()}
    assert places == {
        "Default": (new / "artifacts" / "0").as_uri(), EXPERIMENT: own.as_uri(), "remote": "s3://bucket/old/artifacts",
    }  # fmt: skip


def test_what_was_left_in_the_old_place_is_found_there(tmp_path: Path):
    """As by a version of this program that did not know of moves, and made the old place anew."""
    old, new = tmp_path / "old", tmp_path / "new"
    store = tracking.connect(config_in(old))
    here, there = record(store, "here"), record(store, "there")
    shutil.copytree(old, new)
    shutil.rmtree(new / "artifacts" / EXPERIMENT / there)
    store = tracking.connect(config_in(new))
    assert (note(store, here), note(store, there)) == ("here", "there")
    shutil.rmtree(old / "artifacts" / EXPERIMENT / here)
    assert note(store, here) == "here"


def test_a_database_that_lies_apart_follows_its_artifacts(tmp_path: Path):
    apart = f"sqlite:///{tmp_path / 'apart.db'}"
    old, new = tmp_path / "old", tmp_path / "new"
    run_id = record(tracking.connect(config_in(old, apart)), "first")
    tracking.connect(config_in(new, apart))  # another folder for new experiments: nothing was moved
    assert note(tracking.connect(config_in(old, apart)), run_id) == "first"
    shutil.rmtree(new)
    shutil.move(old, new)
    is_whole(tracking.connect(config_in(new, apart)), {run_id: "first"})


def test_a_store_that_mlflow_made_is_left_alone(tmp_path: Path):
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path / "gone"))
    store = tracking.connect(config_in(tmp_path))
    assert client_of(store).get_experiment("0").artifact_location == f"{tmp_path / 'gone'}/0"


def test_a_move_is_written_as_a_whole_or_not_at_all(moved: tuple[Path, str]):
    mlruns, run_id = moved
    with sqlite3.connect(mlruns / "mlflow.db") as connection:
        connection.execute("CREATE TRIGGER no BEFORE UPDATE ON model_versions BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(UserError, match=r"mlflow\.db: cannot be used \(no\)"):
        tracking.connect(config_in(mlruns))
    with sqlite3.connect(mlruns / "mlflow.db") as connection:
        (place,) = connection.execute("SELECT artifact_uri FROM runs").fetchone()
        assert str(mlruns) not in place
        connection.execute("DROP TRIGGER no")
    is_whole(tracking.connect(config_in(mlruns)), {run_id: "first"})


def test_a_store_at_work_is_not_changed_under_its_users_hands(moved: tuple[Path, str]):
    """As seen from another mount of the same folder."""
    mlruns, run_id = moved
    with only_one(mlruns / "sweeps" / "quick-1", "quick-1"):
        with pytest.raises(UserError, match=r"it was .*made.*/mlruns before, and sweep quick-1 is at work on it"):
            tracking.connect(config_in(mlruns))
        store = tracking.connect_existing(config_in(mlruns))
        assert note(store, run_id) == "first"
        (version,) = models.versions(store, "fer-demo")
        assert models.fetch_model(store, version, mlruns).is_relative_to(mlruns)
        with sqlite3.connect(mlruns / "mlflow.db") as connection:
            assert str(mlruns) not in connection.execute("SELECT artifact_uri FROM runs").fetchone()[0]
    is_whole(tracking.connect(config_in(mlruns)), {run_id: "first"})


def test_who_only_looks_settles_what_was_moved(moved: tuple[Path, str]):
    mlruns, run_id = moved
    assert tracking.connect_existing(config_in(mlruns)).uri == f"sqlite:///{mlruns}/mlflow.db"
    path = MlflowClient(f"sqlite:///{mlruns / 'mlflow.db'}").get_run(run_id).info.artifact_uri
    assert path.startswith((mlruns / "artifacts").as_uri())


def test_a_moved_store_that_may_only_be_read_is_looked_at(
    made: tuple[Path, str], moved: tuple[Path, str], tmp_path: Path
):
    mlruns, run_id = moved
    identity = {"data.task": "test", "sweep.objective": "final/val_accuracy", "sweep.direction": "max"}
    sweep = mlruns / "sweeps" / f"quick-{digest_of(identity)}"
    State(sweep.name, "quick", identity, run_id=run_id).save(sweep)
    (sweep / "lock").touch()
    before = sorted(mlruns.rglob("*"))
    where = [f"paths.mlruns={mlruns}", f"paths.cache={tmp_path / 'cache'}"]
    for verb, said in (("sweeps", f"{sweep.name}  stopped"), ("models", "fer-demo")):
        done = fer_read_only([mlruns], verb, *where)
        assert done.returncode == 0 and said in done.stdout, done.stderr
    for verb in ("rollback", "promote"):
        done = fer_read_only([mlruns], verb, *where)
        assert done.returncode == 2 and f"{mlruns}: cannot be written (Read-only file system)" in done.stderr
        assert done.stderr.count("\n") == 1
    done = fer_read_only([mlruns], "report", *where, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / sweep.name}.html\n" and (tmp_path / f"{sweep.name}.html").is_file()
    assert f"fer report: not written into {sweep}: Read-only file system" in done.stderr
    assert not (made[0].parent / "mlruns").exists()
    assert sorted(mlruns.rglob("*")) == before


def test_a_checkout_that_was_moved_makes_its_environment_anew(tmp_path: Path):
    """The scripts in .venv/bin name the folder that they were installed in."""
    root, here = Path(__file__).resolve().parents[2], tmp_path / "a b"
    (here / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "requirements-gpu.lock", "pyproject.toml"):
        shutil.copy(root / name, here)
    (here / ".venv" / ".installed").touch()
    for place, anew in (("/elsewhere", True), (here, False)):
        (here / ".venv" / "bin" / "fer").write_text(f"#!/bin/sh\n'''exec' \"{place}/.venv/bin/python\"\n")
        done = subprocess.run(["make", "-n", "setup"], cwd=here, capture_output=True, text=True, check=True)
        assert ("rm -rf .venv" in done.stdout) == anew, done.stdout
