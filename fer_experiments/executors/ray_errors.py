"""What came of a Ray task: the call's result, its own exception, or Lost."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from typing import Any

from fer_experiments.executors.calls import Lost, outcome


def settle(future: Future[Any], task: Future[bytes]) -> None:
    """Gives the future what came of the task."""
    with suppress(InvalidStateError):  # closed meanwhile
        try:
            future.set_result(outcome(task.result()))
        except InvalidStateError:
            raise
        except BaseException as error:
            future.set_exception(translated(error))


def translated(error: BaseException) -> BaseException:
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
        return RuntimeError(f"on a Ray worker: {sentence(error.cause)}")
    if isinstance(error, ray_errors.OutOfMemoryError):
        return Lost(f"out of memory: {sentence(error)}")
    if isinstance(error, ray_errors.TaskCancelledError):
        return CancelledError()
    return Lost(sentence(error)) if isinstance(error, deaths) else error


def sentence(error: BaseException) -> str:
    """The first sentence of Ray's explanation, without its full stop."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ")[0].rstrip(".")[:200]
