"""The store that is connected to: made once among processes, and refused when it cannot be used."""

from __future__ import annotations

import socket
import sqlite3
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from small_runs import FORKSERVER, one_run
from sqlalchemy import event
from sqlalchemy.engine import Engine
from stores import config_in

from fer_experiments import tracking
from fer_experiments.errors import UserError
from fer_experiments.tracking import store as store_module


@pytest.fixture(scope="session")
def raced(tmp_path_factory):
    """A fresh store that four processes have used at once, beside what a killed creation left behind."""
    mlruns = tmp_path_factory.mktemp("raced") / "new folder" / "mlruns"
    mlruns.mkdir(parents=True)
    (mlruns / "mlflow.db.new").write_bytes(b"half of a database")
    (mlruns / "mlflow.db.new-journal").write_bytes(b"its journal")
    with ProcessPoolExecutor(4, mp_context=FORKSERVER) as pool:
        stores = list(pool.map(tracking.connect, [config_in(mlruns)] * 4))
        runs = list(pool.map(one_run, stores))
    return mlruns, stores, runs


def test_four_processes_may_use_a_fresh_store_at_once(raced):
    mlruns, stores, runs = raced
    assert {store.uri for store in stores} == {f"sqlite:///{mlruns}/mlflow.db"}
    found = tracking.find_runs(stores[0])
    assert {r.run_id for r in found} == set(runs)
    assert {r.status for r in found} == {"FINISHED"}


def test_a_database_left_half_made_is_made_again(raced):
    assert not list(raced[0].glob("mlflow.db.new*"))


def test_a_store_waits_for_the_disk_but_while_it_is_made(tmp_path, migrating, monkeypatch):
    monkeypatch.setattr(tracking.sqlite, "create", migrating)
    levels: list[tuple[str, int]] = []

    def committing(connection):
        opened = connection.connection.dbapi_connection
        if isinstance(opened, sqlite3.Connection):
            name = Path(opened.execute("PRAGMA database_list").fetchone()[2]).name
            levels.append((name, opened.execute("PRAGMA synchronous").fetchone()[0]))

    event.listen(Engine, "commit", committing)
    try:
        (tmp_path / "link").symlink_to(tmp_path)
        one_run(tracking.connect(config_in(tmp_path / "link")))
    finally:
        event.remove(Engine, "commit", committing)
    assert {level for name, level in levels if name == "mlflow.db.new"} == {0}
    assert {level for name, level in levels if name == "mlflow.db"} == {2}


def test_connecting_twice_keeps_what_is_recorded(store, mlruns):
    run_id = one_run(store)
    assert tracking.connect(config_in(mlruns)) == store
    assert [r.run_id for r in tracking.find_runs(store)] == [run_id]
    assert "1 runs" in tracking.describe(config_in(mlruns))  # MLflow would keep a file open that was replaced


def test_a_relative_uri_does_not_follow_the_working_folder(tmp_path, mlruns, monkeypatch):
    monkeypatch.chdir(mlruns)
    store = tracking.connect(config_in(mlruns, "sqlite:///mlflow.db"))
    monkeypatch.chdir(tmp_path)
    one_run(store)
    assert store.uri == f"sqlite:///{mlruns}/mlflow.db"
    assert not (tmp_path / "mlflow.db").exists()


def test_other_stores_are_passed_through(tmp_path):
    uri = "databricks://profile"
    assert tracking.connect(config_in(tmp_path, uri)).uri == uri


@contextmanager
def hanging_up():
    """The address of what takes every connection and ends it at once, and the connections that it has taken."""
    asked = []

    def hang_up():
        with suppress(OSError):
            while True:
                asked.append(listener.accept()[0])
                asked[-1].close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=hang_up, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", asked


