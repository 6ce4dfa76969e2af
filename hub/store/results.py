"""The answers of the scripts, as the rest of the hub reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from hub.message import StoredMessage
from hub.pid import Pid


@dataclass(slots=True)
class SessionClaim:
    """A session that was claimed: the connection owns it from now on."""

    # 'new', or continued by its 'pid' or by its 'name'.
    how: Literal["new", "pid", "name"]
    client_id: str
    pid: Pid
    sid: str
    # Everything up to this offset has arrived.
    position: int
    # The newest offset at this moment, and how many messages up to it the session missed.
    head: int
    missed: int
    # How often the session was claimed, this time included.
    epoch: int
    # The offset at which each room was joined.
    rooms: dict[str, int]


@dataclass(slots=True)
class ReplayGap:
    """Messages of a room with after < offset < before that are lost. `dropped` is None where nobody can know."""

    room: str
    reason: str
    after: int
    before: int
    dropped: int | None


class ReplayCursor(NamedTuple):
    """What the replay script has to know at its next call. It is of the position that its batch led to, and opaque."""

    # How often Redis had changed when it was made: what it counts is true for that Redis alone.
    redis_changes: int
    data: bytes


@dataclass(slots=True)
class ReplayBatch:
    """What one call of the replay script hands out: gaps, to be reported first, and messages.

    `live_from`: nothing is left, and the session is live from this offset on.
    """

    live_from: int | None
    position: int
    gaps: list[ReplayGap] = field(default_factory=list)
    messages: list[StoredMessage] = field(default_factory=list)
    # True: the node's replay cache has all messages, so none are here.
    in_cache: bool = False
    # True: these are all messages of its rooms after the position asked for and after the gaps; none was left out because
    # it is not for this client.
    complete: bool = False
    # The server's time in microseconds.
    now: int = 0
    # For the next call; None: the session is live.
    cursor: ReplayCursor | None = None


@dataclass(slots=True)
class HistoryPage:
    """Messages of a log. `gap`: the log no longer reaches back to where the page was to begin."""

    messages: list[StoredMessage]
    more: bool
    gap: bool
    # How many log entries were examined for it, and the offset of the last of them (0: none).
    examined: int = 0
    reached: int = 0

    @property
    def size(self) -> int:
        """Bytes of its messages."""
        return sum(len(message.body) for message in self.messages)


class NotOwner(Exception):
    """The connection does not own the session any more.

    `replaced`: a newer connection does; otherwise there is no such session, it has ended or Redis forgot it.
    """

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply.decode())
        self.replaced = reply == b"replaced"
