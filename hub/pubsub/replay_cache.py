"""What a node remembers of its rooms, so that clients that return together are replayed without reading logs.

They missed the same messages: those that everybody else just got, or that the first of them had fetched. A room's part
is its newest messages without a hole, decoded when first wanted. It is a cache: forgetting any of it costs a read, never a message.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from hub.message import StoredMessage

# Bytes that a message takes beside what came over the bus; and beside its body, once it is encoded for clients.
OVERHEAD, ENCODED = 100, 1500


class CacheBudget:
    """Bounds what all rooms remember together, in bytes, and each room as its log is: in messages and microseconds."""

    def __init__(self, bound: int, length: int, age: int) -> None:
        self.bound = bound
        self.length = length
        self.age = age
        self.size = 0
        # Rooms that remember something; the one whose turn it is to forget comes first.
        self.rooms: dict[ReplayCache, None] = {}

    def shrink(self) -> None:
        """Let the rooms in turn forget their older halves, until what is left is within the bound."""
        while self.size > self.bound:
            room = next(iter(self.rooms))
            del self.rooms[room]
            room.forget((len(room) + 1) // 2)
            self.rooms[room] = None


class ReplayCache:
    """A room's newest messages. Every one behind the offset `low` is here, as far as it was heard; None: no knowing.

    True only while the room's channel is heard without a break: `clear` when it is not.
    """

    __slots__ = ("_entries", "_memory", "_n", "_offsets", "_room", "_start", "low")

    def __init__(self, room: str, memory: CacheBudget) -> None:
        self._room = room
        self._memory = memory
        self.low: int | None = None
        # As the bus brought them, until somebody wants them: most are forgotten first. Their numbers follow each other.
        # The first `_start` are forgotten already: deleting one from the front moves all others.
        self._entries: list[bytes | StoredMessage] = []
        self._offsets: list[int] = []
        self._start = 0
        # Running number of the last message.
        self._n = 0

    def __len__(self) -> int:
        return len(self._entries) - self._start

    def hear(self, message: StoredMessage) -> None:
        """Take a message as it came over the bus; volatile ones are in no log, and not here."""
        n, memory, offsets, offset = message.n, self._memory, self._offsets, message.offset
        if self.low is None or n != self._n + 1:
            if not n or (offsets and offset <= offsets[-1]):
                return  # fetched before it was heard
            self.clear()
            self.low = offset - 1
            memory.rooms[self] = None
        self._n = n
        self._entries.append(message.payload)
        offsets.append(offset)
        memory.size += len(message.payload) + OVERHEAD
        if (
            memory.size > memory.bound
            or len(offsets) - self._start > memory.length
            or offsets[self._start] < offset - memory.age
        ):
            self._shrink(offset)

    def fetched(self, after: int, messages: Sequence[StoredMessage], *, last: bool) -> bool:
        """Take messages read from the log: all that came behind the offset `after`, up to the last of them.

        `last`: what comes behind them will be heard; others are kept only where they join on to what is here.
        Return whether they are the newest here, which the bus may have yet to come to.
        """
        numbers = [message.n for message in messages]
        if not numbers or numbers[-1] - numbers[0] != len(numbers) - 1:
            return False
        newest = self.low is None
        if self.low is None:
            if not last:
                return False
            self._memory.rooms[self] = None
            self._n = numbers[-1]
        else:
            first = self._n - len(self) + 1
            if after >= self.low or not numbers[0] < first <= numbers[-1] + 1:
                return False
            messages = messages[: first - numbers[0]]
        self.low = after
        self._entries[: self._start] = messages
        self._offsets[: self._start] = [message.offset for message in messages]
        self._start = 0
        self._memory.size += sum([_size(message) for message in messages])
        self._shrink(self._offsets[-1])
        return newest

    def since(self, offset: int) -> list[StoredMessage] | None:
        """Return every message heard behind an offset, in order; None where they do not reach back so far."""
        if self.low is None or offset < self.low:
            return None
        entries, found = self._entries, []
        for at in range(bisect_right(self._offsets, offset, self._start), len(entries)):
            entry = entries[at]
            if isinstance(entry, bytes):
                entries[at] = message = StoredMessage.from_bus(self._room, entry)
                self._memory.size += _size(message) - _size(entry)
                entry = message
            found.append(entry)
        self._memory.shrink()
        return found

    def forget(self, count: int) -> None:
        """Forget the oldest messages."""
        if not count:
            return
        end = self._start + count
        self.low = self._offsets[end - 1]
        self._memory.size -= sum([_size(entry) for entry in self._entries[self._start : end]])
        if 4 * end < len(self._entries):
            self._start = end
        else:
            del self._entries[:end], self._offsets[:end]
            self._start = 0

    def clear(self) -> None:
        """Forget everything: something may have been missed, or the room is of no use any more."""
        self.forget(len(self))
        self.low = None
        self._memory.rooms.pop(self, None)

    def _shrink(self, newest: int) -> None:
        """Forget what the log of the room has let go of, and what is too much for all rooms together."""
        memory = self._memory
        old = bisect_right(self._offsets, newest - memory.age - 1, self._start)
        self.forget(max(len(self) - memory.length, old - self._start))
        memory.shrink()


def _size(entry: bytes | StoredMessage) -> int:
    return len(entry) + OVERHEAD if isinstance(entry, bytes) else len(entry.body) + ENCODED
