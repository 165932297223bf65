"""`fer ui` answers nobody but its owner: what another user of the machine, or a page of another address, may try."""

from __future__ import annotations

import base64
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from forked import ROOT, Command
from tiny_champion import register

from fer_experiments import cli, tracking
from fer_experiments.config import Config, mlruns_dir
from fer_experiments.serving import loading
from fer_experiments.tracking import models


class UI(NamedTuple):
    """A UI at work over a registry with a champion. password: as the terminal shows it."""

    config: Config
    address: str
    password: str
    pid: int
    run_id: str
    folder: Path

    def ask(
        self, method: str, path: str, body: bytes = b"", *, owner: bool = False, **headers: str
    ) -> tuple[int, bytes]:
        if owner:
            headers["Authorization"] = "Basic " + base64.b64encode(f"owner:{self.password}".encode()).decode()
        headers.setdefault("Content-Type", "application/json")
        request = urllib.request.Request(self.address + path, body or None, headers, method=method)
        try:
            with urllib.request.build_opener(NoRedirect).open(request, timeout=600) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object) -> None:
        return None


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UI]:
    config = register(tmp_path_factory.mktemp("ui"))
    version, folder = loading.find_model(config, "champion")
    process = Command("ui", "port=0", f"paths.mlruns={mlruns_dir(config)}")
    try:
        line = next(line for line in process.stdout if "@" in line)
        assert not process.stderr, "what its libraries say"
        password, _, rest = line.partition("owner:")[2].partition("@")
        yield UI(config, f"http://{rest.partition('/')[0]}", password, process.pid, version.run_id, folder)
    finally:
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr.strip().endswith("fer ui: stopped")


REQUESTS = [
    ("GET", "/", b""),
    ("GET", "/health", b""),
    ("GET", "/enter", b""),
    ("POST", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path=model/classifier.py", b"print('hers')"),
    ("DELETE", "/ajax-api/2.0/mlflow/registered-models/delete", b'{"name": "fer-demo"}'),
    ("DELETE", "/api/2.0/mlflow/registered-models/delete", b'{"name": "fer-demo"}'),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/hers.py", b"print('hers')"),
    ("PUT", "/ajax-api/2.0/mlflow-artifacts/artifacts/hers.py", b"print('hers')"),
    ("POST", "/api/2.0/mlflow/experiments/create", b'{"name": "hers", "artifact_location": "file:///tmp"}'),
    ("POST", "/graphql", b'{"query": "{ __typename }"}'),
    ("GET", "/get-artifact?path=model/MLmodel&run_uuid={run}", b""),
    ("GET", "/static-files/index.html", b""),
]


def unchanged(ui: UI) -> None:
    version = models.find_version(tracking.connect(ui.config), "fer-demo", "champion")
    assert version is not None
    models.check_files(tracking.connect(ui.config), version, ui.folder)
    assert not (ROOT / "mlartifacts").exists() and not list(mlruns_dir(ui.config).rglob("hers*"))


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
@pytest.mark.parametrize("authorization", ["", "Basic b3duZXI6", "Basic owner:", "Bearer x"])
def test_nobody_without_the_password_gets_anything(ui: UI, method: str, path: str, body: bytes, authorization: str):
    status, said = ui.ask(method, path.format(run=ui.run_id), body, Authorization=authorization)
    assert (status, said) == (401, b"Open the address that `fer ui` has printed.\n")
    unchanged(ui)


@pytest.mark.parametrize("origin", ["null", "http://127.0.0.1:1", "http://localhost:8888", "https://evil.example"])
def test_a_page_of_another_address_cannot_use_the_owners_browser(ui: UI, origin: str):
    for method, path, body in REQUESTS[3:]:
        status, said = ui.ask(method, path.format(run=ui.run_id), body, owner=True, Origin=origin)
        assert (status, said) == (403, b"Not from another page.\n")
    unchanged(ui)


def test_a_name_that_leads_here_is_no_way_in(ui: UI):
    """DNS rebinding: MLflow's own answer."""
    assert ui.ask("GET", "/", owner=True, Host="evil.example")[0] == 403


def test_its_owner_looks_and_writes(ui: UI):
    assert ui.ask("GET", "/enter", owner=True)[0] == 303
    status, page = ui.ask("GET", "/", owner=True)
    assert status == 200 and b"<title>MLflow</title>" in page
    status, said = ui.ask("GET", f"/ajax-api/2.0/mlflow/runs/get?run_id={ui.run_id}", owner=True)
    assert status == 200 and json.loads(said)["run"]["info"]["run_id"] == ui.run_id
    asked = json.dumps({"run_id": ui.run_id, "key": "seen", "value": "yes"}).encode()
    assert ui.ask("POST", "/ajax-api/2.0/mlflow/runs/set-tag", asked, owner=True, Origin=ui.address)[0] == 200
    run = tracking.find_run(tracking.connect(ui.config), ui.run_id)
    assert run is not None and run.tags["seen"] == "yes"
    status, said = ui.ask("GET", f"/get-artifact?path=model/MLmodel&run_uuid={ui.run_id}", owner=True)
    assert status == 200 and said == (ui.folder / "MLmodel").read_bytes()


def test_the_password_is_on_no_command_line_and_it_listens_on_loopback_alone(ui: UI):
    for process in psutil.process_iter(["cmdline"]):
        assert ui.password not in " ".join(process.info["cmdline"] or [])
    listening = [c.laddr.ip for c in psutil.Process(ui.pid).net_connections("tcp") if c.status == "LISTEN"]
    assert listening == ["127.0.0.1"]


def test_where_nothing_is_recorded_or_something_listens_it_says_so(
    ui: UI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert cli.main(["ui", f"paths.mlruns={tmp_path}/none"]) == 2
    assert "nothing is recorded there yet" in capfd.readouterr().err
    port = ui.address.rpartition(":")[2]
    assert cli.main(["ui", f"port={port}", f"paths.mlruns={mlruns_dir(ui.config)}"]) == 2
    said = capfd.readouterr().err
    assert f"127.0.0.1 port {port}: Address already in use" in said and said.count("\n") == 1
