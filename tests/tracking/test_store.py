"""The tracking store: credentials of a server, and what a lost store or a full disk looks like."""

import http.server
import os
import threading
from pathlib import Path

import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from stores import config_in
from urllib3.util import Retry

from fer_experiments import tracking
from fer_experiments.errors import UserError
from fer_experiments.tracking.outages import is_full_disk, is_outage
from fer_experiments.tracking.server import _take_credentials

RETRIES = int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])  # of this package, before a test turns them off
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def environment():
    """Without a password and without retries; put back afterwards."""
    before = dict(os.environ)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        os.environ.pop(name, None)
    tracking.stop_retrying()
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def serve():
    """A function that starts an HTTP server which answers every request with a status and a text; returns its address
    and the Authorization headers it gets."""
    servers = []

    def start(status, text="{}", healthy=True):
        seen = []

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                health = self.path == "/health" and healthy
                if not health:
                    seen.append(self.headers.get("Authorization"))
                body = text.encode()
                self.send_response(200 if health else status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def raised(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


# A server and its credentials


def test_the_password_of_the_file_is_sent(serve, tmp_path):
    uri, seen = serve(200)
    file = tmp_path / "credentials"
    file.write_text("# made once\nMLFLOW_TRACKING_USERNAME=admin\nMLFLOW_TRACKING_PASSWORD=a=b%c \n")
    assert tracking.connect(config_in(tmp_path, uri, file)).uri == uri
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "a=b%c"
    assert seen == ["Basic YWRtaW46YT1iJWM="]


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN"])
def test_the_environment_wins_over_the_file(name, serve, tmp_path):
    file = tmp_path / "credentials"
    file.write_text("MLFLOW_TRACKING_USERNAME=admin\nMLFLOW_TRACKING_PASSWORD=other\n")
    os.environ[name] = "given"
    tracking.connect(config_in(tmp_path, serve(200)[0], file))
    assert os.environ[name] == "given"
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


def test_a_file_that_is_not_there_is_no_mistake(serve, tmp_path):
    uri, seen = serve(200)
    tracking.connect(config_in(tmp_path, uri, tmp_path / "none"))
    assert seen == [None]


@pytest.mark.parametrize(
    ("status", "said"), [(401, "wants a user and a password"), (403, "--allowed-hosts"), (404, "is this MLflow's")]
)
def test_a_refusal_is_one_line_with_the_remedy(status, said, serve, tmp_path):
    error = raised(tracking.connect, config_in(tmp_path, serve(status, "no")[0]))
    assert isinstance(error, UserError)
    assert said in str(error)
    assert "\n" not in str(error)


# Outages


def test_retries_outlast_two_minutes_and_end_by_four():
    factor = int(os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"])
    retry = Retry(RETRIES, backoff_factor=factor, allowed_methods=None)
    waits = []
    while retry.total:
        retry = retry.increment("POST", "/", error=ConnectionResetError())
        waits.append(retry.get_backoff_time())
    assert waits == [0, 6, 12, 24, 48, 96]
    assert 120 + 30 < sum(waits) < 240


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.create_run("0"),
        lambda client: client.log_metric("0" * 32, "loss", 1.0),
        lambda client: client.get_run("0" * 32),
    ],
)
def test_a_server_that_is_gone_is_an_outage(call):
    error = raised(call, MlflowClient(NOBODY))
    assert is_outage(error)
    assert not is_full_disk(error)


def test_an_artifact_that_finds_no_server_is_an_outage(tmp_path):
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    (tmp_path / "a.txt").write_text("a")
    repository = MlflowArtifactsRepository("mlflow-artifacts:/0/run/artifacts", NOBODY)
    assert is_outage(raised(repository.log_artifact, str(tmp_path / "a.txt")))


@pytest.mark.parametrize(("status", "lost"), [(500, True), (503, True), (400, False), (404, False)])
def test_a_server_that_fails_is_an_outage_and_one_that_refuses_is_not(status, lost, serve):
    error = raised(MlflowClient(serve(status, '{"error_code": "X", "message": "no"}')[0]).get_run, "0" * 32)
    assert is_outage(error) == lost


def test_a_lost_database_is_an_outage():
    engine = sqlalchemy.create_engine("postgresql+psycopg2://a:b@127.0.0.1:9/c")
    assert is_outage(raised(engine.connect))


def test_an_outage_is_found_behind_what_it_led_to():
    outage = raised(MlflowClient(NOBODY).get_run, "0" * 32)

    def behind(cause):
        try:
            raise cause
        except MlflowException as error:
            raise RuntimeError("the trial") from error

    def handled(cause):
        try:
            raise cause
        except MlflowException:
            raise RuntimeError("something else") from None

    assert is_outage(raised(behind, outage))
    assert not is_outage(raised(handled, outage))


@pytest.mark.parametrize("bug", [ValueError("nan"), ConnectionError("of a pipe"), MlflowException("bad signature")])
def test_a_bug_is_no_outage(bug):
    assert not is_outage(bug)
    assert not is_full_disk(bug)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_told_by_its_errno():
    def write():
        with Path("/dev/full").open("w") as file:
            file.write("x")

    error = raised(write)
    assert is_full_disk(error)
    assert not is_outage(error)


def test_a_full_sqlite_store_is_a_full_disk(tmp_path):
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'a.db'}")

    def fill():
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("PRAGMA max_page_count = 2"))
            connection.execute(sqlalchemy.text("CREATE TABLE a (b TEXT)"))
            connection.execute(sqlalchemy.text("INSERT INTO a VALUES (zeroblob(100000))"))

    error = raised(fill)
    assert is_full_disk(error)
    assert is_outage(error)


@pytest.mark.parametrize(
    ("uri", "here"),
    [
        ("http://127.0.0.1:5000", True),
        ("http://localhost:5000", True),
        ("http://192.0.2.7:5000", False),  # an address for documentation, nobody's
        ("http://no-such-host.invalid:5000", False),
    ],
)
def test_a_password_of_this_machines_server_is_for_no_other(uri, here, tmp_path):
    (tmp_path / "credentials").write_text("MLFLOW_TRACKING_USERNAME=admin\nMLFLOW_TRACKING_PASSWORD=secret\n")
    _take_credentials(tmp_path / "credentials", uri)
    assert ("MLFLOW_TRACKING_PASSWORD" in os.environ) == here
