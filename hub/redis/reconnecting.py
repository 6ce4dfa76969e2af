"""A connection to Redis that is made anew whenever it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

from hub.errors import HubError
from hub.redis.connection import AWAY, ConnectionListener, RedisConnection, Reply
from hub.refusals import RefusalLog

log = logging.getLogger("hub.redis")

# Seconds between two attempts: doubled from the first to the last with each that fails, and jittered.
FIRST_DELAY, LAST_DELAY = 0.05, 2.0
# Seconds that a connection has to last for the next attempt to be made at once.
STEADY = 5.0


class ReconnectingConnection(ConnectionListener):
    """What the command connection and the bus have in common: a task that makes a new connection when the last one ended.

    A subclass opens the connection (`_connect`) and closes one that has gone bad (`_check`).
    """

    def __init__(self, url: str, name: str, check_every: float) -> None:
        self._url = url
        self._name = name
        self._check_every = check_every
        self._connection: RedisConnection | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._down = asyncio.Event()
        # Stored, because up to Python 3.11 asking for the running loop asks the kernel for the process id each time.
        self._loop: asyncio.AbstractEventLoop | None = None
        # True: connected, and ready for use.
        self.up = False
        # True: the last attempt to connect has failed.
        self._failed = False
        # While it is not up: why, in words that a client may see.
        self.why_down = AWAY
        self._refusals = RefusalLog(log)

    async def start(self) -> None:
        """Connect. Raises HubError."""
        self._loop = asyncio.get_running_loop()
        await self._connect()
        self._reconnecting = asyncio.create_task(self._reconnect(), name=f"redis {self._name}")

    async def stop(self) -> None:
        self.up = False
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.wait([self._reconnecting])
            self._reconnecting = None
        self.cut()
        self._refusals.close()

    def raise_failure(self) -> None:
        """Raise what ended the task that makes new connections, if anything has."""
        if (
            self._reconnecting is not None
            and self._reconnecting.done()
            and not self._reconnecting.cancelled()
        ):
            self._reconnecting.result()

    def cut(self) -> None:
        """Close the connection; a new one is made."""
        if self._connection is not None:
            self._connection.close()

    async def _connect(self) -> None:
        """Connect: set `_connection` and `up`. Raises HubError."""
        raise NotImplementedError

    def _check(self) -> None:
        """Close the connection if it has gone bad."""
        raise NotImplementedError

    def _on_down(self) -> None:
        """The connection was ready for use, and has ended."""
        raise NotImplementedError

    def _on_back(self) -> None:
        """There is a new connection, ready for use."""

    # -- what the connection reports

    def on_pushed(self, replies: list[Reply]) -> None:
        """Take replies that no command waits for."""
        raise NotImplementedError

    def on_connection_lost(self) -> None:
        was_up, self.up = self.up, False
        if was_up:
            self.why_down = AWAY
        self._down.set()
        if was_up:
            self._on_down()

    # -- making new connections

    async def _reconnect(self) -> None:
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
                self.why_down = AWAY if error.message.startswith(AWAY) else error.message
                fields: dict[str, Any] = {"for": self._name, "error": error.message}
                self._refusals.note("connect", error.message, "no connection", **fields)
            else:
                if not self._down.is_set():
                    log.info("connected again", extra={"for": self._name})
                    self._on_back()
            tried_at = clock()
