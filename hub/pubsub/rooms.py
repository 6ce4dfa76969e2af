"""The rooms of a node: which sessions are in them, and fan-out, the way of each message to these.

Messages go out as the bus brings them, the node's own publishes too: there is one order everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from hub.engineio.core.prepared import PreparedMessage
from hub.message import StoredMessage
from hub.pubsub.replay_cache import CacheBudget, ReplayCache
from hub.pubsub.session import Session, SessionState
from hub.settings import Settings
from hub.store.results import ReplayGap
from hub.store.store import Store

log = logging.getLogger("hub.pubsub")


class Room:
    """A room that a session of this node is in, or is about to join."""

    __slots__ = ("cache", "channel", "last_number", "members", "name", "references")

    def __init__(self, name: str, channel: bytes, budget: CacheBudget) -> None:
        self.name = name
        self.channel = channel
        # Its sessions and the offset at which each joined.
        self.members: dict[Session, int] = {}
        # How many members and attempts to join need the bus channel.
        self.references = 0
        # Running number of the last message received; None before the first.
        self.last_number: int | None = None
        self.cache = ReplayCache(name, budget)


class Rooms:
    """All rooms whose bus channels this node subscribes."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        # By channel.
        self._rooms: dict[bytes, Room] = {}
        self.find: Callable[[bytes], Room | None] = self._rooms.get
        self._base = store.keys.room_channel_base.encode()
        # The newest offset that the bus has come to: it brings nothing older any more.
        self.newest_received = 0
        # How often the bus was lost.
        self.bus_losses = 0
        self.budget = CacheBudget(
            settings.replay_memory, settings.log_length, int(settings.log_age * 1e6)
        )

    def __getitem__(self, name: str) -> Room:
        return self._rooms[self._channel(name)]

    def _channel(self, name: str) -> bytes:
        return self._base + name.encode()

    def acquire(self, name: str) -> Room:
        """Subscribe a room's channel; each call is owed a `release`."""
        return self.acquire_all((name,))[0]

    def acquire_all(self, names: Iterable[str]) -> list[Room]:
        """Subscribe the channels of rooms, by one command; each room is owed a `release`."""
        rooms: list[Room] = []
        for name in names:
            channel = self._channel(name)
            room = self._rooms.get(channel)
            if room is None:
                room = self._rooms[channel] = Room(name, channel, self.budget)
            room.references += 1
            rooms.append(room)
        self._store.bus.subscribe(*(room.channel for room in rooms))
        return rooms

    def release(self, room: Room) -> None:
        """Need the channel no more; without references the room is forgotten."""
        room.references -= 1
        if not room.references:
            del self._rooms[room.channel]
            room.cache.clear()
            self._store.bus.unsubscribe(room.channel)

    # -- members

    def add_member(self, session: Session, name: str, join: int) -> None:
        """Deliver a room's messages after the offset `join`; where the session is a member already, the larger one counts."""
        room = self[name] if name in session.joins else self.acquire(name)
        join = max(join, session.joins.get(name, 0))
        session.joins[name] = room.members[session] = join  # rule: join_filter

    def remove_member(self, session: Session, name: str) -> None:
        """Deliver nothing of a room any more."""
        if session.joins.pop(name, None) is not None:
            room = self[name]
            del room.members[session]
            self.release(room)

    def suppress_gap(self, session: Session, gap: ReplayGap) -> None:
        """Deliver nothing of a gap that was reported: a failover can bring it back, as it forgets that the log was cut.

        A `reset` is excepted: what it names is nowhere, and what is older may still be on its way to the session.
        """
        if (
            gap.reason != "reset"  # rule: before_reset
            and gap.room in session.joins
        ):
            self.add_member(session, gap.room, gap.before - 1)  # rule: lost_for_good

    # -- the bus

    def is_subscribed(self, session: Session) -> bool:
        """Tell whether the channel of every room of a session is subscribed."""
        is_subscribed = self._store.bus.is_subscribed
        return all(is_subscribed(self._channel(name)) for name in session.joins)

    async def wait_subscribed(self, session: Session) -> None:
        """Wait until the channel of every room of a session is subscribed."""
        for name in list(session.joins):
            channel = self._channel(name)
            if not self._store.bus.is_subscribed(channel):
                await self._store.bus.wait_subscribed(channel)

    def on_bus_lost(self) -> None:
        """Forget what the bus brought: what it brings next does not follow on it."""
        self.bus_losses += 1
        for room in self._rooms.values():
            room.last_number = None
            room.cache.clear()

    def bus_reached(self, offset: int) -> None:
        """Note that the bus has come to an offset: all older messages that it brings have been received."""
        self.newest_received = max(self.newest_received, offset)

    # -- the way of a message

    def receive(self, room: Room, messages: Sequence[StoredMessage]) -> bool:
        """Note messages of one room that the bus brought together. False: the bus has lost some before one of them."""
        # While the channel is not confirmed, this may be the end of an earlier subscription, with a hole after it.
        remembers = (
            self.budget.bound > 0
            and self._store.bus.is_subscribed(room.channel)  # rule: heard_confirmed
        )
        complete = True
        for message in messages:
            if message.n:
                if room.last_number is not None and message.n > room.last_number + 1:
                    log.warning("the bus lost messages")
                    complete = False
                room.last_number = message.n
                if remembers:
                    room.cache.add(message)
        last = message.offset
        self.newest_received = max(self.newest_received, last)
        self._store.loss_detector.note_received(last, room.name if message.n else "")
        return complete

    def fan_out(self, room: Room, messages: Sequence[StoredMessage]) -> None:
        """Deliver messages of one room that the bus brought together: one write for each member."""
        first, last = messages[0].offset, messages[-1].offset
        if len(messages) == 1:
            wire, plain = messages[0].wire, messages[0].skip_client is None
        else:
            wire = b"".join([message.wire for message in messages])
            plain = all(message.skip_client is None for message in messages)
        frames: list[PreparedMessage] = []
        for session, join in room.members.items():
            if (
                plain
                and session.fast_path
                and session.sent < first  # rule: sent_filter
                and join < first
            ):
                session.sent = last
                connection = session.connection
                if (write_direct := connection.write_direct) is not None:
                    write_direct(wire)
                else:
                    frames = frames or [message.frame for message in messages]
                    connection.write(wire, frames)
            elif session.state is not SessionState.PARKED or session.pauses:
                for message in messages:
                    session.deliver(message)
