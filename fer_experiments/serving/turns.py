"""Who has a turn when many ask: the smallest piece of work first, and images of several requests in one batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from heapq import heappop, heappush
from itertools import count
from typing import Any

import numpy as np

QUICK = (
    50_000  # units (see `weight`), or bytes of JSON, that are done at once: less than handing them to a thread takes
)
BATCH = 64  # images at once
SECONDS = 0.1  # that a batch should take at most: of a large network it has fewer images


class Turns:
    """A thread for work that takes long; of what waits, the smallest is next."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()
        self._taken = False

    async def take(self, units: int, work: Callable[..., Any], *given: Any) -> Any:
        """What `work` returns. units: what all that is left of a request will take."""
        if units <= QUICK:
            return work(*given)
        loop = asyncio.get_running_loop()
        if self._taken:
            turn = loop.create_future()
            heappush(self._waiting, (units, next(self._order), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # it had its turn already
                    self._next()
                raise
        self._taken = True
        try:
            return await loop.run_in_executor(self._thread, work, *given)
        finally:
            self._next()

    def _next(self) -> None:
        while self._waiting:
            turn = heappop(self._waiting)[-1]
            if not turn.done():
                turn.set_result(None)
                return
        self._taken = False


class _Asked:
    """Images that wait for the model, and what it has said of some of them."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.parts: list[np.ndarray] = []
        self.answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()


class Batches:
    """The model, in one thread: TensorFlow does not promise that it may be called by several at once, and uses all
    cores for each call. What comes while it is busy is asked as one batch, the requests of fewest images first.
    """

    def __init__(self, probabilities: Callable[[np.ndarray], np.ndarray]) -> None:
        self._probabilities = probabilities
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._waiting: list[tuple[int, int, _Asked]] = []
        self._order = count()
        self._task: asyncio.Task[None] | None = None
        self.each = 0.0  # seconds that an image takes

    async def ask(self, pixels: np.ndarray) -> np.ndarray:
        """float32 [n, classes] of uint8 [n, h, w]."""
        asked = _Asked(pixels)
        self._wait(asked)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return await asked.answer

    def _wait(self, asked: _Asked) -> None:
        heappush(self._waiting, (len(asked.pixels), next(self._order), asked))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next():
            pixels = np.concatenate([rows for _, rows in batch])
            try:
                answer = await loop.run_in_executor(self._thread, self._timed, pixels)
            except Exception as error:
                for asked, _ in batch:
                    if not asked.answer.done():
                        asked.answer.set_exception(error)
                continue
            for asked, rows in batch:
                asked.parts.append(answer[: len(rows)])
                answer = answer[len(rows) :]
                asked.pixels = asked.pixels[len(rows) :]
                if asked.answer.done():
                    continue  # its client has gone
                if len(asked.pixels):
                    self._wait(asked)
                else:
                    asked.answer.set_result(np.concatenate(asked.parts))

    def _next(self) -> list[tuple[_Asked, np.ndarray]]:
        """What is asked next, by whom."""
        batch: list[tuple[_Asked, np.ndarray]] = []
        room = max(1, min(BATCH, int(SECONDS / self.each))) if self.each else 1
        while self._waiting and room:
            asked = heappop(self._waiting)[-1]
            if not asked.answer.done():
                batch.append((asked, asked.pixels[:room]))
                room -= len(batch[-1][1])
        return batch

    def _timed(self, pixels: np.ndarray) -> np.ndarray:
        started = time.perf_counter()
        answer = self._probabilities(pixels)
        each = (time.perf_counter() - started) / len(pixels)
        self.each = each if not self.each else 0.8 * self.each + 0.2 * each
        return answer
