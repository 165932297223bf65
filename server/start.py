"""`make server`: MLflow's tracking server on PostgreSQL, behind a password, in the foreground.

Kept in mlruns/: postgres/ (its own cluster, unless FER_DATABASE names a database), artifacts/, and in server/ what is
made once: credentials, secret_key, postgres_password; and what is written at every start: basic_auth.ini, database (the
database's URI, for backups), postgres.log. All of it is readable by its owner alone; no secret is in a command line.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from children import leave_on_signals, running
from postgres import connect, own_cluster

from fer_experiments.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PRIVATE = ["10.*", "192.168.*", *(f"172.{i}.*" for i in range(16, 32))]
START_S = 300.0  # a busy machine imports MLflow for minutes
STOP_S = 15.0

# default_permission: whoever has an account may look at every experiment, and write only to what they made or were
# granted. Without an account nothing is read or written. The cache saves hashing the password in every request.
BASIC_AUTH = """[mlflow]
default_permission = READ
database_uri = {database}
admin_username = {user}
admin_password = {password}
authorization_function = guard:authenticate
auth_cache_ttl_seconds = 60
"""


def main() -> int:
    """Serves until Ctrl-C or SIGTERM; 2 and one line on standard error when that cannot be."""
    parser = argparse.ArgumentParser(description="MLflow's tracking server on PostgreSQL, behind a password.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for other machines")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--mlruns", type=Path, default=ROOT / "mlruns")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), help="processes of the server")
    parser.add_argument("--allowed-hosts", default="", help="names clients may call this server by, comma-separated")
    options = parser.parse_args()
    leave_on_signals()
    try:
        serve(options)
    except (UserError, OSError) as error:
        print(f"server: {error}", file=sys.stderr)
        return 2
    return 0


def serve(options: argparse.Namespace) -> None:
    """Runs the database if it is ours, then MLflow, until one of them ends or a signal comes."""
    mlruns = options.mlruns.resolve()
    mlruns.mkdir(parents=True, exist_ok=True)  # as root, PostgreSQL's user has to reach its own folder there
    os.umask(0o077)
    folder = mlruns / "server"
    for private in (folder, mlruns / "artifacts"):  # also what was made without that umask
        private.mkdir(exist_ok=True)
        private.chmod(0o700)
    _check_port(options.host, options.port)
    with _only_one(folder), _database(mlruns, folder) as database:
        user, password = credentials(folder / "credentials")
        secret(folder / "database", database, renew=True)
        # SQLAlchemy 2.1 takes plain postgresql:// for psycopg 3 (No module named 'psycopg').
        database = database.replace("postgresql://", "postgresql+psycopg2://", 1)
        # configparser reads % as the start of a reference.
        values = {"database": database, "user": user, "password": password}
        ini = BASIC_AUTH.format(**{key: value.replace("%", "%%") for key, value in values.items()})
        secret(folder / "basic_auth.ini", ini, renew=True)
        with _mlflow(options, mlruns, folder, database) as process:
            _wait_until_it_answers(options, process, user, password)
            print(_greeting(options, mlruns, user), flush=True)
            if code := process.wait():
                raise UserError(f"MLflow's server ended with code {code}; its messages are above")


def secret(path: Path, content: str, *, renew: bool = False) -> str:
    """What the file holds, mode 600; created with `content` when it is not there, or replaced with `renew`."""
    if renew or not path.exists():
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content)
        new.replace(path)
    return path.read_text()


def credentials(path: Path) -> tuple[str, str]:
    """The administrator's name and password out of the file, which is made when it is not there."""
    text = secret(path, f"MLFLOW_TRACKING_USERNAME=admin\nMLFLOW_TRACKING_PASSWORD={secrets.token_urlsafe(24)}\n")
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    try:
        return found["MLFLOW_TRACKING_USERNAME"].strip(), found["MLFLOW_TRACKING_PASSWORD"].strip()
    except KeyError as error:
        raise UserError(f"{path}: has no line {error.args[0]}=...; put it back, or remove the file") from error


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        remedy = f"stop what listens there, or take another: make server PORT={port + 1}"
        raise UserError(f"{host}:{port}: cannot be listened on ({error.strerror}); {remedy}") from error


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:  # held by this process alone, so that it goes with it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder.parent}: another `make server` runs on it; use that one, or stop it") from error
        yield


