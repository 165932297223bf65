"""Sweeps over several workers: a Ray cluster that loses a node, and a tracking server with eight workers at it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from ray_nodes import ray_cluster
from stores import store_in
from tracking_server import Server, needs_postgres, running_server

from fer_experiments import cli, tracking
from fer_experiments.config.compose import compose
from fer_experiments.errors import UserError
from fer_experiments.search.start import check_reach
from fer_experiments.search.state import State
from fer_experiments.search.sweep import run_sweep
from fer_experiments.tracking import find_runs

PATIENT = "10"  # MLflow takes no more; eight minutes, however long a server takes to start on a busy machine
SMALL = [
    "sweep=quick", "data.limit=60", "data.demo_size=600", "training.epochs=4", "training.deterministic=true",
    "tracking.system_metrics=false",
]  # fmt: skip


def board(state: State) -> list[Any]:
    return [(t.values, t.score, t.status) for t in state.trials]


def places(folder: Path) -> list[str]:
    return [f"paths.mlruns={folder / 'mlruns'}", f"paths.cache={folder / 'cache'}"]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with room for a trial each; the first will die."""
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    with ray_cluster(1, 1) as cluster:
        yield cluster


def test_a_node_that_dies_gives_its_trial_back_and_the_leaderboard_is_that_of_one_process(cluster: Any, tmp_path: Path):
    options = [*SMALL, "sweep.max_trials=4", "training.epochs=20"]
    inline = run_sweep(compose([*options, *places(tmp_path / "inline")]), lambda line: None)
    over, said = threading.Event(), list[str]()
    store = store_in(tmp_path / "ray" / "mlruns")

    def kill_at_work() -> None:
        raylet = psutil.Process(cluster.nodes[0].all_processes["raylet"][0].process.pid)
        while not over.is_set():
            running = [run for run in find_runs(store, {"fer.kind": "trial"}) if run.status == "RUNNING"]
            workers = {child.pid for child in raylet.children(recursive=True)}
            if any(json.loads(run.tags["fer.process"])["pid"] in workers for run in running):
                break
            time.sleep(0.3)
        cluster.remove_node(cluster.nodes[0], allow_graceful=False)  # its processes are killed with -9

    killing = threading.Thread(target=kill_at_work)

    def listen(line: str) -> None:
        said.append(line)
        if line.startswith("trials run on"):
            killing.start()

    places_of_ray = ["compute=ray", f"compute.address={cluster.address}", *places(tmp_path / "ray")]
    try:
        state = run_sweep(compose([*options, *places_of_ray]), listen)
    finally:
        over.set()
    killing.join()
    assert board(state) == board(inline)
    assert any("it is given to another worker" in line for line in said), said
    runs = find_runs(store, {"fer.kind": "trial"})
    statuses = [run.status for run in runs]
    assert statuses.count("FINISHED") == 4 and set(statuses) == {"FINISHED", "KILLED"}


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """A server for all tests of this file; each has a sweep of its own at it."""
    with running_server() as server:
        yield server


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """That server, and no password in the environment, before and after."""
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # so that what `connect` sets is taken back
        monkeypatch.delenv(name)
    return running


def at(server: Server) -> list[str]:
    return ["tracking=server", f"tracking.uri={server.uri}", f"tracking.credentials={server.credentials}"]


@needs_postgres
def test_eight_workers_at_a_server_on_postgresql_lose_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    overrides = [
        "sweep.seed=1",
        "sweep.max_trials=12",
        "compute=processes",
        "compute.workers=8",
        *at(server),
        *places(tmp_path),
    ]
    state = run_sweep(compose([*SMALL, *overrides]), lambda line: None)
    assert len(state.trials) == 12 and {t.status for t in state.trials} == {"finished"}
    runs = find_runs(replace(store_in(tmp_path), uri=server.uri), {"fer.sweep_id": state.id, "fer.kind": "trial"})
    assert {(int(r.tags["fer.trial_number"]), r.run_id, r.status) for r in runs} == {
        (t.number, t.run_id, "FINISHED") for t in state.trials
    }
    for run in runs:
        trial = state.trials[int(run.tags["fer.trial_number"])]
        assert {name: run.metrics[name] for name in trial.metrics} == trial.metrics


