"""Replay caches: the newest messages of each room of a node, so that clients that return together need no reading of logs.

They missed the same messages: those that every other client just got, or that the first of them had read. A room's
cache has its newest messages without a hole, decoded when first wanted. Forgetting any of it costs a read, never a message.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from hub.message import StoredMessage

# Bytes that a message takes beside what came over the bus; and beside its body, once it is encoded for clients.
OVERHEAD, ENCODED = 100, 1500


class CacheBudget:
    """Bounds all caches together, in bytes, and each cache as its room's log is: in messages and microseconds."""

    def __init__(self, bound: int, length: int, age: int) -> None:
        self.bound = bound
        self.length = length
        self.age = age
        self.size = 0
        # Caches that hold something; the one that forgets next comes first.
        self.caches: dict[ReplayCache, None] = {}

    def shrink(self) -> None:
        """Let the caches in turn forget their older halves, until what is left is within the bound."""
        while self.size > self.bound:
            cache = next(iter(self.caches))
            del self.caches[cache]
            cache.forget((len(cache) + 1) // 2)
            self.caches[cache] = None


class ReplayCache:
    """A room's newest messages: every one after the offset `complete_from` that the bus has brought; None: nothing is known.

    That holds only while the room's channel is subscribed without a break: `clear` when it is not.
    """

    __slots__ = ("_budget", "_entries", "_n", "_offsets", "_room", "_start", "complete_from")

    def __init__(self, room: str, budget: CacheBudget) -> None:
        self._room = room
        self._budget = budget
        self.complete_from: int | None = None
        # As the bus brought them until they are wanted: most are forgotten first. Their numbers follow each other.
        # The first `_start` are forgotten already: deleting one from the front moves all others.
        self._entries: list[bytes | StoredMessage] = []
        self._offsets: list[int] = []
        self._start = 0
        # Running number of the last message.
        self._n = 0

    def __len__(self) -> int:
        return len(self._entries) - self._start

    def add(self, message: StoredMessage) -> None:
        """Take a message as it came over the bus; volatile ones are in no log, and not here."""
        n, budget, offsets, offset = message.n, self._budget, self._offsets, message.offset
        if self.complete_from is None or n != self._n + 1:
            if not n or (offsets and offset <= offsets[-1]):
                return  # read from the log before the bus brought it
            self.clear()
            self.complete_from = offset - 1
            budget.caches[self] = None
        self._n = n
        self._entries.append(message.payload)
        offsets.append(offset)
        budget.size += len(message.payload) + OVERHEAD
        if (
            budget.size > budget.bound
            or len(offsets) - self._start > budget.length
            or offsets[self._start] < offset - budget.age
        ):
            self._shrink(offset)

    def add_read(self, after: int, messages: Sequence[StoredMessage], *, last: bool) -> bool:
        """Take messages read from the log: all that came after the offset `after`, up to the last of them.

        `last`: what comes after them will come over the bus. Others are kept only where they join on to what is here.
        Return whether they are the newest here, which the bus may have yet to come to.
        """
        numbers = [message.n for message in messages]
        if not numbers or numbers[-1] - numbers[0] != len(numbers) - 1:
            return False
        newest = self.complete_from is None
        if self.complete_from is None:
            if not last:
                return False
            self._budget.caches[self] = None
            self._n = numbers[-1]
        else:
            first = self._n - len(self) + 1
            if after >= self.complete_from or not numbers[0] < first <= numbers[-1] + 1:
                return False
            messages = messages[: first - numbers[0]]
        self.complete_from = after
        self._entries[: self._start] = messages
        self._offsets[: self._start] = [message.offset for message in messages]
        self._start = 0
        self._budget.size += sum([_size(message) for message in messages])
        self._shrink(self._offsets[-1])
        return newest

    def since(self, offset: int) -> list[StoredMessage] | None:
        """Return every message after an offset, in order; None where they do not reach back so far."""
        if self.complete_from is None or offset < self.complete_from:
            return None
        entries, found = self._entries, []
        for at in range(bisect_right(self._offsets, offset, self._start), len(entries)):
            entry = entries[at]
            if isinstance(entry, bytes):
                entries[at] = message = StoredMessage.from_bus(self._room, entry)
                self._budget.size += _size(message) - _size(entry)
                entry = message
            found.append(entry)
        self._budget.shrink()
        return found

    def forget(self, count: int) -> None:
        """Forget the oldest messages."""
        if not count:
            return
        end = self._start + count
        self.complete_from = self._offsets[end - 1]
        self._budget.size -= sum([_size(entry) for entry in self._entries[self._start : end]])
        if 4 * end < len(self._entries):
            self._start = end
        else:
            del self._entries[:end], self._offsets[:end]
            self._start = 0

    def clear(self) -> None:
        """Forget everything: something may have been missed, or nobody is in the room any more."""
        self.forget(len(self))
        self.complete_from = None
        self._budget.caches.pop(self, None)

    def _shrink(self, newest: int) -> None:
        """Forget what the log of the room does not keep any more, and what is too much for all caches together."""
        budget = self._budget
        old = bisect_right(self._offsets, newest - budget.age - 1, self._start)
        self.forget(max(len(self) - budget.length, old - self._start))
        budget.shrink()


def _size(entry: bytes | StoredMessage) -> int:
    return len(entry) + OVERHEAD if isinstance(entry, bytes) else len(entry.body) + ENCODED
