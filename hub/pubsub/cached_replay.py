"""Replay without reading logs: what the rooms' replay caches hold of the messages that a session missed.

The caches of a node are as good as the logs only while two things hold. The bus has come to everything that they have
from a log (`is_ahead`): until then older messages of other rooms may be on their way. And they are asked for a
session's rooms only where they are complete from the position that the session needs.
"""

from __future__ import annotations

from collections.abc import Iterable

from hub.errors import Unavailable
from hub.message import StoredMessage
from hub.pubsub.rooms import Rooms
from hub.pubsub.session import Session
from hub.store.store import Store


class CachedReplay:
    """The replay caches of all rooms of a node, as a session sees them."""

    def __init__(self, rooms: Rooms, store: Store) -> None:
        self._rooms = rooms
        self._store = store
        # The newest offset that a cache has from a log.
        self.newest_read = 0

    @property
    def is_ahead(self) -> bool:
        """Tell whether a cache has what the bus has not come to: older messages of other rooms may be on their way."""
        return self.newest_read > self._rooms.newest_received  # rule: read_ahead

    def on_bus_lost(self) -> None:
        """Note that the caches are empty."""
        self.newest_read = 0

    def complete_rooms(self, session: Session) -> dict[str, int]:
        """Return the rooms whose caches have all that was not written to a session, and the offset after which they do.

        Of the other rooms Redis decides what was missed: the session may have left one without the node getting the answer.
        """
        found: dict[str, int] = {}
        if self.is_ahead:
            return found
        for name, join in session.joins.items():
            complete_from = self._rooms[name].cache.complete_from
            if complete_from is not None:
                if complete_from <= max(session.sent, join):  # rule: left_unheard
                    found[name] = complete_from
        return found

    def missed(self, session: Session, names: Iterable[str]) -> dict[int, StoredMessage] | None:
        """Return what was not written to a session of some rooms, by offset; None where the caches do not know any more."""
        found: dict[int, StoredMessage] = {}
        if self.is_ahead:
            return None
        for name in names:
            join = session.joins.get(name)
            if join is None:
                continue  # left meanwhile
            messages = self._rooms[name].cache.since(max(session.sent, join))
            if messages is None:
                return None
            found.update((message.offset, message) for message in messages)
        return found

    def learn(
        self, session: Session, after: int, messages: Iterable[StoredMessage], *, last: bool
    ) -> bool:
        """Remember what was read from the logs for a session: all that its rooms have after `after` and its gaps.

        `last`: what comes after these messages will come over the bus. Return whether the caches are ahead of the bus now,
        and were not before: a `probe` brings the bus there.
        """
        if not self._rooms.budget.bound:
            return False
        before = self.newest_read
        by_room: dict[str, list[StoredMessage]] = {}
        for message in messages:
            by_room.setdefault(message.room, []).append(message)
        for name, found in by_room.items():
            join = session.joins.get(name)
            if join is not None and found[0].offset > join:
                cache = self._rooms[name].cache
                if cache.add_read(max(after, join), found, last=last):  # rule: learn_whole
                    self.newest_read = max(self.newest_read, found[-1].offset)
        return self.newest_read > before and self.is_ahead

    async def probe(self) -> None:
        """Publish on the node's own channel: so its bus is never silent, and comes to what the caches have."""
        try:
            await self._store.leases.probe(self.newest_read)
        except Unavailable:
            pass  # the next message that the bus brings does as well
