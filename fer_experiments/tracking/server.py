"""A tracking server or a database: that it answers, and takes our password."""

from __future__ import annotations

import os
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path

from fer_experiments.config import TrackingConfig, project_root, without_password
from fer_experiments.errors import UserError, first_line

USERNAME, PASSWORD, TOKEN = (f"MLFLOW_TRACKING_{name}" for name in ("USERNAME", "PASSWORD", "TOKEN"))
DATABASES = ("postgresql", "mysql", "mssql")  # but for SQLite, what MLflow keeps a store in
TIMEOUT_S = 10
TIMED_DRIVERS = ("psycopg2", "psycopg", "pymysql", "mysqldb")  # that call it connect_timeout


def enter(tracking: TrackingConfig, uri: str) -> None:
    """Shows a server our password, and sees that it takes it, as a database takes that of its address.

    Raises:
        UserError: nothing answers, or it refuses us.
    """
    if uri.startswith(("http://", "https://")):
        check_reachable(uri)
        if tracking.credentials:
            _take_credentials(project_root() / tracking.credentials, uri)
        _check_allowed(uri)
    elif uri.partition(":")[0].partition("+")[0] in DATABASES:
        _check_database(uri)


def check_reachable(uri: str) -> None:
    """Refuses the address of a server that does not answer, and one with a password in it.

    Raises:
        UserError: with the reason.
    """
    if (shown := without_password(uri)) != uri:
        raise UserError(
            f"tracking.uri={shown}: a server learns who we are by {USERNAME} and {PASSWORD}, or by "
            "tracking.credentials; leave it out of the address"
        )
    # MLflow itself would try for minutes.
    try:
        trusted = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=TIMEOUT_S, context=trusted).close()
    except urllib.error.HTTPError:
        pass  # a server that answers; if it refuses us, MLflow says why
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"tracking.uri={uri}: no server answers ({reason}); start it, or leave tracking.uri out"
        ) from error


def _check_database(uri: str) -> None:
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.pool import NullPool

    # MLflow itself would try ten times, ever longer apart, and say nothing.
    try:
        limit = {"connect_timeout": TIMEOUT_S} if make_url(uri).get_driver_name() in TIMED_DRIVERS else {}
        create_engine(uri, poolclass=NullPool, connect_args=limit).connect().close()
    except Exception as error:  # SQLAlchemy's own, its driver's, or that this is not installed
        shown = without_password(uri)
        said = first_line(getattr(error, "orig", None) or error).replace(uri, shown)
        raise UserError(
            f"tracking.uri={shown}: the database does not take us ({said}); start it, or mend the address"
        ) from error


def _take_credentials(path: Path, uri: str) -> None:
    # A server of this machine wrote the file: no other server may see what is in it.
    if any(os.environ.get(name) for name in (USERNAME, PASSWORD, TOKEN)) or not _is_here(uri):
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); set {USERNAME} and {PASSWORD}") from error
    for name, _, value in (line.partition("=") for line in lines):
        if name in (USERNAME, PASSWORD):
            os.environ[name] = value.strip()


def _is_here(uri: str) -> bool:
    """Whether a server's name is one of this machine's."""
    try:
        for family, _, _, _, address in socket.getaddrinfo(urllib.parse.urlsplit(uri).hostname, None):
            with socket.socket(family) as probe:
                probe.bind((address[0], 0))  # one can listen on one's own addresses alone
    except OSError:
        return False
    return True


def _check_allowed(uri: str) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except MlflowException as error:
        remedy = f"is this MLflow's address, and well? ({first_line(error, named=True)})"
        if "error code 401" in str(error):
            who = os.environ.get(USERNAME)
            remedy = f"it does not take the password of {who}" if who else "it wants a user and a password"
            remedy += f"; set {USERNAME} and {PASSWORD}, or tracking.credentials=<file of `make server`>"
        elif "too many 429" in str(error):
            remedy = f"too many wrong passwords for {os.environ.get(USERNAME)}; wait five minutes"
        elif "error code 403" in str(error):
            remedy = "it does not know itself by that name; start it with --allowed-hosts, or use an address it allows"
        raise UserError(f"tracking.uri={uri}: the server refuses us: {remedy}") from error
