"""Group commit: the messages that one turn of the event loop publishes are written by one script."""

from __future__ import annotations

import functools
from typing import Any, Protocol

from hub.errors import HubError
from hub.redis.commands import Commands
from hub.redis.connection import packed_part
from hub.settings import Settings
from hub.store.keys import Keys
from hub.store.loss_detector import LossDetector

# One run of the script writes at most so many messages and bytes of them.
MESSAGES, BYTES = 64, 262_144

# The kinds of messages in publish.lua; and the names of rooms, of which the same ones come again and again.
_PLAIN, _VOLATILE, _CONDITIONAL = packed_part(""), packed_part("v"), packed_part("c")
_packed_word = functools.lru_cache(4096)(packed_part)


class PublishListener(Protocol):
    """Waits for a publish: `hub.api.pipeline.Call`."""

    __slots__ = ()

    def on_published(self, result: int | HubError, duplicate: bool, /) -> None:
        """Take the message's offset and whether its idempotency key had been seen, or what went wrong."""


class CommitGroup:
    """Messages that wait for the end of the turn; `pack` makes one command of them."""

    __slots__ = ("_listeners", "_parts", "_publishing", "_rooms", "_size")

    def __init__(self, publishing: GroupCommit) -> None:
        self._publishing = publishing
        self._parts: list[bytes] = []
        self._listeners: list[PublishListener] = []
        # The room into whose log each of them goes; empty: it is volatile, and goes into none.
        self._rooms: list[str] = []
        self._size = 0

    @property
    def full(self) -> bool:
        return len(self._parts) >= MESSAGES or self._size >= BYTES

    def add(self, message: bytes, room: str, listener: PublishListener) -> None:
        """Add a message, packed as five arguments of the script; `room`: into whose log it goes, or empty."""
        self._parts.append(message)
        self._rooms.append(room)
        self._listeners.append(listener)
        self._size += len(message)

    def packed(self) -> bytes:
        return self._publishing.pack(self._parts)

    def on_reply(self, reply: Any) -> None:
        """Hand its part of the script's answer to each listener, or the HubError that came instead."""
        if isinstance(reply, HubError):
            for listener in self._listeners:
                listener.on_published(reply, False)
            return
        newest, logged_in, logged = 0, "", 0
        for listener, room, answer in zip(self._listeners, self._rooms, reply, strict=True):
            duplicate = answer[:1] == b"="
            offset = int(answer[1:] if duplicate else answer)
            newest = max(newest, offset)
            if room and not duplicate:
                logged_in, logged = room, offset
            listener.on_published(offset, duplicate)
        loss_detector = self._publishing.loss_detector
        loss_detector.note_answer(newest)
        loss_detector.note_answer(logged, logged_in)  # rule: publisher_knows


class GroupCommit:
    """Publishes messages. A hub does nothing more often, so only the changing part of a command is packed each time."""

    def __init__(
        self, settings: Settings, commands: Commands, keys: Keys, loss_detector: LossDetector
    ) -> None:
        self._commands = commands
        self._keys = keys
        self.loss_detector = loss_detector
        # The arguments of the script that are always the same.
        self.fixed_args = (
            str(settings.log_length),
            str(int(settings.log_age * 1e6)),
            str(int(settings.log_age * 1e3)),
            str(int(settings.numbers_life * 1e3)),
            str(settings.inbox_length),
            str(int(settings.dedupe_life * 1e3)),
            keys.room_channel_base,
        )

    def publish(
        self,
        room: str,
        header: bytes,
        body: bytes,
        listener: PublishListener,
        *,
        volatile: bool = False,
        conditional: bool = False,
        dedupe: str | None = None,
    ) -> None:
        """Publish a message; `listener` is told when its script has run, or failed.

        `conditional`: some sessions skip it, because its echo is off or it has a ttl.
        """
        key = b"$0\r\n\r\n" if dedupe is None else packed_part(dedupe)
        message = b"%b%b$%d\r\n%b\r\n$%d\r\n%b\r\n%b" % (
            _VOLATILE if volatile else _CONDITIONAL if conditional else _PLAIN,
            _packed_word(room),
            len(header),
            header,
            len(body),
            body,
            key,
        )
        group = self._commands.growing
        logged = "" if volatile else room
        if isinstance(group, CommitGroup) and not group.full:
            group.add(message, logged, listener)
        else:
            group = CommitGroup(self)
            group.add(message, logged, listener)
            self._commands.send(group, group.on_reply)

    @functools.cached_property
    def _packed_start(self) -> bytes:
        sha = self._commands.scripts["publish"].sha
        return packed_part("EVALSHA", sha, "1", self._keys.clock)

    @functools.cached_property
    def _packed_fixed_args(self) -> bytes:
        return packed_part(*self.fixed_args)

    def pack(self, messages: list[bytes]) -> bytes:
        """Return the command that writes messages, each packed as five arguments."""
        newest = b"%d" % self.loss_detector.newest
        return b"*%d\r\n%b$%d\r\n%b\r\n%b%b" % (
            5 + len(self.fixed_args) + 5 * len(messages),
            self._packed_start,
            len(newest),
            newest,
            self._packed_fixed_args,
            b"".join(messages),
        )
