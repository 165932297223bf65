"""A Ray cluster: a running one, or one started on this machine for as long as it is needed."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from fer_experiments.ambient import SECRET, pin_warnings, without_secrets
from fer_experiments.config import ComputeConfig
from fer_experiments.errors import UserError
from fer_experiments.executors.calls import Lost, Shared, answer, cores, outcome, worker_environment
from fer_experiments.files import temporary_folder
from fer_experiments.terminal import Echo

# What a worker on another machine needs of this one's environment, if it is set; Ray logs it.
PASSED = ("KERAS_BACKEND", "FER2013")
REACH = 5.0  # seconds within which a cluster's address must take a connection
FRESH = 1.0  # seconds for which the list of nodes is kept


@contextmanager
def opened(compute: ComputeConfig, echo: Echo) -> Iterator[RayCluster]:
    """A connection to the cluster at compute.address, or a local cluster; its calls are killed on leaving.

    Raises:
        UserError: no cluster answers at the address, or a local one has no room for a trial.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    folder: AbstractContextManager[Path | None] = nullcontext()
    if compute.address is None:
        _keep_to_this_machine()
        # Ray opens its own folder, with logs and with sockets that ask for no token, to everybody: it goes into this.
        folder = temporary_folder("fer-ray-", Path(os.environ.get("RAY_TMPDIR", "/tmp")))
    # ray.init puts its own SIGTERM handler in the place of the program's (worker.py, sigterm_handler).
    on_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    with folder as ours:
        try:
            with without_secrets():
                _init(compute, ours)
            if on_main:
                signal.signal(signal.SIGTERM, handler)
            cluster = RayCluster(compute)
            try:
                cluster.check_room(echo)
                yield cluster
            finally:
                cluster.close()
        finally:
            if on_main:
                signal.signal(signal.SIGTERM, handler)


def _keep_to_this_machine() -> None:
    """Ray's environment for a local cluster, which others cannot reach; to be set before ray is imported."""
    # On Linux ray.init turns 127.0.0.1 into the machine's address and its servers listen on all interfaces
    # (services.resolve_ip_for_localhost), unless clusters of several machines are switched off by this.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15: beside any other work trials would all but stand
    if "RAY_AUTH_MODE" not in os.environ:  # Ray 2.60 would write a token into ~/.ray
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _init(compute: ComputeConfig, folder: Path | None) -> None:
    """Connects, for a local cluster with its files in the folder (the path of a socket has 107 bytes at most)."""
    import ray
    from ray._private import worker

    # Pages of a dead raylet's log on standard output, log_to_driver or not (listen_error_messages).
    worker.print_to_stdstream = lambda *_, **__: None
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": worker_environment(compute) | passed},
    }
    if compute.address is None:
        room = max(cores(), (compute.workers or 1) * compute.cpus_per_trial)
        # "local": None would follow RAY_ADDRESS.
        here: dict[str, Any] = {"_node_ip_address": "127.0.0.1", "_temp_dir": f"{folder}/r"}
        ray.init("local", num_cpus=room, include_dashboard=False, **here, **common)
        return
    _check_reachable(compute.address)
    try:
        ray.init(compute.address, **common)
    except Exception as error:
        ray.shutdown()
        raise _unreachable(compute.address, _sentence(error)) from error


def _check_reachable(address: str) -> None:
    """Ray tries a dead address for two minutes and then may end the process; a TCP connection knows at once."""
    from ray._private.services import canonicalize_bootstrap_address_or_die

    if "://" in address:
        raise _unreachable(address, "clients (ray://) cannot run a sweep")
    try:
        found = canonicalize_bootstrap_address_or_die(address)  # resolves "auto"
        host, _, port = found.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), REACH):
            pass
    except (OSError, ValueError) as error:
        raise _unreachable(address, _sentence(error)) from error


def _unreachable(address: str, why: str) -> UserError:
    return UserError(
        f"compute.address={address}: no Ray cluster answers ({why}); run `ray start --address=<head>:6379` on this "
        "machine (`ray start --head` on the first) and say compute.address=auto, or null for a local one"
    )


