"""Background tasks: work that nobody awaits, held until it ends, its failure logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("hub.tasks")


class BackgroundTasks:
    """The background tasks of one owner. `failure` is what ended a vital one: the owner is of no use any more."""

    def __init__(self) -> None:
        # Kept: up to Python 3.11 asking for the running loop asks the kernel for the process id each time.
        self._loop = asyncio.get_running_loop()
        # In the order in which they were spawned; the values mean nothing.
        self._running: dict[asyncio.Task[Any], None] = {}
        self.failure: BaseException | None = None
        self._failed = asyncio.Event()

    def __iter__(self) -> Any:
        return iter(list(self._running))

    def spawn(self, work: Coroutine[Any, Any, None], *, vital: bool = False) -> asyncio.Task[None]:
        """Run a coroutine in the background. An unexpected failure is logged; of a vital one it becomes `failure`."""
        task = self._loop.create_task(work)
        self._running[task] = None
        task.add_done_callback(self._vital_ended if vital else self._ended)
        return task

    async def wait_failed(self) -> None:
        """Wait until a vital task has failed."""
        await self._failed.wait()

    async def stop(self) -> None:
        """Cancel every task and wait until all have ended."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task failed", exc_info=error)

    def _vital_ended(self, task: asyncio.Task[Any]) -> None:
        if self.failure is not None or task.cancelled() or task.exception() is None:
            self._ended(task)
            return
        self._running.pop(task, None)
        self.failure = error = task.exception()
        self._failed.set()
        log.error("a background task failed; the hub ends", exc_info=error)
