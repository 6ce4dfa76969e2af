"""The hub's state in Redis, as one node sees it: the connections, and the moves that the node may make."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Protocol

from hub.message import StoredMessage
from hub.redis.bus import Bus, BusListener
from hub.redis.commands import Commands, CommandsListener
from hub.redis.connection import database
from hub.settings import Settings
from hub.store.keys import Keys
from hub.store.leases import Leases
from hub.store.loss_detector import LossDetector
from hub.store.publishing import GroupCommit
from hub.store.results import HistoryPage
from hub.store.scripts import read_all
from hub.store.server_check import (
    ServerDescription,
    ServerIdentity,
    check_server,
    describe_server,
)
from hub.store.sessions import StoredSessions

log = logging.getLogger("hub.store")


class StoreListener(BusListener, Protocol):
    """Is notified of what happens to the bus and to Redis: `hub.node.node.Node`."""

    def on_redis_changed(self) -> None:
        """Redis is another server now, or has another history (a restart, a failover)."""


class Store(CommandsListener):
    """The connections to Redis, and the moves by what they change. Raises BadRequest for a URL that cannot be meant.

    `node_id` names this node in Redis; a random one by default.
    """

    def __init__(
        self, settings: Settings, url: str, listener: StoreListener, node_id: str = ""
    ) -> None:
        self.settings = settings
        self.keys = keys = Keys(settings.redis_prefix, database=database(url))
        self.node_id = node_id or secrets.token_hex(8)
        self._listener = listener
        # The server that the command connection led to last.
        self._identity: ServerIdentity | None = None
        # What it is, for people.
        self.server = ServerDescription("", "")
        # When the command connection was last made, on the loop's clock.
        self.connected_at = 0.0
        self.bus = Bus(url, listener, settings.bus_silence)
        self.commands = Commands(url, read_all(), self, settings.redis_timeout)
        self.loss_detector = LossDetector(settings, self.commands, keys)
        self.publishing = GroupCommit(settings, self.commands, keys, self.loss_detector)
        self.sessions = StoredSessions(
            settings, self.commands, keys, self.loss_detector, self.node_id
        )
        self.leases = Leases(settings, self.commands, keys, self.node_id)

    async def start(self) -> None:
        """Connect. Raises Unavailable; BadRequest for a Redis that must not be used."""
        await self.commands.start()
        try:
            await self.bus.start()
        except BaseException:
            await self.commands.stop()
            raise

    async def stop(self) -> None:
        await self.bus.stop()
        await self.commands.stop()

    @property
    def ready(self) -> bool:
        return self.commands.up and self.bus.up

    async def raise_failure(self) -> None:
        """Raise what ended the task that keeps one of the connections, if anything has."""
        self.commands.raise_failure()
        self.bus.raise_failure()

    # -- what the command connection reports

    async def on_connected(self) -> None:
        """Check the server; if it is another one than before, or has another history, find out what it has lost."""
        identity = await check_server(self.commands, self.keys)
        self.connected_at = asyncio.get_running_loop().time()
        known = self._identity
        if known is not None and identity.run_id == known.run_id:
            await self.commands.kill_previous()
        changed = known is not None and identity != known
        if changed:
            log.warning("Redis was restarted or replaced")
            if self.bus.server != identity.run_id:
                # First: what this node has seen up to here is what the new server has to have.
                self.bus.cut()
            # Before anything else uses the connection: a message that is published now would hide the loss.
            await self.loss_detector.detect()
        if identity != known:
            self.server = await describe_server(self.commands)
        self._identity = identity
        if changed:
            self._listener.on_redis_changed()

    def on_demoted(self) -> None:
        """Give the bus up too: a replica's bus brings what its new primary publishes, perhaps of another history."""
        self.bus.cut()

    # -- logs

    async def history(
        self, room: str, after: int | None, before: int | None, limit: int, size: int
    ) -> HistoryPage:
        """Read a log forwards from `after` or, without it, backwards from its end or `before`.

        At most `limit` messages and `size` bytes of them, but one message however long it is; fewer where many have
        expired.
        """
        keys = self.keys
        bounds = ("" if offset is None else str(offset) for offset in (after, before))
        found, more, gap, examined, reached = await self.commands.call_script(
            "history",
            (keys.clock, keys.log(room), keys.meta(room)),
            (*bounds, str(limit), str(size)),
        )
        messages = [StoredMessage.from_log(room, *entry) for entry in found]
        return HistoryPage(messages, more == b"1", gap == b"1", examined, int(reached or 0))

    async def clock(self) -> int:
        """Return the newest offset that was given out."""
        return int(await self.commands.call("GET", self.keys.clock) or 0)