@needs_postgres
def test_a_short_outage_is_ridden_out_and_a_long_one_stops_the_sweep_with_all_recorded(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", PATIENT)
    config = compose([*SMALL, "sweep.seed=2", "sweep.max_trials=5", *at(server), *places(tmp_path)])
    said: list[str] = []
    starting = threading.Thread(target=server.start)

    def short(line: str) -> None:
        said.append(line)
        if line.startswith("trial 0:"):
            server.kill()
            starting.start()
        if line.startswith("trial 2:"):
            starting.join()
            server.kill()
            tracking.stop_retrying()  # minutes otherwise

    with pytest.raises(UserError, match=r"the tracking store http.* is lost .* give the same command again"):
        run_sweep(config, short)
    kept = [line for line in said if line.startswith("trial ")]
    assert len(kept) == 3, said
    server.start()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", PATIENT)
    state = run_sweep(config, said.append)
    assert [t.status for t in state.trials] == ["finished"] * 5
    assert "going on after 3 trials" in " ".join(said)
    runs = find_runs(replace(store_in(tmp_path), uri=server.uri), {"fer.sweep_id": state.id})
    assert sorted(r.status for r in runs if r.status != "KILLED") == ["FINISHED"] * 6  # five trials and the sweep


@needs_postgres
def test_what_a_server_keeps_is_reported_promoted_and_predicted_with(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    common = [*at(server), *places(tmp_path)]
    run_sweep(compose([*SMALL, "data.limit=300", "data.demo_size=1500", "sweep.max_trials=2", *common]), print)
    assert cli.main(["report", *common]) == 0
    options = [
        "promote.seeds=1",
        "promote.top_k=1",
        "promote.corruptions=0",
        "gate=none",
        "tracking.system_metrics=false",
    ]
    assert cli.main(["promote", *options, *common]) == 0
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 50), dtype=np.uint8)).save(tmp_path / "a.png")
    capsys.readouterr()
    assert cli.main(["predict", "data=demo", str(tmp_path / "a.png"), "--csv", *common]) == 0
    assert capsys.readouterr().out.startswith("file,label,probability_negative,probability_positive\n")
    downloaded = [path.name for path in (tmp_path / "cache" / "models").iterdir() if path.name[:9] != "openvino-"]
    assert [name.split("-")[:3] for name in downloaded] == [["fer", "demo", "1"]]


class Elsewhere:
    """What a cluster with another machine says of itself."""

    def foreign_hosts(self) -> list[str]:
        return ["node-b"]


@pytest.mark.parametrize(
    "uri",
    [
        *("sqlite:////anywhere/mlflow.db", "http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000"),
        *("postgresql://fer:pw@localhost/fer", "postgresql+psycopg2://fer@127.0.0.1:5432/fer", "postgresql:///fer"),
        *("postgresql+psycopg2://fer@/fer?host=localhost", "postgresql+psycopg2://fer@/fer?host=/var/run/postgresql"),
    ],
)
def test_workers_on_another_machine_that_cannot_reach_the_store_are_refused(uri: str):
    with pytest.raises(UserError, match=r"node-b.*make server.*tracking\.uri"):
        check_reach(Elsewhere(), uri)  # type: ignore[arg-type]
    for reachable in (
        *("http://head:5000", "postgresql://fer:pw@localhost.example/fer"),
        *("postgresql+psycopg2://fer:pw@/fer?host=db.example", "mssql+pyodbc:///?odbc_connect=DRIVER%3DX"),
    ):
        check_reach(Elsewhere(), reachable)  # type: ignore[arg-type]
