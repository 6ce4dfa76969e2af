"""What a node remembers of its rooms, so that clients that return together are replayed without reading logs.

They missed the same messages: those that everybody else just got, or that the first of them had fetched. A room's part
is its newest messages without a hole, already encoded. It is a cache: forgetting any of it costs a read, never a message.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter

from hub.message import Message

# Bytes that a message takes beside its body: its objects, its frame, its place in the list.
OVERHEAD = 600

_offset = attrgetter("offset")


class Memory:
    """Bounds what all rooms remember together, in bytes, and each room as its log is: in messages and microseconds."""

    def __init__(self, bound: int, length: int, age: int) -> None:
        self.bound = bound
        self.length = length
        self.age = age
        self.size = 0
        # Rooms that remember something; the one whose turn it is to forget comes first.
        self.rooms: dict[Recent, None] = {}

    def shrink(self) -> None:
        """Let the rooms in turn forget their older halves, until what is left is within the bound."""
        while self.size > self.bound:
            room = next(iter(self.rooms))
            del self.rooms[room]
            room.forget((len(room) + 1) // 2)
            self.rooms[room] = None


class Recent:
    """A room's newest messages. Every one behind the offset `low` is here, as far as it was heard; None: no knowing.

    True only while the room's channel is heard without a break: `clear` when it is not.
    """

    __slots__ = ("_memory", "_messages", "_n", "_start", "low")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.low: int | None = None
        # The first `_start` are forgotten already: deleting one from the front moves all others.
        self._messages: list[Message] = []
        self._start = 0
        # Running number of the last message.
        self._n = 0

    def __len__(self) -> int:
        return len(self._messages) - self._start

    def hear(self, message: Message) -> None:
        """Take a message as it came over the bus; volatile ones are in no log, and not here."""
        n, memory, messages = message.n, self._memory, self._messages
        if self.low is None or n != self._n + 1:
            if not n or (messages and message.offset <= messages[-1].offset):
                return  # fetched before it was heard
            self.clear()
            self.low = message.offset - 1
            memory.rooms[self] = None
        self._n = n
        messages.append(message)
        memory.size += len(message.body) + OVERHEAD
        if (
            memory.size > memory.bound
            or len(messages) - self._start > memory.length
            or messages[self._start].offset < message.offset - memory.age
        ):
            self._shrink(message.offset)

    def fetched(self, after: int, messages: Sequence[Message], *, last: bool) -> None:
        """Take messages read from the log: all that came behind the offset `after`, up to the last of them.

        `last`: what comes behind them will be heard; others are kept only where they join on to what is here.
        """
        numbers = [message.n for message in messages]
        if not numbers or numbers[-1] - numbers[0] != len(numbers) - 1:
            return
        if self.low is None:
            if not last:
                return
            self._memory.rooms[self] = None
            self._n = numbers[-1]
        else:
            first = self._messages[self._start].n if len(self) else self._n + 1
            if after >= self.low or not numbers[0] < first <= numbers[-1] + 1:
                return
            messages = messages[: first - numbers[0]]
        self.low = after
        self._messages[: self._start] = messages
        self._start = 0
        self._memory.size += sum([_size(message) for message in messages])
        self._shrink(self._messages[-1].offset)

    def since(self, offset: int) -> Sequence[Message] | None:
        """Return every message heard behind an offset, in order; None where they do not reach back so far."""
        if self.low is None or offset < self.low:
            return None
        return self._messages[bisect_right(self._messages, offset, self._start, key=_offset) :]

    def forget(self, count: int) -> None:
        """Forget the oldest messages."""
        if not count:
            return
        messages, end = self._messages, self._start + count
        self.low = messages[end - 1].offset
        self._memory.size -= sum([_size(message) for message in messages[self._start : end]])
        if 4 * end < len(messages):
            self._start = end
        else:
            del messages[:end]
            self._start = 0

    def clear(self) -> None:
        """Forget everything: something may have been missed, or the room is of no use any more."""
        self.forget(len(self))
        self.low = None
        self._memory.rooms.pop(self, None)

    def _shrink(self, newest: int) -> None:
        """Forget what the log of the room has let go of, and what is too much for all rooms together."""
        memory = self._memory
        old = bisect_right(self._messages, newest - memory.age - 1, self._start, key=_offset)
        self.forget(max(len(self) - memory.length, old - self._start))
        memory.shrink()


def _size(message: Message) -> int:
    return len(message.body) + OVERHEAD
