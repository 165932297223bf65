"""`make server`: MLflow on PostgreSQL behind a password, used through fer_experiments.tracking."""

import configparser
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from severed import Severed
from stores import config_in
from tracking_server import PATIENCE, ROOT, Server, needs_postgres, running_server

from fer_experiments import tracking
from fer_experiments.errors import UserError
from fer_experiments.tracking.lifecycle import create_run
from fer_experiments.tracking.store import client_of

pytestmark = [needs_postgres, pytest.mark.usefixtures("passwordless")]

RUNS = 3  # a process
START = [sys.executable, str(ROOT / "server" / "start.py")]


@pytest.fixture(scope="module")
def server():
    with running_server("--workers", "2") as server:
        yield server


@pytest.fixture
def store(server):
    return tracking.connect(config_in(server.mlruns, server.uri, server.credentials))


def start(store, name, config=None):
    return tracking.start_run(store, "trial", name, config, system_metrics=False)


def answer(uri, path, method="GET", body=None):
    """The status of a request without a password."""
    headers = {"Content-Type": "application/json"}
    try:
        request = urllib.request.Request(uri + path, body, headers, method=method)
        return urllib.request.urlopen(request, timeout=300).status
    except urllib.error.HTTPError as error:
        return error.code


# Who may


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/2.0/mlflow/experiments/create"),
        ("POST", "/ajax-api/2.0/mlflow/runs/create"),
        ("POST", "/api/2.0/mlflow/runs/log-batch"),
        ("POST", "/api/2.0/mlflow/users/create"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/x/artifacts/a.txt"),
        ("GET", "/api/2.0/mlflow/experiments/search?max_results=1"),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts"),
        ("POST", "/graphql"),
        ("GET", "/"),
    ],
)
def test_nothing_is_read_or_written_without_a_password(method, path, server):
    assert answer(server.uri, path, method, b"{}" if method != "GET" else None) == 401


def test_no_user_can_be_made_or_overwritten_from_a_wrong_password(server):
    os.environ |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "wrong password"}
    with pytest.raises(UserError, match=r"does not take the password of admin; set MLFLOW_TRACKING_USERNAME and"):
        tracking.connect(config_in(server.mlruns, server.uri, server.credentials))


def test_a_server_that_wants_a_password_is_named_with_the_remedy(server):
    with pytest.raises(UserError, match=r"^[^\n]*wants a user and a password; set [^\n]*tracking\.credentials=[^\n]*$"):
        tracking.connect(config_in(server.mlruns, server.uri))


def test_the_password_is_taken_from_the_file_into_the_environment_of_workers(store, server):
    assert f"MLFLOW_TRACKING_PASSWORD={os.environ['MLFLOW_TRACKING_PASSWORD']}\n" in server.credentials.read_text()


