"""The node: one hub process among others. It puts the parts of pub/sub together and acts on what the bus does."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from hub.message import StoredMessage
from hub.node.control import Control
from hub.node.maintenance import Maintenance
from hub.pubsub.cached_replay import CachedReplay
from hub.pubsub.history import HistoryReader
from hub.pubsub.replay import Replayer
from hub.pubsub.rooms import Room, Rooms
from hub.pubsub.session_observers import SessionObservers
from hub.pubsub.sessions import Sessions
from hub.settings import Settings
from hub.store.store import Store, StoreListener
from hub.tasks import BackgroundTasks

log = logging.getLogger("hub.node")


class Node(StoreListener):
    """One hub process's share of the hub. `tasks.failure` says what has made it useless, if anything has.

    `node_id` names it in Redis; a random one by default. `tasks`: those of the process, which `stop` ends.
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        node_id: str = "",
        tasks: BackgroundTasks | None = None,
    ) -> None:
        self.settings = settings
        self.tasks = BackgroundTasks() if tasks is None else tasks
        self.store = Store(settings, url, self, node_id)
        # Parts of the hub that depend on the turns in sessions' lives register here; there are none yet.
        self.observers = SessionObservers()
        self.rooms = Rooms(settings, self.store)
        self.cached_replay = CachedReplay(self.rooms, self.store)
        replayer = Replayer(settings, self.store, self.rooms, self.cached_replay, self.tasks)
        self.sessions = Sessions(
            settings, self.store, self.rooms, replayer, self.tasks, self.observers
        )
        self.history = HistoryReader(settings, self.store)
        self.control = Control(self.store, self.rooms, self.sessions, self.observers)
        self.maintenance = Maintenance(
            settings, self.store, self.sessions, self.cached_replay, self.tasks
        )

    async def start(self) -> None:
        """Connect to Redis and take a lease. Raises HubError where that fails or takes too long; `stop` either way."""
        await self.store.start()
        await self.control.start(self.settings.redis_timeout)
        await self.store.leases.renew(first=True)

    async def stop(self) -> None:
        self.sessions.stop()
        await self.tasks.stop()
        await self.store.stop()
        self.sessions.refusals.close()

    # -- what the store reports

    def on_messages(self, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Deliver what one read of the bus brought; a room's messages in a row go out in one write.

        All of it is decoded before the first is written: a receiver that is woken by one write finds the next ones there,
        and need not be woken again.
        """
        runs: list[tuple[Room, list[StoredMessage]]] = []
        latest: Room | None = None
        find = self.rooms.find
        for channel, payload in messages:
            room = find(channel)
            if room is None:
                self._deliver(runs)
                runs.clear()
                self.control.receive(channel, payload)
            elif room is latest:
                runs[-1][1].append(StoredMessage.from_bus(room.name, payload))
            else:
                runs.append((room, [StoredMessage.from_bus(room.name, payload)]))
            latest = room
        self._deliver(runs)

    def _deliver(self, runs: list[tuple[Room, list[StoredMessage]]]) -> None:
        rooms = self.rooms
        for room, messages in runs:
            if not rooms.receive(room, messages):
                self.sessions.catch_up_all(room.members)
            rooms.fan_out(room, messages)

    def on_bus_lost(self) -> None:
        """Let no session be live until the bus is back and the logs were read."""
        log.warning("lost the bus")
        self.store.loss_detector.on_bus_lost(self.sessions)
        self.rooms.on_bus_lost()
        self.cached_replay.on_bus_lost()
        self.sessions.on_bus_lost()

    def on_bus_back(self) -> None:
        log.info("the bus is back")
        self.sessions.catch_up_all(self.sessions)

    def on_redis_changed(self) -> None:
        self.store.loss_detector.on_redis_changed(self.sessions)
        self.maintenance.on_redis_changed()
