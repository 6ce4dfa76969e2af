"""What clients ask for: the verbs of PROTOCOL §4 as types, checked field by field.

The table of verbs in docs/protocol.md is made from these types; the string under a field explains it (`make docs`).
"""

from __future__ import annotations

import functools
import json
import re
from typing import Annotated, ClassVar, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from hub import strict_json
from hub.errors import BadRequest, NotFound
from hub.model import (
    EVENT_LENGTH,
    HISTORY_LIMIT,
    ID_LENGTH,
    OFFSET_PATTERN,
    ROOM_LENGTH,
    check_event,
    check_id,
    check_room,
)
from hub.strict_json import MAX_DEPTH, RefusedJson, loads_slowly

AnyRequest = TypeVar("AnyRequest", bound="VerbRequest")

# Ten years, in seconds.
TTL_MAX = 315_360_000


def _shape(words: str) -> Meta:
    """Say what a field looks like, for the reference."""
    return Meta(extra={"shape": words})


RoomName = Annotated[str, _shape(f"string, 1 to {ROOM_LENGTH} characters")]
EventName = Annotated[str, _shape(f"string, 1 to {EVENT_LENGTH} characters")]
IdempotencyKey = Annotated[str, _shape(f"string, 1 to {ID_LENGTH} characters")]
Data = Annotated[Raw, _shape("any JSON value, or binary")]
Ttl = Annotated[float, Meta(gt=0, le=TTL_MAX), _shape(f"seconds, above 0, at most {TTL_MAX:,}")]
Offset = Annotated[str, Meta(pattern=OFFSET_PATTERN), _shape("offset")]

# The same names come again and again.
_check_room = functools.lru_cache(4096)(check_room)
_check_event = functools.lru_cache(1024)(check_event)


class VerbRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """The one object that a verb takes."""

    # Fields that are kept as the JSON that came, and may refer to attachments.
    raw_fields: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        """Check what the fields' types do not say. Raises BadRequest naming the field."""


class SubscribeRequest(VerbRequest):
    room: RoomName
    """The client joins this room."""
    history: Annotated[int, Meta(ge=0, le=HISTORY_LIMIT)] | None = None
    """The answer has the last messages of the room, at most this many."""
    since: Offset | None = None
    """The answer has the messages after this offset. It cannot be combined with `history`."""

    @property
    def with_history(self) -> bool:
        """True: the answer has messages."""
        return self.history is not None or self.since is not None

    @property
    def is_plain(self) -> bool:
        """True: it only asks to join a room that anybody may join, so others may be carried out together with it."""
        return not self.with_history and not self.room.startswith("@")

    def check(self) -> None:
        _check_room(self.room)
        if self.history is not None and self.since is not None:
            raise BadRequest("history and since: one of them, not both")


class UnsubscribeRequest(VerbRequest):
    room: RoomName
    """The client leaves this room."""

    def check(self) -> None:
        _check_room(self.room)


class PublishRequest(VerbRequest):
    raw_fields: ClassVar[tuple[str, ...]] = ("data",)

    room: RoomName
    """The message is published into this room."""
    event: EventName
    """Subscribers get the message as this event."""
    # JSON as it came; with attachments: JSON with placeholders.
    data: Data
    """Subscribers get this value."""
    id: IdempotencyKey | None = None
    """This is the idempotency key: a message that comes again with the same key is not stored again."""
    volatile: bool = False
    """True: only live sessions get the message. Neither the room log nor an inbox keeps it."""
    ttl: Ttl | None = None
    """After this time the message is neither replayed nor in an answer with history."""
    echo: bool = True
    """True: the publisher gets its own message if it is subscribed to the room. False: it does not get it, neither live nor replayed."""

    def check(self) -> None:
        _check_room(self.room)
        _check_event(self.event)
        if self.id is not None:
            check_id(self.id)


class HistoryRequest(VerbRequest):
    room: RoomName
    """The answer has messages of this room."""
    limit: Annotated[int, Meta(ge=1, le=HISTORY_LIMIT)] = 100
    """The answer has at most this many messages."""
    before: Offset | None = None
    """The answer has the last messages before this offset."""
    after: Offset | None = None
    """The answer has the first messages after this offset. It cannot be combined with `before`."""

    def check(self) -> None:
        _check_room(self.room)
        if self.before is not None and self.after is not None:
            raise BadRequest("before and after: one of them, not both")


class AckRequest(VerbRequest):
    offset: Offset
    """The client has processed everything up to this offset."""


_decoder = functools.cache(msgspec.json.Decoder)
_arguments = msgspec.json.Decoder(list[Raw])
_name = msgspec.json.Decoder(str)


