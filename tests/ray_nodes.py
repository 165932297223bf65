"""A real Ray cluster on this machine, of a head that runs nothing and nodes that can be killed."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
# Where a worker finds the module of a test that it runs a function of: Ray passes on no sys.path.
WORKERS_PATH = os.pathsep.join(map(str, [TESTS.parent, TESTS, *filter(Path.is_dir, TESTS.iterdir())]))
TOKEN = secrets.token_hex(32)  # Ray reads it once a process: a second cluster in it with another one is refused


@contextmanager
def ray_cluster(*nodes: int) -> Iterator[Any]:
    """A cluster on the loopback address with a node for each number of CPUs; `cluster.nodes` are these, in order."""
    settings = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # beside other work tests would wait for minutes
        "PYTHONPATH": WORKERS_PATH,
    }
    with pytest.MonkeyPatch.context() as patch:
        for key, value in settings.items():
            patch.setenv(key, value)
        from ray.cluster_utils import Cluster

        handler = signal.getsignal(signal.SIGTERM)  # each node puts its own in its place
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            cluster.nodes = [cluster.add_node(num_cpus=cpus) for cpus in nodes]
            signal.signal(signal.SIGTERM, handler)
            yield cluster
        finally:
            cluster.shutdown()
            signal.signal(signal.SIGTERM, handler)
