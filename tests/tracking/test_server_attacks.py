"""`make server` attacked: by another user of its machine, an account that may only look, guesses, a reader of logs."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from stores import config_in
from tracking_server import PATIENCE, ROOT, Server, needs_postgres, running_server

from fer_experiments import tracking
from fer_experiments.errors import UserError
from fer_experiments.tracking import models

pytestmark = needs_postgres

as_nobody = pytest.mark.skipif(os.geteuid() != 0, reason="to become another user takes root")
NOBODY: dict[str, object] = {"user": "nobody", "group": "nogroup", "extra_groups": [], "cwd": "/"}
PASSWORD = "a long password of hers"
SMALL = [
    *["sweep=quick", "data.limit=60", "data.demo_size=600", "training.epochs=2", "tracking.system_metrics=false"],
    *["sweep.max_trials=2", "compute.workers=1"],
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One with an account `anna`, who was granted nothing. One worker process has one count of wrong passwords."""
    with running_server() as server:
        assert ask(server, "users/create", username="anna", password=PASSWORD)[0] == 200
        assert ask(server, "experiments/search", "anna", max_results=1)[0] == 200
        yield server


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a password; what `connect` puts there is taken back."""
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def admins(server: Server) -> str:
    return server.credentials.read_text().rpartition("=")[2].strip()


def ask(
    server: Server, call: str, user: str = "admin", guess: str = "", api: str = "api/2.0", **body: object
) -> tuple[int, str]:
    """The status and text of a POST of MLflow's API."""
    password = guess or (admins(server) if user == "admin" else PASSWORD)
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return send(server, f"/{api}/mlflow/{call}", json.dumps(body).encode(), f"Basic {token}")


def send(server: Server, path: str, body: bytes, authorization: str) -> tuple[int, str]:
    headers = {"Content-Type": "application/json", "Authorization": authorization}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(server.uri + path, body, headers), timeout=PATIENCE
        ) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


# Another user of its machine


@as_nobody
def test_another_user_of_the_machine_reads_nothing_that_the_server_keeps(server: Server):
    store = tracking.connect(config_in(server.mlruns, server.uri, server.credentials))
    with tracking.start_run(store, "trial", "t", system_metrics=False) as run:
        run.log_text("of the owner", "config.yaml")
    kept = list((server.mlruns / "artifacts").rglob("config.yaml"))
    assert kept and (server.mlruns / "server" / "postgres.log").exists()
    folders = [str(server.mlruns / name) for name in ("server", "artifacts", "postgres")]
    seen = subprocess.run(["find", *folders, "-mindepth", "1"], capture_output=True, text=True, **NOBODY)  # type: ignore[call-overload]
    assert (seen.stdout, seen.stderr.count("Permission denied")) == ("", 3)
    everything = [path for name in ("server", "artifacts") for path in (server.mlruns / name).rglob("*")]
    assert not [path for path in everything if path.stat().st_mode & 0o077]


# An account that may look


@pytest.mark.parametrize("where", ["file://{0}", "{0}", "mlflow-artifacts:/0", "mlflow-artifacts:/../x", "s3://b/x"])
@pytest.mark.parametrize(("api", "key"), [("api/2.0", "artifact_location"), ("ajax-api/2.0", "artifactLocation")])
def test_nobody_says_where_on_its_disk_the_server_writes(
    server: Server, tmp_path: Path, where: str, api: str, key: str
):
    target = tmp_path / "hers"
    name, location = f"hers {api} {where}", where.format(target)
    status, said = ask(server, "experiments/create", "anna", api=api, name=name, **{key: location})
    if status == 200:  # what it was for
        made = ask(server, "runs/create", "anna", experiment_id=json.loads(said)["experiment_id"])[1]
        upload = f"upload-artifact?run_uuid={json.loads(made)['run']['info']['run_id']}&path=x/authorized_keys"
        ask(server, upload, "anna", api="ajax-api/2.0")
    assert not target.exists()
    assert status == 403 and "this server keeps all artifacts itself" in said
    body = json.dumps(json.dumps({"name": name, key: location})).encode()  # MLflow takes JSON in JSON too
    token = base64.b64encode(f"anna:{PASSWORD}".encode()).decode()
    assert send(server, f"/{api}/mlflow/experiments/create", body, f"Basic {token}")[0] == 403