def parse(text: str, depth: int = MAX_DEPTH) -> tuple[str, list[Raw]] | None:
    """Return the event and the arguments of `[event, arguments...]`, as JSON; None where no stock client writes such a text.

    Raises BadRequest, naming the verb and the field, and NotFound, for what stock clients write and nobody can take.
    `depth`: how deep raw fields may nest.
    """
    try:
        event, *arguments = _arguments.decode(text)
        return _name.decode(event), arguments
    except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError):
        return _parse_slowly(text, depth)


def _parse_slowly(text: str, depth: int) -> tuple[str, list[Raw]] | None:
    """Do the same for what msgspec does not read."""
    try:
        packet = loads_slowly(text, depth)
    except RefusedJson as error:
        raise BadRequest(f"{_place(text)}{error}") from None
    except ValueError:
        return None
    if not isinstance(packet, list) or not packet:
        return None
    event, *arguments = packet
    try:
        if not isinstance(event, str):
            raise NotFound(f"there is no verb {json.dumps(event)[:64]}")
        return event, [Raw(json.dumps(argument).encode()) for argument in arguments]
    except RecursionError:
        raise BadRequest(f"{_place(text)}nested deeper than {depth}") from None


# What a verb's packet begins with, a field's name, and what comes between two fields.
_VERB = re.compile(r'\s*\[\s*"([^"\\]*)"\s*,\s*\{')
_FIELD = re.compile(r'\s*"([^"\\]*)"\s*:\s*')
_COMMA = re.compile(r"\s*,")
# Fields that are looked through for the one to name.
_LOOKED_AT = 16


def _no_constant(name: str) -> None:
    raise ValueError(name)


_field_value = json.JSONDecoder(parse_constant=_no_constant).raw_decode


def _place(text: str) -> str:
    """Return the verb and the field whose JSON is refused, to begin a sentence with; empty where they are not found."""
    verb = _VERB.match(text)
    if verb is None:
        return ""
    at = verb.end()
    for _ in range(_LOOKED_AT):
        field = _FIELD.match(text, at)
        if field is None:
            break
        try:
            _, at = _field_value(text, field.end())
        except (ValueError, RecursionError):
            return f"{verb[1][:64]}: {field[1][:64]}: "
        comma = _COMMA.match(text, at)
        if comma is None:
            break
        at = comma.end()
    return f"{verb[1][:64]}: "


_publish_packet = msgspec.json.Decoder(tuple[str, PublishRequest])


def quick_publish(text: str, attachments: int, depth: int = MAX_DEPTH) -> PublishRequest | None:
    """Return the request of `["publish", {...}]` in one step; None for all that has to be looked at closely.

    Raises BadRequest.
    """
    if not text.startswith('["publish",'):
        return None
    try:
        _, request = _publish_packet.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None  # `parse` and `decode` take it, or say what is wrong
    request.check()
    check_raw("data", request.data, attachments, depth)
    return request


def decode(
    verb: str,
    kind: type[AnyRequest],
    arguments: list[Raw],
    attachments: int,
    depth: int = MAX_DEPTH,
) -> AnyRequest:
    """Return the request of type `kind` in the arguments of a verb's packet, as JSON. Raises BadRequest naming the field.

    `attachments`: how many came with the packet; raw fields may refer to them. `depth`: how deep raw fields may nest.
    """
    if len(arguments) != 1:
        raise BadRequest(f"{verb} takes one object, not {len(arguments)} arguments")
    try:
        try:
            request: AnyRequest = _decoder(kind).decode(arguments[0])
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            request = _decode_half_pairs(kind, arguments[0])
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise BadRequest(f"{verb}: {error}") from None
    request.check()
    if attachments and not kind.raw_fields:
        raise BadRequest(f"{verb}: no field of it may be binary")
    for field in kind.raw_fields:
        check_raw(field, getattr(request, field), attachments, depth)
    return request


def _decode_half_pairs(kind: type[AnyRequest], argument: Raw) -> AnyRequest:
    """Return the request in JSON with half surrogate pairs. Raises ValueError, msgspec.ValidationError."""
    fields = loads_slowly(bytes(argument))
    if isinstance(fields, dict):
        for field in kind.raw_fields:
            if field in fields:
                fields[field] = Raw(json.dumps(fields[field]).encode())
    return msgspec.convert(fields, kind)


def check_raw(field: str, value: Raw, attachments: int, depth: int) -> None:
    """Refuse a raw field that is JSON but breaks stock clients. Raises BadRequest naming the field."""
    try:
        strict_json.check_data(bytes(value), attachments, depth)
    except ValueError as error:
        raise BadRequest(f"{field}: {error}") from None
