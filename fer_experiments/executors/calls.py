"""How a call and its outcome travel between the driver and a worker, and the environment of workers."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from fer_experiments.config import ComputeConfig


class Lost(Exception):
    """The worker, or its machine, died before it answered: the call can be given to another."""


class Shared(Protocol):
    """A picklable handle of a value that many calls need."""

    def get(self) -> Any:
        """The value, loaded at the first call in a process and kept."""


def answer(call: Callable[..., Any], *args: Any) -> bytes:
    """What came of call(*args), in a form that the driver can always read: see `outcome`."""
    try:
        return pickle.dumps(("result", pickle.dumps(call(*args)), ""))
    except BaseException as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        pickled = b""
        if isinstance(error, Exception):  # SystemExit and the like must not end the driver
            with suppress(Exception):  # one that is frozen takes none
                error.add_note(f"in worker process {os.getpid()}:\n{traceback.format_exc()}")
            try:
                pickled = pickle.dumps(error)
            except Exception:
                pickled = b""
        return pickle.dumps(("error", pickled, text))


def outcome(answered: bytes) -> Any:
    """The result in an answer; raises what the call raised, as a RuntimeError if that cannot be pickled."""
    kind, pickled, text = pickle.loads(answered)
    if kind == "result":
        return pickle.loads(pickled)
    error: Any = None
    try:
        error = pickle.loads(pickled)
    except Exception:  # one whose constructor takes other arguments than its `args` pickles and does not unpickle
        error = None
    raise error if isinstance(error, BaseException) else RuntimeError(text)


def worker_environment(compute: ComputeConfig) -> dict[str, str]:
    """Environment variables of a worker; what the user has set stays."""
    threads = str(compute.cpus_per_trial)
    defaults = {
        "OMP_NUM_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Two trials on one GPU: neither may take all of its memory.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return {name: os.environ.get(name, value) for name, value in defaults.items()}


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
