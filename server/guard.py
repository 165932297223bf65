"""What `make server` adds to MLflow's own checks: basic_auth.ini names `authenticate`, which every request passes.

- Passwords: after WRONG wrong ones for a name (in a worker process, in WITHIN_S) no other is looked at; those that were
  right before go on. Known and unknown names cost the same time.
- Artifacts are where the server keeps them, not where who makes an experiment says.
- Names of registered models that this project loads are given by an administrator.
"""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import suppress

from flask import Response, request
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, REQUEST_LIMIT_EXCEEDED
from mlflow.protos.model_registry_pb2 import CreateRegisteredModel, RenameRegisteredModel
from mlflow.protos.service_pb2 import CreateExperiment
from mlflow.server import auth, handlers
from mlflow.server.auth.requirements import Requirement
from werkzeug.datastructures import Authorization
from werkzeug.security import check_password_hash, generate_password_hash

PREFIX = "fer-"  # as in fer_experiments.tracking.models, which is not installed where this runs in a container
WRONG, WITHIN_S = 10, 300.0
PARTS = 64  # names share counters, so that however many are tried, memory and the time for hashing are bounded

_wrong: list[list[float]] = [[] for _ in range(PARTS)]  # moments
_right = {auth._auth_cache_key(auth.auth_config.admin_username or "", auth.auth_config.admin_password or "")}
_lock = threading.Lock()
_nobody = generate_password_hash(secrets.token_hex())


def authenticate() -> Authorization | Response:
    """Who sends this request, if she may make it; an answer to her if not.

    Raises:
        MlflowException: 429 after too many wrong passwords; 403 for what nobody but an administrator may do.
    """
    given = request.authorization
    if given is None or given.username is None or given.password is None:  # no password, or a token
        return auth.make_basic_auth_response()
    answer = _check(given.username, given.password)
    if isinstance(answer, Authorization):
        _check_artifacts()
        _check_name(given.username)
    return answer


def _check(name: str, password: str) -> Authorization | Response:
    key = auth._auth_cache_key(name, password)
    if key in _right:
        return auth.authenticate_request_basic_auth()
    counted, now = _wrong[hash(name) % PARTS], time.monotonic()
    with _lock:  # counted before it is looked at: many at once get no further
        counted[:] = [moment for moment in counted if now - moment < WITHIN_S]
        if len(counted) >= WRONG:
            raise MlflowException("too many wrong passwords; wait five minutes", REQUEST_LIMIT_EXCEEDED)
        counted.append(now)
    wrong = False
    try:
        answer = auth.authenticate_request_basic_auth()
        wrong = not isinstance(answer, Authorization)
        if wrong and not auth.store.has_user(name):
            check_password_hash(_nobody, password)
    finally:
        if not wrong:
            with _lock, suppress(ValueError):  # five minutes ago
                counted.remove(now)
    if not wrong:
        _right.add(key)
    return answer


def _check_artifacts() -> None:
    if request.endpoint == handlers._create_experiment.__name__:
        said = handlers._get_request_message(CreateExperiment())
        if said.artifact_location:
            raise MlflowException(
                "artifact_location: this server keeps all artifacts itself; leave it out", PERMISSION_DENIED
            )


def _check_name(user: str) -> None:
    if request.endpoint == handlers._create_registered_model.__name__:
        name = handlers._get_request_message(CreateRegisteredModel()).name
    elif request.endpoint == handlers._rename_registered_model.__name__:
        name = handlers._get_request_message(RenameRegisteredModel()).new_name
    else:
        return
    if not name.startswith(PREFIX) or auth.store.get_user(user).is_admin:
        return
    if not auth.authorize(user, ("registered_model", name), [Requirement("registered_model", name, "update")]):
        raise MlflowException(
            f"{name}: names that begin with {PREFIX} are an administrator's to give: the first version is hers, or she "
            f'grants {user} EDIT on the registered_model "{name}" before',
            PERMISSION_DENIED,
        )
