"""A connection to Redis that comes back by itself, however often it is lost."""

from __future__ import annotations

import asyncio
import logging
import random

from hub.errors import HubError
from hub.redis.connection import RedisConnection

log = logging.getLogger("hub.redis")

# Seconds between two attempts: doubled from the first to the last with each that fails, and jittered.
FIRST_DELAY, LAST_DELAY = 0.05, 2.0
# Seconds that a connection has to last for the next attempt to be made at once.
STEADY = 5.0


class ReconnectingConnection:
    """What the command connection and the bus have in common: being kept.

    A subclass opens the connection, hears that it was lost, and may give up one that has gone bad.
    """

    def __init__(self, url: str, name: str, check_every: float) -> None:
        self._url = url
        self._name = name
        self._check_every = check_every
        self._link: RedisConnection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._down = asyncio.Event()
        # Kept: up to Python 3.11 asking for the running loop asks the kernel for the process id each time.
        self._loop: asyncio.AbstractEventLoop | None = None
        # Connected and fit for use.
        self.up = False
        # The last attempt came to nothing.
        self._failed = False

    async def start(self) -> None:
        """Connect. Raises HubError."""
        self._loop = asyncio.get_running_loop()
        await self._connect()
        self._keeper = asyncio.create_task(self._keep(), name=f"redis {self._name}")

    async def stop(self) -> None:
        self.up = False
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        self.cut()

    def watch(self) -> None:
        """Raise what ended the keeper, if anything has."""
        if self._keeper is not None and self._keeper.done() and not self._keeper.cancelled():
            self._keeper.result()

    def cut(self) -> None:
        """Give the connection up; a new one is made."""
        if self._link is not None:
            self._link.close()

    async def _connect(self) -> None:
        """Set `_link` and `up`. Raises HubError."""
        raise NotImplementedError

    def _check(self) -> None:
        """Cut the connection if it has gone bad."""
        raise NotImplementedError

    def _on_down(self) -> None:
        """It was fit for use and has ended."""
        raise NotImplementedError

    def _on_back(self) -> None:
        """It is fit for use again."""

    def _lost(self) -> None:
        was_up, self.up = self.up, False
        self._down.set()
        if was_up:
            self._on_down()

    async def _keep(self) -> None:
        clock = asyncio.get_running_loop().time
        delay, tried_at = FIRST_DELAY, clock()
        while True:
            while self.up:
                try:
                    async with asyncio.timeout(self._check_every):
                        await self._down.wait()
                except TimeoutError:
                    self._check()
            # A connection that did not last is paced like an attempt that failed, but does not slow down the next.
            if clock() - tried_at > STEADY:
                delay = FIRST_DELAY
            else:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                if self._failed:
                    delay = min(delay * 2, LAST_DELAY)
            self._down.clear()
            try:
                await self._connect()
                self._failed = False
            except HubError as error:
                self._failed = True
                log.warning("no connection", extra={"for": self._name, "error": error.message})
            else:
                if not self._down.is_set():
                    log.info("connected again", extra={"for": self._name})
                    self._on_back()
            tried_at = clock()
