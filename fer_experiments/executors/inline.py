"""This process: one call after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fer_experiments.config import ComputeConfig
from fer_experiments.executors.executor import Executor, Shared
from fer_experiments.terminal import Echo


@contextmanager
def opened(compute: ComputeConfig, echo: Echo) -> Iterator[Inline]:
    """This process."""
    yield Inline()


class Inline(Executor):
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

    def close(self) -> None:
        """Nothing runs between two calls."""


@dataclass(frozen=True)
class _Held:
    value: Any

    def get(self) -> Any:
        return self.value