def test_an_account_makes_experiments_of_its_own_as_before(server: Server):
    status, said = ask(server, "experiments/create", "anna", name="hers")
    assert status == 200
    found = ask(server, "runs/create", "anna", experiment_id=json.loads(said)["experiment_id"])
    assert found[0] == 200 and '"mlflow-artifacts:/' in found[1].replace(" ", "")


def test_names_of_models_that_are_loaded_are_an_administrators_to_give(server: Server):
    prompt = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
    assert ask(server, "registered-models/create", "anna", name="hers")[0] == 200
    for api in ("api/2.0", "ajax-api/2.0"):
        for status, said in (
            ask(server, "registered-models/create", "anna", api=api, name="fer-happy"),
            ask(server, "registered-models/create", "anna", api=api, name="fer-whatever", tags=prompt),
            ask(server, "registered-models/rename", "anna", api=api, name="hers", new_name="fer-happy"),
            ask(server, "registered-models/rename", "anna", api=api, name="hers", newName="fer-happy"),
        ):
            assert status == 403 and "an administrator's to give" in said
    assert ask(server, "registered-models/create", name="fer-sad")[0] == 200
    assert ask(server, "registered-models/create", "anna", name="fer-sad")[0] in (400, 403)
    edit = {"username": "anna", "resource_type": "registered_model", "resource_id": "fer-happy", "permission": "EDIT"}
    assert ask(server, "users/permissions/grant", "anna", api="api/3.0", **edit)[0] == 403
    assert ask(server, "users/permissions/grant", api="api/3.0", **edit)[0] == 200
    assert ask(server, "registered-models/create", "anna", name="fer-happy")[0] == 200
    assert models.PREFIX == "fer-"


