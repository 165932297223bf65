"""What an executor is; each is a file of this folder, `opened` there, found by the name in the config."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, Protocol

from fer_experiments.config import ComputeConfig
from fer_experiments.executors.calls import Lost, Shared
from fer_experiments.terminal import Echo, say

__all__ = ["Executor", "Lost", "Shared", "open_executor"]


class Executor(Protocol):
    """Runs calls somewhere, `slots` of them at once.

    Calls, arguments and results travel pickled, except inline. What a call raises is raised by its future, `Lost` if
    its worker died; only inline does an exception that is no Exception (Ctrl-C) end the driver's own loop.
    Calls at once need a process each: a fit seeds, and clears, what Keras keeps for its whole process.
    """

    @property
    def slots(self) -> int:
        """How many calls make sense at once, now: at least 1; a Ray cluster grows and shrinks."""

    @property
    def where(self) -> str:
        """The place in words."""

    def submit(self, call: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Starts call(*args), or queues it when all slots are taken."""

    def share(self, value: Any) -> Shared:
        """A handle that calls take as an argument: `get()` loads the value once in each worker process."""

    def foreign_hosts(self) -> list[str]:
        """Names of the other machines that calls may run on: paths of this one mean nothing there."""
        return []

    def close(self) -> None:
        """Kills at once what still runs, and takes no more calls; may be called again. Futures that had not ended
        raise CancelledError."""


def open_executor(compute: ComputeConfig, echo: Echo = say) -> AbstractContextManager[Executor]:
    """The executor that `compute` describes. On leaving, by any exception too, what still runs is killed at once.

    Raises:
        UserError: more GPUs asked for than there are, or a Ray cluster that cannot be reached.
    """
    opened: AbstractContextManager[Executor] = import_module(f"{__package__}.{compute.name}").opened(compute, echo)
    return opened