@contextmanager
def _database(mlruns: Path, folder: Path) -> Iterator[str]:
    given = os.environ.get("FER_DATABASE", "")
    if not given:
        password = secret(folder / "postgres_password", secrets.token_urlsafe(24))
        with own_cluster(mlruns / "postgres", folder / "postgres.log", password) as uri:
            yield uri
        return
    if not given.startswith("postgresql://"):
        raise UserError("FER_DATABASE: not a PostgreSQL database; postgresql://user:password@host/database")
    if problem := connect(given):
        raise UserError(f"FER_DATABASE: cannot be used ({problem}); mend it, or leave it out for a database of our own")
    yield given


@contextmanager
def _mlflow(
    options: argparse.Namespace, mlruns: Path, folder: Path, database: str
) -> Iterator[subprocess.Popen[bytes]]:
    # MLFLOW_AUTH_ADMIN_* would win over the file, and a tracking URI here would be some other store.
    foreign = ("MLFLOW_AUTH_", "MLFLOW_TRACKING_", "MLFLOW_SERVER_", "MLFLOW_REGISTRY_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)} | {
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_REGISTRY_STORE_URI": database,
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "server"), os.environ.get("PYTHONPATH")])),  # guard
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secret(folder / "secret_key", secrets.token_urlsafe(32)),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # huey workers for LLM judges
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",  # deprecations inside MLflow, once a worker
    }
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--serve-artifacts"]
    command += ["--artifacts-destination", str(mlruns / "artifacts"), "--host", options.host]
    command += ["--port", str(options.port), "--workers", str(options.workers), "--uvicorn-opts", "--log-level warning"]
    if allowed := _allowed_hosts(options):
        command += ["--allowed-hosts", allowed]
    with running(command, signal.SIGTERM, STOP_S, env=environment, cwd=folder) as process:
        yield process


def _allowed_hosts(options: argparse.Namespace) -> str:
    """MLflow's own default (loopback and private addresses), this machine's names when others may come, those given."""
    given = [name for name in str(options.allowed_hosts).split(",") if name]
    if options.host in LOOPBACK and not given:
        return ""
    names = dict.fromkeys(["localhost", "127.0.0.1", options.host, socket.gethostname(), socket.getfqdn()])
    return ",".join([*(f"{name}{port}" for name in names for port in ("", ":*")), *PRIVATE, *given])


def _wait_until_it_answers(
    options: argparse.Namespace, process: subprocess.Popen[bytes], user: str, password: str
) -> None:
    here = "127.0.0.1" if options.host in ("0.0.0.0", "") else options.host
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(
        f"http://{f'[{here}]' if ':' in here else here}:{options.port}/api/2.0/mlflow/users/current",
        headers={"Authorization": f"Basic {token}", "Host": f"localhost:{options.port}"},
    )
    deadline = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(request, timeout=10).close()
            return
        except urllib.error.HTTPError as error:
            if error.code == 401:
                raise UserError(
                    f"the database knows {user} by another password than {options.mlruns}/server/credentials; put the "
                    "right one into that file"
                ) from error
            last: OSError = error
        except OSError as error:
            last = error
        if process.poll() is not None:
            raise UserError(f"MLflow's server ended with code {process.returncode}; its messages are above")
        if time.monotonic() > deadline:
            raise UserError(f"MLflow's server does not answer after {START_S:.0f} s ({last}); its messages are above")
        time.sleep(0.1)


def _greeting(options: argparse.Namespace, mlruns: Path, user: str) -> str:
    local = options.host in LOOPBACK
    name = "127.0.0.1" if local else socket.gethostname() if options.host == "0.0.0.0" else options.host
    address = f"http://{name}:{options.port}"
    at = "" if address == "http://127.0.0.1:5000" else f"FER_TRACKING={address} "
    database = "FER_DATABASE" if os.environ.get("FER_DATABASE") else mlruns / "postgres"
    lines = [
        f"tracking server: {address}  (database: {database}, artifacts: {mlruns / 'artifacts'})",
        f"user {user}, password in {mlruns / 'server' / 'credentials'}",
        f'sweep with it: {at}make sweep ARGS="tracking=server"',
        "from another machine, before the same command"
        + (f" (through ssh -N -L {options.port}:127.0.0.1:{options.port} {socket.gethostname()}):" if local else ":"),
        f"  export FER_TRACKING={address}",
        f"  export MLFLOW_TRACKING_USERNAME={user} MLFLOW_TRACKING_PASSWORD=<the password>",
    ]
    if not local:
        lines.append("passwords cross the network in plain text: put TLS in front of it (docs/server.md)")
    return "\n".join([*lines, "Ctrl-C stops it"])


if __name__ == "__main__":
    raise SystemExit(main())