class RayCluster:
    """Calls as Ray tasks that Ray does not retry: the driver decides."""

    def __init__(self, compute: ComputeConfig) -> None:
        import ray

        self._compute = compute
        self._task = ray.remote(max_retries=0, num_cpus=compute.cpus_per_trial, num_gpus=compute.gpus_per_trial)(_run)
        self._here = (socket.gethostname(), ray.util.get_node_ip_address())
        self._running: dict[Future[Any], Any] = {}
        self._seen: tuple[float, list[dict[str, Any]]] = (-FRESH, [])
        self._closed = False

    def _nodes(self) -> list[dict[str, Any]]:
        """The living nodes."""
        import ray

        if not self._closed and time.monotonic() - self._seen[0] >= FRESH:
            self._seen = (time.monotonic(), [node for node in ray.nodes() if node["Alive"]])
        return self._seen[1]

    def _room(self, node: dict[str, Any]) -> int:
        """Trials that fit on a node at once."""
        each = self._compute.gpus_per_trial
        has = node["Resources"]
        room = int(has.get("CPU", 0) // self._compute.cpus_per_trial)
        if not each:
            return room
        count = int(has.get("GPU", 0))
        return min(room, count * int(1 / each + 1e-9) if each < 1 else int(count // each))

    @property
    def slots(self) -> int:
        """Trials that fit on the cluster as it is now, at most compute.workers."""
        room = sum(map(self._room, self._nodes()))
        return max(1, min(room, self._compute.workers or room))

    @property
    def where(self) -> str:
        """The place in words."""
        nodes = len(self._nodes())
        return f"on a Ray cluster of {nodes} node{'s' if nodes > 1 else ''}, {self.slots} at a time"

    def check_room(self, echo: Echo) -> None:
        """Says when no node has room for a trial; on this machine alone, which will not grow, it is an error."""
        if any(map(self._room, self._nodes())):
            return
        need = f"compute.cpus_per_trial={self._compute.cpus_per_trial} gpus_per_trial={self._compute.gpus_per_trial}"
        if self._compute.address is None:
            raise UserError(f"{need}: more than this machine has; lower them")
        echo(f"{need}: no node of the Ray cluster has as much; trials wait for one that has")

    def submit(self, call: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Hands the call to Ray, which queues it until a node has room."""
        self._check_open()
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            secrets = {name: os.environ[name] for name in SECRET if name in os.environ}  # arguments are in no log
            ref = self._task.remote(secrets, call, args)
        except Exception as error:  # what cannot be pickled
            future.set_exception(error)
            return future
        self._running[future] = ref
        future.add_done_callback(lambda done: self._running.pop(done, None))
        ref.future().add_done_callback(partial(_settle, future))
        return future

    def share(self, value: Any) -> Shared:
        """Puts the value into Ray's object store; workers get arrays that cannot be written to."""
        import ray

        self._check_open()
        return _Put(ray.put(value))

    def foreign_hosts(self) -> list[str]:
        """Hosts of the nodes with room for a trial that are not this machine, by name or address."""
        hosts = {(n["NodeManagerHostname"], n["NodeManagerAddress"]) for n in self._nodes() if self._room(n)}
        return sorted(name or address for name, address in hosts - {self._here})

    def close(self) -> None:
        """Kills what runs and leaves the cluster; nothing happens the second time."""
        import ray

        if self._closed:
            return
        self._closed = True
        for future, ref in list(self._running.items()):
            with suppress(InvalidStateError):
                future.set_exception(CancelledError())
            with suppress(Exception):  # the cluster may be gone
                ray.cancel(ref, force=True)
        ray.shutdown()

    def _check_open(self) -> None:
        # Ray would start a cluster of its own accord.
        if self._closed:
            raise RuntimeError("the executor is closed")


def _settle(future: Future[Any], task: Future[bytes]) -> None:
    """Gives the future what came of the task."""
    with suppress(InvalidStateError):  # closed meanwhile
        try:
            future.set_result(outcome(task.result()))
        except InvalidStateError:
            raise
        except BaseException as error:
            future.set_exception(_translated(error))


def _translated(error: BaseException) -> BaseException:
    """The call's own exception, or Lost for the death of what ran it."""
    from ray import exceptions as ray_errors

    deaths = (
        ray_errors.WorkerCrashedError,
        ray_errors.NodeDiedError,
        ray_errors.LocalRayletDiedError,
        ray_errors.RayActorError,
        ray_errors.ObjectLostError,
        ray_errors.RaySystemError,
        ray_errors.OutOfDiskError,
    )
    if isinstance(error, ray_errors.RayTaskError):
        # Not from the call, which `answer` guards: the call could not be loaded (no such module on that node).
        return RuntimeError(f"on a Ray worker: {_sentence(error.cause)}")
    if isinstance(error, ray_errors.OutOfMemoryError):
        return Lost(f"out of memory: {_sentence(error)}")
    if isinstance(error, ray_errors.TaskCancelledError):
        return CancelledError()
    return Lost(_sentence(error)) if isinstance(error, deaths) else error


def _sentence(error: BaseException) -> str:
    """The first sentence of Ray's explanation, without its full stop."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ")[0].rstrip(".")[:200]


def _run(secrets: dict[str, str], call: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    os.environ.update(secrets)
    pin_warnings()
    return answer(call, *args)


@dataclass(frozen=True)
class _Put:
    ref: Any

    def get(self) -> Any:
        return _get(self.ref)


@cache
def _get(ref: Any) -> Any:
    import ray

    return ray.get(ref)
