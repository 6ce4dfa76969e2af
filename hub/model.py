"""The words that clients and the hub share: names and their bounds, and what answers and events hold.

Offsets are decimal strings wherever they travel (PROTOCOL §1); `offset_int` compares them.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from hub.errors import BadRequest

PROTOCOL = 1

ROOM_LENGTH = 255
EVENT_LENGTH = 128
CLIENT_ID_LENGTH = 128
ID_LENGTH = 255
OFFSET_DIGITS = 16
ATTACHMENTS = 10  # the stock JavaScript client stops at 10
HISTORY_LIMIT = 1000
POLLING_PACKETS = 16  # stock Python clients drop a longer polling answer whole
DEDUPE_LIFE = 120.0  # seconds that the hub remembers an idempotency id, unless set otherwise

# \Z, as `$` would let a line feed through at the end. Surrogates cannot be written as UTF-8.
ROOM_PATTERN = rf"^[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{ROOM_LENGTH}}}\Z"
EVENT_PATTERN = rf"^[^\ud800-\udfff]{{1,{EVENT_LENGTH}}}\Z"
ID_PATTERN = rf"^[^\ud800-\udfff]{{1,{ID_LENGTH}}}\Z"
CLIENT_ID_PATTERN = rf"^[A-Za-z0-9._-]{{1,{CLIENT_ID_LENGTH}}}\Z"
OFFSET_PATTERN = rf"^[0-9]{{1,{OFFSET_DIGITS}}}\Z"

# Stock clients give these a meaning of their own, and break where a server sends them (PROTOCOL §3).
RESERVED_EVENTS = frozenset({
    "connect", "connect_error", "disconnect", "disconnecting",
    "newListener", "removeListener", "__disconnect_final",
})  # fmt: skip
RESERVED_PREFIX = "hub:"

_ROOM = re.compile(ROOM_PATTERN)
_EVENT = re.compile(EVENT_PATTERN, re.DOTALL)
_ID = re.compile(ID_PATTERN, re.DOTALL)
_CLIENT_ID = re.compile(CLIENT_ID_PATTERN)
_OFFSET = re.compile(OFFSET_PATTERN, re.ASCII)


def check_room(room: object) -> str:
    """Return `room` if it can name one; raise BadRequest otherwise."""
    if not isinstance(room, str) or not _ROOM.match(room):
        raise BadRequest(f"room: 1 to {ROOM_LENGTH} characters without control characters")
    return room


def check_event(event: object) -> str:
    """Return `event` if a message may bear it; raise BadRequest otherwise."""
    if not isinstance(event, str) or not _EVENT.match(event):
        raise BadRequest(f"event: 1 to {EVENT_LENGTH} characters")
    if event in RESERVED_EVENTS or event.startswith(RESERVED_PREFIX):
        raise BadRequest(f"event: {event!r} is reserved")
    return event


def check_id(id: str) -> str:
    """Return `id` if it can be an idempotency key; raise BadRequest otherwise."""
    if not _ID.match(id):
        raise BadRequest(f"id: 1 to {ID_LENGTH} characters")
    return id


def check_client_id(client_id: object) -> str:
    """Return `client_id` if a client may bear it; raise BadRequest otherwise."""
    if not isinstance(client_id, str) or not _CLIENT_ID.match(client_id):
        raise BadRequest(
            f"client_id: 1 to {CLIENT_ID_LENGTH} letters, digits, dots, underscores and hyphens"
        )
    return client_id


def is_offset(value: object) -> bool:
    """Return whether `value` is an offset as it travels."""
    return isinstance(value, str) and _OFFSET.match(value) is not None


def offset_int(offset: str | None) -> int:
    """Return an offset as the number to compare by; none and the empty string come before all."""
    return int(offset) if offset else 0


class Meta(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """Where a message comes from: its room, and the client that published it, where one did."""

    room: str
    from_: str | None = None
    # Not on the wire in `meta`, but handlers want it: the message's place, for `ack` and `history`.
    offset: str = ""


class Message(msgspec.Struct, frozen=True):
    """A message as `history` tells it."""

    event: str
    data: Any
    meta: Meta
    offset: str


class SessionInfo(msgspec.Struct, frozen=True):
    """What `hub:session` says: whether an earlier session continues, and what of it follows."""

    client_id: str
    recovered: bool
    missed: int
    rooms: list[str]
    head: str
    protocol: int = PROTOCOL


class Gap(msgspec.Struct, frozen=True):
    """Messages of a room that are lost to this session: those with after < offset < before."""

    room: str
    reason: str
    after: str
    before: str
    dropped: int | None = None

    def contains(self, other: Gap) -> bool:
        """Return whether this gap replaces an earlier one."""
        return (
            self.room == other.room
            and offset_int(self.after) <= offset_int(other.after)
            and offset_int(self.before) >= offset_int(other.before)
        )


class Published(msgspec.Struct, frozen=True):
    """The answer to `publish`; a volatile message that was not kept has an offset all the same."""

    offset: str = ""
    duplicate: bool = False


class Subscribed(msgspec.Struct, frozen=True):
    """The answer to `subscribe`: every message after `offset` comes as an event."""

    room: str
    offset: str
    messages: list[Message] = []
    more: bool = False
    # The log no longer reaches back to `since`.
    gap: bool = False


class History(msgspec.Struct, frozen=True):
    """The answer to `history`, oldest message first."""

    messages: list[Message]
    more: bool = False
