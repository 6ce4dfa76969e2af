"""What clients ask for: the verbs of PROTOCOL §4 as types, checked field by field."""

from __future__ import annotations

import functools
import json
from typing import Annotated, ClassVar, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from hub import strict_json
from hub.errors import BadRequest
from hub.model import HISTORY_LIMIT, OFFSET_PATTERN, check_event, check_id, check_room
from hub.strict_json import MAX_DEPTH, loads_half_pairs

AnyRequest = TypeVar("AnyRequest", bound="VerbRequest")
Offset = Annotated[str, Meta(pattern=OFFSET_PATTERN)]


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
    room: str
    # The last n messages with the answer, or those after an offset.
    history: Annotated[int, Meta(ge=0, le=HISTORY_LIMIT)] | None = None
    since: Offset | None = None

    def check(self) -> None:
        _check_room(self.room)
        if self.history is not None and self.since is not None:
            raise BadRequest("history and since: one of them, not both")


class UnsubscribeRequest(VerbRequest):
    room: str

    def check(self) -> None:
        _check_room(self.room)


class PublishRequest(VerbRequest):
    raw_fields: ClassVar[tuple[str, ...]] = ("data",)

    room: str
    event: str
    # JSON as it came; with attachments: JSON with placeholders.
    data: Raw
    # Idempotency key.
    id: str | None = None
    volatile: bool = False
    # Seconds; up to ten years.
    ttl: Annotated[float, Meta(gt=0, le=315_360_000)] | None = None
    echo: bool = True

    def check(self) -> None:
        _check_room(self.room)
        _check_event(self.event)
        if self.id is not None:
            check_id(self.id)


class HistoryRequest(VerbRequest):
    room: str
    limit: Annotated[int, Meta(ge=1, le=HISTORY_LIMIT)] = 100
    before: Offset | None = None
    after: Offset | None = None

    def check(self) -> None:
        _check_room(self.room)
        if self.before is not None and self.after is not None:
            raise BadRequest("before and after: one of them, not both")


class AckRequest(VerbRequest):
    # Everything up to it is processed.
    offset: Offset


_decoder = functools.cache(msgspec.json.Decoder)
_arguments = msgspec.json.Decoder(list[Raw])
_name = msgspec.json.Decoder(str)


def parse(text: str) -> tuple[str, list[Raw]] | None:
    """Return the event and the arguments of `[event, arguments...]`, as JSON; None where it is not that."""
    try:
        event, *arguments = _arguments.decode(text)
        return _name.decode(event), arguments
    except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError):
        pass
    # JavaScript writes half a surrogate pair as an escape, which msgspec refuses and JSON allows.
    if "\\u" not in text:
        return None
    try:
        event, *arguments = loads_half_pairs(text)
    except (ValueError, TypeError, RecursionError):
        return None
    if not isinstance(event, str):
        return None
    return event, [Raw(json.dumps(argument).encode()) for argument in arguments]


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
    fields = loads_half_pairs(bytes(argument))
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
