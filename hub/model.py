"""What clients and the hub share: names and their bounds, and the types of answers and events.

An offset is a decimal string in JSON; `offset_int` makes the number of it that offsets are compared by.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from hub.errors import BadRequest

PROTOCOL = 1  # version of the hub's protocol

# Lengths of names and ids, in characters.
ROOM_LENGTH = 255
EVENT_LENGTH = 128
CLIENT_ID_LENGTH = 128
ID_LENGTH = 255
OFFSET_DIGITS = 16
ATTACHMENTS = 10  # most binary values of one message; the stock JavaScript client takes no more
HISTORY_LIMIT = 1000  # most messages of one answer with history
POLLING_PACKETS = 16  # most packets of one polling response; stock Python clients drop a longer one
DEDUPE_LIFE = (
    120.0  # seconds that the hub remembers an idempotency id, if its settings do not say otherwise
)

CLIENT_ID = rf"[A-Za-z0-9._-]{{1,{CLIENT_ID_LENGTH}}}"

# They end in \Z, because `$` also matches before a line feed at the end. They exclude surrogates, because UTF-8 has none.
ROOM_PATTERN = rf"^[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{ROOM_LENGTH}}}\Z"
EVENT_PATTERN = rf"^[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{EVENT_LENGTH}}}\Z"
ID_PATTERN = rf"^[^\ud800-\udfff]{{1,{ID_LENGTH}}}\Z"
CLIENT_ID_PATTERN = rf"^{CLIENT_ID}\Z"
OFFSET_PATTERN = rf"^[0-9]{{1,{OFFSET_DIGITS}}}\Z"

# Stock clients use these names for events of their own, and break if a server sends one.
RESERVED_EVENTS = frozenset({
    "connect", "connect_error", "disconnect", "disconnecting",
    "newListener", "removeListener", "__disconnect_final",
})  # fmt: skip
RESERVED_PREFIX = "hub:"  # of the hub's own events
# Python clients register a handler of all events under this name. An event of this name would be called with its data in
# place of its name.
CATCH_ALL = "*"

_ROOM = re.compile(ROOM_PATTERN)
_EVENT = re.compile(EVENT_PATTERN)
_ID = re.compile(ID_PATTERN, re.DOTALL)
_CLIENT_ID = re.compile(CLIENT_ID_PATTERN)
_OFFSET = re.compile(OFFSET_PATTERN, re.ASCII)


def check_room(room: object) -> str:
    """Return `room` if it can be the name of a room. Raises BadRequest."""
    if not isinstance(room, str) or not _ROOM.match(room):
        raise BadRequest(f"room: 1 to {ROOM_LENGTH} characters without control characters")
    return room


def check_event(event: object) -> str:
    """Return `event` if it can be the event of a message. Raises BadRequest."""
    if not isinstance(event, str) or not _EVENT.match(event):
        raise BadRequest(f"event: 1 to {EVENT_LENGTH} characters without control characters")
    if not is_event(event):
        raise BadRequest(f"event: {event!r} is reserved")
    return event


def is_event(event: str) -> bool:
    """Return whether stock clients deliver an event of this name as any other."""
    return (
        event not in RESERVED_EVENTS
        and event != CATCH_ALL
        and not event.startswith(RESERVED_PREFIX)
    )


def check_id(id: str) -> str:
    """Return `id` if it can be an idempotency key. Raises BadRequest."""
    if not _ID.match(id):
        raise BadRequest(f"id: 1 to {ID_LENGTH} characters")
    return id


def check_client_id(client_id: object) -> str:
    """Return `client_id` if it can be the name of a session. Raises BadRequest."""
    if not isinstance(client_id, str) or not _CLIENT_ID.match(client_id):
        raise BadRequest(
            f"client_id: 1 to {CLIENT_ID_LENGTH} letters, digits, dots, underscores and hyphens"
        )
    return client_id


def is_offset(value: object) -> bool:
    """Return whether `value` is an offset, as a string."""
    return isinstance(value, str) and _OFFSET.match(value) is not None


def offset_int(offset: str | None) -> int:
    """Return the number that an offset is compared by; None and the empty string are before all others."""
    return int(offset) if offset else 0


class Meta(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """The origin of a message: its room, and the `client_id` of its publisher (None: not a client)."""

    room: str
    from_: str | None = None
    # The message's offset, for `ack` and `history`. The hub's `meta` has none; `hub.client` adds it.
    offset: str = ""


class Message(msgspec.Struct, frozen=True):
    """A message in an answer with history."""

    event: str
    data: Any
    meta: Meta
    offset: str


class SessionInfo(msgspec.Struct, frozen=True):
    """The content of `hub:session`, the first event of a connection."""

    client_id: str
    # By what the connection continues an earlier session; None: it is a new one.
    resumed: Literal["pid", "name"] | None
    # So many messages follow that the session missed; an estimate.
    missed: int
    # The rooms that the session is in, its personal room included.
    rooms: list[str]
    # The newest offset of the hub.
    head: str
    protocol: int = PROTOCOL


class Gap(msgspec.Struct, frozen=True):
    """A gap: the session does not receive messages of a room with after < offset < before."""

    room: str
    reason: str
    after: str
    before: str
    # How many messages; None if the hub does not know.
    dropped: int | None = None

    def contains(self, other: Gap) -> bool:
        """Return whether this gap has all messages of another one, and so replaces it."""
        return (
            self.room == other.room
            and offset_int(self.after) <= offset_int(other.after)
            and offset_int(self.before) >= offset_int(other.before)
        )


class Published(msgspec.Struct, frozen=True):
    """The answer to `publish`. A volatile message has an offset, too, though it is not stored."""

    offset: str = ""
    # True: the message had been published before, with the same idempotency key.
    duplicate: bool = False


class Subscribed(msgspec.Struct, frozen=True):
    """The answer to `subscribe`. Every message after `offset` arrives as an event."""

    room: str
    offset: str
    # The messages that were asked for, oldest first, up to `offset`.
    messages: list[Message] = []
    # True: the log has more of them.
    more: bool = False
    # True: the log no longer reaches back to `since`.
    gap: bool = False


class History(msgspec.Struct, frozen=True):
    """The answer to `history`, oldest message first."""

    messages: list[Message]
    # True: the log has more of the messages that were asked for.
    more: bool = False
    # True: the log no longer reaches back to `after`.
    gap: bool = False