def test_a_promotion_by_an_account_that_may_not_register_ends_in_a_line(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    store = tracking.connect(config_in(server.mlruns, server.uri, task="angry"))
    with (
        tracking.start_run(store, "promotion", "p", system_metrics=False) as run,
        pytest.raises(UserError, match=r"^fer-angry: http[^\n]*does not let this account register it [^\n]*EDIT on"),
    ):
        models.add_version(store, "fer-angry", run.id, {}, {}, "")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", admins(server))
    version = models.add_version(store, "fer-angry", run.id, {}, {}, "")
    models.drop_version(store, version)  # of a promotion that fails after all
    assert "fer-angry" in models.model_names(store)  # and whoever was granted the name keeps it
    assert models.find_version(store, "fer-angry", "champion") is None


# Guesses


def test_a_token_and_half_a_password_are_no_fault_of_the_server(server: Server):
    for authorization in ("Bearer x", "Basic x", "Basic YW5uYQ==", "Digest a", ""):
        assert send(server, "/api/2.0/mlflow/experiments/search", b"{}", authorization)[0] == 401, authorization


def test_unknown_names_cost_the_server_as_much_as_known_ones(server: Server):
    """In CPU time, which other programs of the machine do not lengthen."""

    def spent(names: list[str]) -> float:
        workers = [one for one in server.family() if one.name() != "postgres"]
        before = sum(sum(one.cpu_times()[:2]) for one in workers)
        assert {ask(server, "experiments/search", name, "a wrong password")[0] for name in names} == {401}
        return sum(sum(one.cpu_times()[:2]) for one in workers) - before

    assert ask(server, "users/create", username="berta", password=PASSWORD)[0] == 200
    unknown = [f"nobody {number}" for number in range(8)]
    ratio = spent(unknown) / spent(["berta"] * 8)
    assert 0.5 < ratio < 2, ratio


def test_wrong_passwords_are_looked_at_ten_times_and_the_right_ones_go_on(server: Server):
    assert ask(server, "users/create", username="clara", password=PASSWORD)[0] == 200
    with ThreadPoolExecutor(30) as guesses:
        answers = guesses.map(lambda n: ask(server, "experiments/search", "clara", f"wrong password {n}"), range(60))
    statuses = [status for status, _ in answers]
    assert set(statuses) == {401, 429} and statuses.count(401) <= 10
    # Not even the right one tells itself apart, on any kind of route ...
    assert ask(server, "experiments/search", "clara", max_results=1)[0] == 429
    # ... and who was let in before goes on: nobody locks another out of her work.
    for user in ("anna", "admin"):
        assert ask(server, "experiments/search", user, max_results=1)[0] == 200
    assert 401 in {ask(server, "experiments/search", f"n{n}", "wrong password")[0] for n in range(3)}


# A reader of logs


def holders(password: bytes, given: list[str], *folders: Path) -> tuple[set[str], set[str]]:
    """What has the password: processes, and files of these folders; and all names of files.

    given: the command that was given it; what it forks is a copy of it until it becomes another program.
    """
    found, seen = set(), set()
    own = "".join(f"{word}\0" for word in given).encode()
    for process in Path("/proc").glob("[0-9]*"):
        for kind in ("cmdline", "environ"):
            try:
                if password in (process / kind).read_bytes():
                    line = (process / "cmdline").read_bytes()
                    if line not in (own, b""):  # none: it has just ended
                        found.add(f"{process.name} {kind} {line[:200]!r}")
            except OSError:  # it has ended
                continue
    for folder in folders:
        for path in folder.rglob("*"):
            try:
                if path.is_file():
                    seen.add(path.name)
                    if password in path.read_bytes():
                        found.add(str(path))
            except OSError:
                continue
    return found, seen


@pytest.mark.parametrize(("compute", "given"), [("ray", "file"), ("processes", "environment")])
def test_the_password_is_in_no_log_no_record_and_no_process_of_a_sweep(
    server: Server, tmp_path: Path, compute: str, given: str
):
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # the path of a socket has 107 bytes
    folder.chmod(0o755)
    command = [sys.executable, "-m", "fer_experiments.cli", "sweep", *SMALL, f"compute={compute}", "tracking=server"]
    command += [f"paths.mlruns={tmp_path / 'mlruns'}", f"paths.cache={tmp_path / 'cache'}"]
    command += [f"tracking.uri={server.uri}", f"sweep.seed={len(compute + given)}"]
    environment = {**os.environ, "RAY_TMPDIR": str(folder), "TMPDIR": str(tmp_path)}
    password = admins(server)
    if given == "file":
        command.append(f"tracking.credentials={server.credentials}")
    else:
        environment |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": password}
    log = tmp_path / "said"
    found: set[str] = set()
    seen: set[str] = set()
    others = set()
    try:
        with log.open("w") as out:
            driver = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
        guard = time.monotonic() + PATIENCE
        while driver.poll() is None:
            assert time.monotonic() < guard, log.read_text()
            time.sleep(0.5)
            now = holders(password.encode(), command if given == "environment" else [], folder)
            found |= now[0]
            seen |= now[1]
            if os.geteuid() == 0 and compute == "ray":
                look = ["find", str(folder), "-mindepth", "2"]
                others |= set(subprocess.run(look, capture_output=True, text=True, **NOBODY).stdout.split())  # type: ignore[call-overload]
        assert driver.returncode == 0, log.read_text()
        found |= holders(password.encode(), [], folder, tmp_path)[0]
        artifacts = server.mlruns / "artifacts"
        assert (found | holders(password.encode(), [], artifacts)[0], others) == (set(), set())
        if compute == "ray":
            assert "runtime_env_agent.log" in seen
            assert list(folder.iterdir()) == []
    finally:
        driver.kill()
        shutil.rmtree(folder)


def test_processes_of_the_server_have_no_password_to_see(server: Server):
    secrets = [admins(server), (server.mlruns / "server" / "postgres_password").read_text()]
    shown = [" ".join(one.cmdline()) for one in server.family() if one.status() != psutil.STATUS_ZOMBIE]
    assert not [line for line in shown for secret in secrets if secret in line]
