"""What happened, as those outside the hub saw it: what was published, and what each client was told and when.

Nothing here judges; `checker` does. Offsets are integers, times are of one monotonic clock. A client's events stand in
the order in which its packets arrived.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(slots=True)
class Publication:
    """One message that a producer numbered; `key` is its idempotency id, and is in its data."""

    room: str
    key: str
    # When it was first sent, and when the hub said ok; None: never, the outcome is unknown.
    sent_at: float
    acked_at: float | None = None
    offset: int | None = None
    # How often it was sent.
    tries: int = 0
    # As PROTOCOL §4 has them; `skip` names the publisher where its echo is off.
    volatile: bool = False
    ttl: float | None = None
    skip: str = ""


def blob(key: str) -> bytes:
    """Return the binary that a publication with binary data carries."""
    return hashlib.sha256(key.encode()).digest()


@dataclass(frozen=True, slots=True)
class Began:
    """`hub:session`: a connection begins, from a position.

    `resumed`: the client had shown what continues a session (a pid, or a name that it had used). `asked`: when it
    began to connect, 0 where that is not known. `via`: the connection's number, where several are written down side
    by side.
    """

    position: int
    recovered: bool
    missed: int = 0
    resumed: bool = False
    at: float = 0.0
    asked: float = 0.0
    via: int = 0


@dataclass(frozen=True, slots=True)
class Got:
    """A message arrived; `whole`: with the data that was published. `via`: as in `Began`."""

    room: str
    key: str
    offset: int
    whole: bool = True
    via: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """`hub:gap` arrived."""

    room: str
    reason: str
    after: int
    before: int
    dropped: int | None

    def holds(self, room: str, offset: int) -> bool:
        return room == self.room and self.after < offset < self.before


@dataclass(frozen=True, slots=True)
class Joining:
    """The client has begun to ask to join a room, and asks until it is answered."""

    room: str


@dataclass(frozen=True, slots=True)
class Joined:
    """The answer: every message of the room after this offset is due."""

    room: str
    offset: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """The client has begun to ask to leave: from here on nothing of the room is due."""

    room: str


@dataclass(frozen=True, slots=True)
class Left:
    """The answer: from here on nothing of the room may arrive."""

    room: str


@dataclass(frozen=True, slots=True)
class Proved:
    """A ping was answered, which proves everything up to this offset; or any other sign of life, with 0."""

    offset: int
    at: float


@dataclass(frozen=True, slots=True)
class Acking:
    """The client has begun to tell that it has processed everything up to an offset."""

    offset: int


@dataclass(frozen=True, slots=True)
class Acked:
    """The answer: so much is stored. `asked`: when it was asked for, which was stored between the two times."""

    offset: int
    asked: float
    at: float


Event = Began | Got | Gap | Joining | Joined | Leaving | Left | Proved | Acking | Acked


@dataclass(slots=True)
class Record:
    """One client's side of the story.

    `returns`: it sends its offset when it comes back. `manual`: only its acknowledgements move its position.
    """

    name: str
    kind: str
    returns: bool
    manual: bool = False
    events: list[Event] = field(default_factory=list)
    # Whether it was there at the end, when everything had to have arrived.
    stayed: bool = False

    def add(self, event: Event) -> None:
        self.events.append(event)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What only a lost primary had: the offsets with after < offset <= upto, given out between two times."""

    after: int
    upto: int
    since: float
    until: float

    def holds(self, offset: int) -> bool:
        return self.after < offset <= self.upto


@dataclass(slots=True)
class History:
    """The whole story."""

    publications: dict[str, Publication] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    # When Redis could not be reached, or took nothing: positions cannot be written back then.
    outages: list[tuple[float, float]] = field(default_factory=list)
    forgotten: list[Forgotten] = field(default_factory=list)

    def record(self, name: str, kind: str, *, returns: bool, manual: bool = False) -> Record:
        self.records.append(Record(name, kind, returns, manual))
        return self.records[-1]

    def forgot(self, offset: int) -> bool:
        return any(lapse.holds(offset) for lapse in self.forgotten)

    def replays(self) -> int:
        """Count the connections that continued a session which had missed something."""
        return sum(
            isinstance(event, Began) and event.recovered and event.missed > 0
            for record in self.records
            for event in record.events
        )

    def gaps(self) -> int:
        """Count the gaps told, those told again aside."""
        return sum(
            len({event for event in record.events if isinstance(event, Gap)})
            for record in self.records
        )