@pytest.mark.parametrize("options", ["", "?password=hunter2"])
def test_a_database_that_does_not_answer_is_asked_once(options, tmp_path):
    """MLflow's own retries take minutes, and say nothing."""
    pytest.importorskip("psycopg2")
    with hanging_up() as (place, asked):
        uri = f"postgresql+psycopg2://me:hunter2@{place}/db{options}"
        with pytest.raises(UserError, match=r"me:\*\*\*@127[^ ]*: the database does not take us \(") as refused:
            tracking.connect_existing(config_in(tmp_path, uri))
        assert asked and "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("postgresql://me:hunter2@host/db", "postgresql://me:***@host/db: SQLAlchemy takes it for psycopg 3"),
        ("http://me:hunter2@host", "http://me:***@host: a server learns who we are by MLFLOW_TRACKING_USERNAME"),
        ("mysql+none://me:hunter2@host/db", "mysql+none://me:***@host/db: the database does not take us (Can't load"),
        ("http://127.0.0.1:port", "http://127.0.0.1:port: no server answers (nonnumeric port"),
    ],
)
def test_an_address_that_cannot_be_used_is_said_without_its_password(uri, said, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "find_spec", lambda name: None)  # whether psycopg 3 is installed or not
    with pytest.raises(UserError) as refused:
        tracking.connect(config_in(tmp_path, uri))
    assert str(refused.value).startswith(f"tracking.uri={said}") and "hunter2" not in str(refused.value)


def test_mlruns_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "mlruns").write_text("")
    with pytest.raises(UserError, match=r"mlruns: cannot be written \(File exists\); .*paths\.mlruns="):
        tracking.connect(config_in(tmp_path / "mlruns"))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that even root cannot write: Linux's /proc")
def test_read_only_mlruns_is_refused():
    with pytest.raises(UserError, match=r"^/proc/\d+: cannot be written \([^\n]+\); [^\n]+$"):
        tracking.connect(config_in(Path("/proc/self")))


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at" * 50)
    with pytest.raises(UserError, match=r"mlflow\.db: is no SQLite database \(file is not a database\); move it away"):
        tracking.connect(config_in(tmp_path))


def test_a_store_of_another_mlflow_is_refused_with_the_remedy(mlruns):
    import sqlite3

    with sqlite3.connect(mlruns / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(UserError, match=r"another version of MLflow made it; .*mlflow db upgrade sqlite:///"):
        tracking.connect(config_in(mlruns))


def test_what_mlflow_stumbles_over_is_named_as_what_it_is(mlruns, monkeypatch):
    def stumble(store):
        raise DeprecationWarning("an option\nand more")

    monkeypatch.setattr(store_module, "client_of", stumble)
    with pytest.raises(UserError, match=r"mlflow\.db: MLflow cannot open it \(DeprecationWarning: an option\)$"):
        tracking.connect(config_in(mlruns))


def test_a_database_in_use_is_named_as_that(mlruns, monkeypatch):
    import sqlite3
    from contextlib import closing

    connection = store_module.sqlite.connection
    monkeypatch.setattr(store_module.sqlite, "WAIT_S", 0.01)
    with closing(sqlite3.connect(mlruns / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match=r"mlflow\.db: is in use by another process \(database is locked\)"):
            tracking.connect(config_in(mlruns))
    with connection(mlruns / "mlflow.db") as opened:
        assert opened.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_does_not_answer_is_asked_once(tmp_path):
    """MLflow's own retries take minutes."""
    with hanging_up() as (place, asked):
        with pytest.raises(UserError, match=rf"tracking\.uri=http://{place}: no server answers"):
            tracking.connect(config_in(tmp_path, f"http://{place}"))
        assert len(asked) == 1


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns"])
def test_a_folder_is_no_store(uri, tmp_path):
    with pytest.raises(UserError, match="not a store"):
        tracking.connect(config_in(tmp_path, uri))


def test_a_store_is_described_without_being_created(mlruns, store, tmp_path):
    one_run(store)
    assert tracking.describe(config_in(mlruns)) == f"{store.uri}: 2 experiments, 1 runs"  # MLflow makes a first itself
    assert "not there yet" in tracking.describe(config_in(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    database = "postgresql+psycopg2://me:{}@host/db"
    assert tracking.describe(config_in(tmp_path, database.format("hunter2"))) == database.format("***")
