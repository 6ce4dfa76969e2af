"""The bus: what nodes tell each other over Redis pub/sub, which may lose messages.

A channel counts as heard only when the *last* command sent for it has been confirmed. A bus that stays silent
although the node's own probes should come back is broken, and made anew; whoever listens is told to heal.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from hub.errors import HubError
from hub.store.link import Link, Reply, connect, pack

log = logging.getLogger("hub.store")

Messages = list[tuple[bytes, bytes]]


class Bus:
    """A subscriber that comes back by itself.

    `on_messages` gets `(channel, payload)` pairs in the order heard, a list a read. `on_lost` is called when the
    connection ended, `on_back` when there is a new one and commands for all wanted channels were sent.
    """

    def __init__(
        self,
        url: str,
        on_messages: Callable[[Messages], None],
        on_lost: Callable[[], None],
        on_back: Callable[[], None],
        silence: float,
    ) -> None:
        self._url = url
        self._on_messages = on_messages
        self._on_lost = on_lost
        self._on_back = on_back
        self._silence = silence
        self._link: Link | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._down = asyncio.Event()
        self._wanted: set[bytes] = set()
        # How many confirmations are owed for a channel; nothing owed and wanted: confirmed.
        self._owed: dict[bytes, int] = {}
        self._waiters: dict[bytes, list[asyncio.Future[None]]] = {}
        self._settled: list[asyncio.Future[None]] = []
        self.up = False

    async def start(self) -> None:
        """Connect. Raises Unavailable."""
        await self._connect()
        self._keeper = asyncio.create_task(self._keep(), name="redis bus")

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        if self._link is not None:
            self._link.close()

    def want(self, channel: bytes) -> None:
        """Begin to listen to a channel; `confirmed` tells when that is so."""
        if channel not in self._wanted:
            self._wanted.add(channel)
            self._command("SUBSCRIBE", channel)

    def drop(self, channel: bytes) -> None:
        """Stop listening to a channel."""
        if channel in self._wanted:
            self._wanted.discard(channel)
            self._command("UNSUBSCRIBE", channel)

    def hears(self, channel: bytes) -> bool:
        return self.up and channel in self._wanted and not self._owed.get(channel)

    async def confirmed(self, channel: bytes) -> None:
        """Wait until a wanted channel is heard."""
        while not self.hears(channel):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(channel, []).append(future)
            await future

    async def settled(self) -> None:
        """Wait until every wanted channel is heard."""
        while not (self.up and not self._owed):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._settled.append(future)
            await future

    def cut(self) -> None:
        """Give the connection up; a new one is made."""
        if self._link is not None:
            self._link.close()

    def _command(self, verb: str, *channels: bytes) -> None:
        if not self.up or self._link is None:
            return
        for channel in channels:
            self._owed[channel] = self._owed.get(channel, 0) + 1
        self._link.send(pack((verb, *channels)), None)

    def _pushed(self, replies: list[Reply]) -> None:
        messages: Messages = []
        for kind, channel, payload in replies:
            if kind == b"message":
                messages.append((channel, payload))
            else:
                self._confirm(channel)
        if messages:
            self._on_messages(messages)

    def _confirm(self, channel: bytes) -> None:
        owed = self._owed.get(channel, 0) - 1
        if owed > 0:
            self._owed[channel] = owed
            return
        self._owed.pop(channel, None)
        if channel in self._wanted:
            _wake(self._waiters.pop(channel, []))
        if not self._owed:
            settled, self._settled = self._settled, []
            _wake(settled)

    async def _connect(self) -> None:
        self._down.clear()
        self._link = await connect(self._url, self._lost, self._pushed)
        self._owed.clear()
        self.up = True
        wanted = sorted(self._wanted)
        for start in range(0, len(wanted), 500):
            self._command("SUBSCRIBE", *wanted[start : start + 500])

    def _lost(self) -> None:
        was_up, self.up = self.up, False
        self._owed.clear()
        self._down.set()
        if was_up:
            self._on_lost()

    async def _keep(self) -> None:
        """Watch the connection; make a new one when it ends or falls silent."""
        delay = 0.05
        loop = asyncio.get_running_loop()
        while True:
            if self.up:
                delay = 0.05
                try:
                    async with asyncio.timeout(self._silence / 4):
                        await self._down.wait()
                except TimeoutError:
                    if self._link is not None and loop.time() - self._link.alive_at > self._silence:
                        log.warning("the bus is silent; making a new connection")
                        self._link.close()
                continue
            try:
                await self._connect()
            except HubError as error:
                log.warning("no bus", extra={"error": error.message})
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, 2.0)
            else:
                self._on_back()


def _wake(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
