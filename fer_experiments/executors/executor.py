"""Where a trial runs: in this process, in worker processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fer_experiments.errors import UserError
from fer_experiments.executors.calls import Lost, Shared

if TYPE_CHECKING:
    from fer_experiments.config import ComputeConfig

__all__ = ["Executor", "Inline", "Lost", "Shared", "open_executor"]


class Executor(Protocol):
    """Runs calls somewhere, `slots` of them at once.

    Calls, arguments and results travel pickled, except inline. What a call raises is raised by its future, `Lost` if
    its worker died; only inline does an exception that is no Exception (Ctrl-C) end the driver's own loop.
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

    def close(self) -> None:
        """Kills at once what still runs, and takes no more calls; may be called again. Futures that had not ended
        raise CancelledError."""


class Inline:
    """Each call runs at once, in this process."""

    slots = 1
    where = "in this process"

    def submit(self, call: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Runs the call; the future is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def share(self, value: Any) -> Shared:
        """The value itself."""
        return _Held(value)

    def foreign_hosts(self) -> list[str]:
        """None."""
        return []

    def close(self) -> None:
        """Nothing runs between two calls."""


@dataclass(frozen=True)
class _Held:
    value: Any

    def get(self) -> Any:
        return self.value


@contextmanager
def open_executor(compute: ComputeConfig, echo: Callable[[str], None] = print) -> Iterator[Executor]:
    """The executor that `compute` describes. On leaving, by any exception too, what still runs is killed at once.

    Raises:
        UserError: more GPUs asked for than there are, or a Ray cluster that cannot be reached.
    """
    match compute.name:
        case "inline":
            yield Inline()
        case "processes":
            from fer_experiments.executors.processes import open_processes

            with open_processes(compute) as processes:
                yield processes
        case "ray":
            from fer_experiments.executors.ray_cluster import open_ray

            with open_ray(compute, echo) as cluster:
                yield cluster
        case _:
            raise UserError(f"compute.name={compute.name}: choose one of inline, processes, ray")
