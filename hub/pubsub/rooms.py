"""The rooms of a node: who is in them, and the way of every message to those.

Messages go out as they are heard on the bus, a node's own too: one order everywhere.
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
    """A room that somebody here is in, or is about to be."""

    __slots__ = ("channel", "members", "n", "name", "recent", "wanted")

    def __init__(self, name: str, channel: bytes, memory: CacheBudget) -> None:
        self.name = name
        self.channel = channel
        # Its sessions and the offset at which each joined.
        self.members: dict[Session, int] = {}
        # How many members and attempts to join need the bus channel.
        self.wanted = 0
        # Running number of the last message heard; None before the first.
        self.n: int | None = None
        self.recent = ReplayCache(name, memory)


class Rooms:
    """All rooms that this node hears. `replay` is told whom a message was lost to."""

    def __init__(
        self, settings: Settings, store: Store, replay: Callable[[Iterable[Session]], None]
    ) -> None:
        self._store = store
        self._replay = replay
        # By channel.
        self._rooms: dict[bytes, Room] = {}
        self.find: Callable[[bytes], Room | None] = self._rooms.get
        self._base = store.keys.room_channel_base.encode()
        # The newest offset heard, and the newest one remembered that was read from a log.
        self._heard = self.read = 0
        self.memory = CacheBudget(
            settings.replay_memory, settings.log_length, int(settings.log_age * 1e6)
        )

    def channel(self, name: str) -> bytes:
        return self._base + name.encode()

    def want(self, name: str) -> Room:
        """Listen to a room's channel; each call is owed an `unwant`."""
        channel = self.channel(name)
        room = self._rooms.get(channel)
        if room is None:
            room = self._rooms[channel] = Room(name, channel, self.memory)
            self._store.bus.want(channel)
        room.wanted += 1
        return room

    def unwant(self, room: Room) -> None:
        room.wanted -= 1
        if not room.wanted:
            del self._rooms[room.channel]
            room.recent.clear()
            self._store.bus.drop(room.channel)

    def enter(self, session: Session, name: str, join: int) -> None:
        """Deliver what comes behind an offset; where a session is in the room already, the larger one counts."""
        room = self._rooms[self.channel(name)] if name in session.joins else self.want(name)
        join = max(join, session.joins.get(name, 0))
        session.joins[name] = room.members[session] = join  # rule: join_filter

    def lost(self, session: Session, gap: ReplayGap) -> None:
        """Deliver nothing of a gap that was told: a failover brings it back, as it forgets that the log was cut.

        Not so a `reset`: what it names is nowhere, and what lies before it may be on its way to the session still.
        """
        if (
            gap.reason != "reset"  # rule: before_reset
            and gap.room in session.joins
        ):
            self.enter(session, gap.room, gap.before - 1)  # rule: lost_for_good

    def leave(self, session: Session, name: str) -> None:
        if session.joins.pop(name, None) is not None:
            room = self._rooms[self.channel(name)]
            del room.members[session]
            self.unwant(room)

    def hears(self, session: Session) -> bool:
        """Tell whether the bus is heard in every room of a session."""
        hears = self._store.bus.hears
        return all(hears(self.channel(name)) for name in session.joins)

    async def confirmed(self, session: Session) -> None:
        """Wait until the bus is heard in every room of a session."""
        for name in list(session.joins):
            await self._store.bus.confirmed(self.channel(name))

    def deaf(self) -> None:
        """The bus is lost: what is heard after it does not follow on what was heard before."""
        self.read = 0
        for room in self._rooms.values():
            room.n = None
            room.recent.clear()

    def passed(self, offset: int) -> None:
        """The bus has come to an offset: what it brings of older messages has been heard."""
        self._heard = max(self._heard, offset)

    # -- the way of a message

    def fan_out(self, room: Room, messages: Sequence[StoredMessage]) -> None:
        """Deliver messages of one room that were heard together: one write for each member."""
        # Where the channel is not confirmed, this may be the end of an earlier subscription, with a hole behind it.
        remembers = (
            self.memory.bound > 0 and self._store.bus.hears(room.channel)  # rule: heard_confirmed
        )
        for message in messages:
            if message.n:
                if room.n is not None and message.n > room.n + 1:
                    log.warning("the bus lost messages")
                    self._replay(room.members)
                room.n = message.n
                if remembers:
                    room.recent.hear(message)
        first, last = messages[0].offset, message.offset
        if len(messages) == 1:
            wire, plain = message.wire, message.skip is None
        else:
            wire = b"".join([message.wire for message in messages])
            plain = all(message.skip is None for message in messages)
        frames: list[PreparedMessage] = []
        seen = self._store.seen
        seen.newest = max(seen.newest, last)
        self._heard = max(self._heard, last)
        if message.n and last > seen.witness[1]:
            seen.witness = room.name, last
        for session, join in room.members.items():
            if (
                plain
                and session.direct
                and session.sent < first  # rule: sent_filter
                and join < first
            ):
                session.sent = last
                peer = session.peer
                if (direct := peer.direct) is not None:
                    direct(wire)
                else:
                    frames = frames or [message.frame for message in messages]
                    peer.write(wire, frames)
            elif session.state is not SessionState.PARKED or session.holding:
                for message in messages:
                    session.deliver(message)

    # -- what the rooms remember

    @property
    def ahead(self) -> bool:
        """Tell whether a room remembers what the bus has not come to: older messages of others may be on their way."""
        return self.read > self._heard  # rule: read_ahead

    def lows(self, session: Session) -> dict[str, int]:
        """Return, for the rooms of a session that remember all that it has not been written, behind which offset they do.

        Of the others Redis decides what was missed: it may know of a room left whose answer this node has never got.
        """
        lows: dict[str, int] = {}
        if self.ahead:
            return lows
        for name, join in session.joins.items():
            low = self._rooms[self.channel(name)].recent.low
            if low is not None:
                if low <= max(session.sent, join):  # rule: left_unheard
                    lows[name] = low
        return lows

    def remembered(self, session: Session, names: Iterable[str]) -> dict[int, StoredMessage] | None:
        """Return what a session has not been written of some rooms, by offset; None where that is not known any more."""
        found: dict[int, StoredMessage] = {}
        if self.ahead:
            return None
        for name in names:
            join = session.joins.get(name)
            if join is None:
                continue  # left meanwhile
            messages = self._rooms[self.channel(name)].recent.since(max(session.sent, join))
            if messages is None:
                return None
            found.update((message.offset, message) for message in messages)
        return found

    def learn(
        self, session: Session, after: int, messages: Iterable[StoredMessage], *, last: bool
    ) -> None:
        """Remember what was read from the logs for a session: all that its rooms have behind `after` and gaps it was told."""
        if not self.memory.bound:
            return
        by_room: dict[str, list[StoredMessage]] = {}
        for message in messages:
            by_room.setdefault(message.room, []).append(message)
        for name, found in by_room.items():
            join = session.joins.get(name)
            if join is not None and found[0].offset > join:
                recent = self._rooms[self.channel(name)].recent
                if recent.fetched(max(after, join), found, last=last):  # rule: learn_whole
                    self.read = max(self.read, found[-1].offset)
