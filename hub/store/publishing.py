"""Group commit: the messages that one turn of the event loop publishes are written by one script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hub.errors import HubError

# A message's offset and whether its idempotency key had been seen, or what went wrong.
Callback = Callable[[int | HubError, bool], None]

# What one script takes: messages, and bytes of them.
MESSAGES, BYTES = 64, 262_144


class Group:
    """Messages that wait for the end of the turn. `pack` makes a command of them."""

    __slots__ = ("_callbacks", "_pack", "_parts", "_size")

    def __init__(self, pack: Callable[[list[bytes]], bytes]) -> None:
        self._pack = pack
        self._parts: list[bytes] = []
        self._callbacks: list[Callback] = []
        self._size = 0

    @property
    def full(self) -> bool:
        return len(self._parts) >= MESSAGES or self._size >= BYTES

    def add(self, message: bytes, callback: Callback) -> None:
        """Take a message, packed as five words of the script's arguments."""
        self._parts.append(message)
        self._callbacks.append(callback)
        self._size += len(message)

    def packed(self) -> bytes:
        return self._pack(self._parts)

    def answer(self, reply: Any) -> int:
        """Tell everybody the script's answer, or the HubError that came instead; return the newest offset in it."""
        newest = 0
        if isinstance(reply, HubError):
            for callback in self._callbacks:
                callback(reply, False)
            return newest
        for callback, answer in zip(self._callbacks, reply, strict=True):
            duplicate = answer[:1] == b"="
            offset = int(answer[1:] if duplicate else answer)
            newest = max(newest, offset)
            callback(offset, duplicate)
        return newest
