"""The packets that wait for a poll, or for the end of an upgrade, in the order of sending."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from hub.engineio.core.packet import MESSAGE, PING, encode_binary
from hub.engineio.core.prepared import PreparedMessage


class PollQueue:
    """A queue of messages, and of control packets as str. The connection bounds its `size`."""

    __slots__ = ("_entries", "size", "taken")

    def __init__(self) -> None:
        self._entries: deque[PreparedMessage | str] = deque()
        # Bytes that wait, counted as WebSocket frames.
        self.size = 0
        # How many responses have been taken.
        self.taken = 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    def push(self, messages: Iterable[PreparedMessage], size: int) -> None:
        """Add messages that are `size` bytes together."""
        self._entries.extend(messages)
        self.size += size

    def push_control(self, packet: str) -> None:
        """Add a control packet; a second ping is not added while one waits."""
        if packet != PING or PING not in self._entries:
            self._entries.append(packet)
            self.size += len(packet)

    def clear(self) -> None:
        self._entries.clear()
        self.size = 0

    def drain(self) -> Iterable[PreparedMessage | str]:
        """Remove and return everything."""
        entries, self._entries, self.size = self._entries, deque(), 0
        return entries

    def take_payload(self, packets: int, size: int) -> list[str]:
        """Remove and return the packets of one response: at most `packets`, and none after `size` bytes were passed.

        A message of several packets is not split, unless it has more than a response may hold.
        """
        self.taken += 1
        entries = self._entries
        taken: list[str] = []
        room = packets
        carried = 0
        while entries and room and carried <= size:
            entry = entries[0]
            if isinstance(entry, str):
                entries.popleft()
                self.size -= len(entry)
                taken.append(entry)
                room -= 1
                continue
            parts = entry.packets
            before = len(entry.wire)
            left = 0
            if len(parts) <= room:
                entries.popleft()
            elif taken:
                break
            else:
                entries[0] = rest = PreparedMessage(*parts[room:])
                parts = parts[:room]
                left = len(rest.wire)
            self.size -= before - left
            carried += before - left
            room -= len(parts)
            taken.extend(
                MESSAGE + part if isinstance(part, str) else encode_binary(part) for part in parts
            )
        return taken
