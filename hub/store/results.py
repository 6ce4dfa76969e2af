"""What the scripts answer, in the hub's own words."""

from __future__ import annotations

from dataclasses import dataclass, field

from hub.message import StoredMessage
from hub.pid import Pid


@dataclass(slots=True)
class SessionClaim:
    """A session, and that this connection owns it from now on."""

    # 'new', or continued by 'pid' or by 'name'.
    how: str
    client_id: str
    pid: Pid
    sid: str
    # Everything up to here has arrived.
    position: int
    # The newest offset at this moment, and how many messages up to it are missed.
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


@dataclass(slots=True)
class ReplayBatch:
    """What a replay hands out: gaps, told first, and messages. `live_from`: nothing was left, the session is live."""

    live_from: int | None
    position: int
    gaps: list[ReplayGap] = field(default_factory=list)
    messages: list[StoredMessage] = field(default_factory=list)
    # There are no messages, as the node remembers all of them.
    remembered: bool = False
    # The messages are all that came behind the position asked for, and behind the gaps told: none is not for this client.
    whole: bool = False
    # The server's time in microseconds.
    now: int = 0


@dataclass(slots=True)
class HistoryPage:
    """Messages of a log. `gap`: it no longer reaches back to where it was asked to begin."""

    messages: list[StoredMessage]
    more: bool
    gap: bool
    # Entries that were looked at for it, and the offset of the last of them; 0: there was none.
    looked: int = 0
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