def test_secrets_are_closed_to_others_and_in_no_command_line(server):
    folder = server.mlruns / "server"
    ini = configparser.ConfigParser()
    ini.read(folder / "basic_auth.ini")
    database_password = (folder / "postgres_password").read_text()
    secrets = [ini["mlflow"]["admin_password"], database_password, (folder / "secret_key").read_text()]
    assert all(len(secret) >= 32 for secret in secrets)
    for name in ("credentials", "basic_auth.ini", "postgres_password", "secret_key", "database"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    command_lines = " ".join(" ".join(one.cmdline()) for one in server.family())
    assert "mlflow" in command_lines
    assert not any(secret in command_lines for secret in secrets)


# What is written is there


def write_runs(number, store, password):
    """RUNS runs with a param, 20 epochs of two series and an artifact; their ids."""
    os.environ |= password  # a forkserver has the environment of its first use, by any test
    ids = []
    for index in range(RUNS):
        with start(store, f"p{number} r{index}", {"number": number, "index": index}) as run:
            for epoch in range(20):
                run.log_metrics({"val/loss": 1 / (epoch + 1), "val/accuracy": epoch / 20}, epoch)
            run.log_text(f"{number} {index}", "note.txt")
            ids.append(run.id)
    return ids


def test_eight_processes_write_at_once_and_nothing_is_lost(store, server):
    context = multiprocessing.get_context("forkserver")
    password = {name: os.environ[name] for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")}
    with ProcessPoolExecutor(8, mp_context=context) as pool:
        written = list(pool.map(write_runs, range(8), [store] * 8, [password] * 8))
    found = {run.run_id: run for run in tracking.find_runs(store)}
    assert found.keys() == {run_id for ids in written for run_id in ids}
    assert len(found) == 8 * RUNS
    client = client_of(store)
    for number, ids in enumerate(written):
        for index, run_id in enumerate(ids):
            run = found[run_id]
            assert (run.status, run.params) == ("FINISHED", {"number": str(number), "index": str(index)})
            assert [m.step for m in client.get_metric_history(run_id, "val/loss")] == list(range(20))
            assert Path(client.download_artifacts(run_id, "note.txt")).read_text() == f"{number} {index}"
    assert len(list((server.mlruns / "artifacts").rglob("note.txt"))) == 8 * RUNS


def test_a_kill_of_everything_for_15_seconds_loses_nothing_and_doubles_nothing(store, server):
    store = store.of("outage")
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "10"  # MLflow takes no more; eight minutes
    done = threading.Event()
    errors = []

    def log():
        try:
            with start(store, "through it") as run:
                step = 0
                while not done.is_set() or step < 20:
                    run.log_metrics({"loss": step}, step)
                    run.log_text(str(step), f"notes/{step}.txt")
                    step += 1
                    time.sleep(0.2)
                run.log_metrics({"steps": step})
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=log)
    thread.start()
    time.sleep(3)
    family = server.family()
    server.kill()
    assert not [one for one in family if one.is_running()]
    time.sleep(15)
    password = server.credentials.read_text()
    server.start()
    assert server.credentials.read_text() == password
    done.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert errors == []
    (run,) = tracking.find_runs(store)
    assert run.status == "FINISHED"
    steps = range(int(run.metrics["steps"]))
    client = client_of(store)
    assert len(steps) >= 20
    assert [m.step for m in client.get_metric_history(run.run_id, "loss")] == list(steps)
    assert len(client.list_artifacts(run.run_id, "notes")) == len(steps)


def test_a_run_whose_answer_was_lost_is_recorded_once(store, server):
    def created(create):
        proxy = Severed(server.port)
        client = client_of(replace(store, uri=proxy.uri))
        experiment = client.create_experiment(f"fer/{create.__name__}")
        run_id = create(client, experiment)
        runs = [run.info.run_id for run in client.search_runs([experiment])]
        proxy.listener.close()
        assert proxy.cut
        assert run_id in runs
        return len(runs)

    def plainly(client, experiment):
        return client.create_run(experiment, run_name="trial 0", tags={"fer.process": "p"}).info.run_id

    def once(client, experiment):
        return create_run(client, experiment, {"fer.process": "p"}, "trial 0")

    assert created(plainly) == 2  # why: MLflow asks again
    assert created(once) == 1


# Starting and stopping


def refusal(*options, **env):
    done = subprocess.run([*START, *options], capture_output=True, text=True, env={**os.environ, **env})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    return done.stderr


def test_a_used_port_is_one_line(server, tmp_path):
    said = refusal("--port", str(server.port), "--mlruns", str(tmp_path))
    assert f"127.0.0.1:{server.port}: cannot be listened on (Address already in use); " in said
    assert f"make server PORT={server.port + 1}" in said


def test_a_second_server_on_the_same_folder_is_one_line(server):
    assert "another `make server` runs on it" in refusal("--port", "0", "--mlruns", str(server.mlruns))


@pytest.mark.parametrize(
    ("database", "said"),
    [
        ("sqlite:///x.db", "not a PostgreSQL database"),
        ("postgresql://a:b@127.0.0.1:9/c", "cannot be used (connection to server"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line(database, said, tmp_path):
    assert said in refusal("--port", "0", "--mlruns", str(tmp_path), FER_DATABASE=database)


def test_a_given_database_is_used_and_an_unknown_password_refused(server, tmp_path):
    given = (server.mlruns / "server" / "database").read_text()
    other = Server(tmp_path / "mlruns")
    other.start(wait=False, env={"FER_DATABASE": given})
    assert other.process is not None
    try:
        assert other.process.wait(PATIENCE) == 2
    finally:
        other.kill()
    assert "the database knows admin by another password" in other.output
    assert not (other.mlruns / "postgres").exists()


def test_a_server_stopped_while_it_starts_leaves_nothing(server):
    other = Server(server.mlruns.parent / "other")
    other.start(wait=False)
    deadline = time.monotonic() + PATIENCE
    while not (other.mlruns / "server" / "secret_key").exists() and time.monotonic() < deadline:
        time.sleep(0.05)  # it is made after the database is up, just before MLflow
    family = other.family()
    try:
        assert {"postgres"} < {one.name() for one in family}
        assert other.stop(signal.SIGTERM) == 0
        assert not alive(family)
    finally:
        other.kill()


def test_ctrl_c_stops_it_with_its_database(server):  # the last one: the server is gone then
    family = server.family()
    assert server.stop(signal.SIGINT) == 0
    assert not alive(family)


def alive(family):
    return [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
