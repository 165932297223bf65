"""A PostgreSQL cluster of our own: made once, run as long as a server needs it, stopped with it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from children import running

from fer_experiments.errors import UserError, first_line

DATABASE = "mlflow"
USER = "fer"
START_S = 60.0
STOP_S = 60.0


def binaries(version: str = "") -> Path | None:
    """The folder with initdb and postgres, of this major version if it is there; None without PostgreSQL."""
    debian = Path("/usr/lib/postgresql")  # not on PATH there
    folders = [debian / version / "bin"] if version else []
    if found := shutil.which("postgres"):
        folders.append(Path(found).resolve().parent)
    folders += sorted(debian.glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    return next((path for path in folders if (path / "initdb").exists() and (path / "postgres").exists()), None)


@contextmanager
def own_cluster(data: Path, log: Path, password: str) -> Iterator[str]:
    """The URI of a database in the cluster at `data`, which is made when it is not there and runs until the end.

    It listens on a free port of 127.0.0.1: a socket's path may not be longer than 107 bytes.

    Raises:
        UserError: no PostgreSQL on this machine, a folder that its user cannot reach, or a cluster that does not start.
    """
    made = data / "PG_VERSION"
    found = binaries(made.read_text().strip() if made.exists() else "")
    if found is None:
        raise UserError(
            "PostgreSQL: not found; install it (Debian, Ubuntu: apt-get install postgresql), or name a database with "
            "FER_DATABASE=postgresql://user:password@host/database"
        )
    owner = _owner(data)
    if not made.exists():
        _initdb(found, data, password, owner)
    port = _free_port()
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "max_connections": 200}
    command = [str(found / "postgres"), "-D", str(data), *(f"--{key}={value}" for key, value in settings.items())]
    with (
        log.open("w") as out,
        # SIGINT is its fast shutdown: clients are cut off, everything written is kept.
        running(command, signal.SIGINT, STOP_S, stdout=out, stderr=out, cwd="/", **owner) as process,
    ):
        uri = f"postgresql://{USER}:{password}@127.0.0.1:{port}"
        _wait_for(f"{uri}/postgres", process, data, log)
        _create_database(f"{uri}/postgres")
        yield f"{uri}/{DATABASE}"


def connect(uri: str) -> str:
    """Why this database cannot be connected to, in a line; empty when it can."""
    import psycopg2

    try:
        psycopg2.connect(uri, connect_timeout=10).close()
    except psycopg2.Error as error:
        return first_line(error)
    return ""


def _owner(data: Path) -> dict[str, Any]:
    """Popen's arguments for the user that PostgreSQL runs as: it refuses to be root."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwuid(data.stat().st_uid) if data.exists() else pwd.getpwnam("postgres")
    except KeyError as error:
        raise UserError(
            f"{data}: PostgreSQL does not run as root, and there is no user postgres; run `make server` as another user"
        ) from error
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _initdb(found: Path, data: Path, password: str, owner: dict[str, Any]) -> None:
    """Makes the cluster under another name first, so that a kill leaves none or a whole one."""
    new = data.with_name(f"{data.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write(password)
        secret.flush()
        if owner:
            os.chown(new, owner["user"], owner["group"])
            os.chown(secret.name, owner["user"], owner["group"])
            if subprocess.run(["test", "-w", str(new)], cwd="/", **owner).returncode:
                new.rmdir()
                raise UserError(
                    f"{data}: its user {pwd.getpwuid(owner['user']).pw_name} cannot reach it; run `make server` as the "
                    "owner of the project instead of root, or give the database with FER_DATABASE"
                )
        command = [str(found / "initdb"), "-D", str(new), "-U", USER, "-A", "scram-sha-256", "-E", "UTF8"]
        command += ["--locale=C", f"--pwfile={secret.name}"]
        made = subprocess.run(command, cwd="/", capture_output=True, text=True, **owner)
    if made.returncode:
        shutil.rmtree(new, ignore_errors=True)
        raise UserError(f"{data}: initdb failed ({_last_line(made.stderr)}); mend the cause, or set FER_DATABASE")
    new.replace(data)


def _wait_for(uri: str, process: subprocess.Popen[bytes], data: Path, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while problem := connect(uri):
        if process.poll() is not None or time.monotonic() > deadline:
            raise UserError(f"{data}: PostgreSQL did not start ({_last_line(log.read_text()) or problem}); see {log}")
        time.sleep(0.1)


def _create_database(uri: str) -> None:
    import psycopg2

    connection = psycopg2.connect(uri)
    connection.autocommit = True  # CREATE DATABASE cannot be in a transaction
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
