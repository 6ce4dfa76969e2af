"""What clients ask for: the verbs of PROTOCOL §4 as types, checked field by field."""

from __future__ import annotations

import functools
import json
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from hub import strict_json
from hub.errors import BadRequest
from hub.model import HISTORY_LIMIT, OFFSET_PATTERN, check_event, check_id, check_room
from hub.strict_json import MAX_DEPTH, loads_half_pairs

Offset = Annotated[str, Meta(pattern=OFFSET_PATTERN)]


# The same names come again and again.
_check_room = functools.lru_cache(4096)(check_room)
_check_event = functools.lru_cache(1024)(check_event)


class VerbRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """The one object that a verb takes."""


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
    offset: Offset

    def check(self) -> None:
        pass


Request = SubscribeRequest | UnsubscribeRequest | PublishRequest | HistoryRequest | AckRequest

VERBS: dict[str, type[Request]] = {
    "subscribe": SubscribeRequest,
    "unsubscribe": UnsubscribeRequest,
    "publish": PublishRequest,
    "history": HistoryRequest,
    "ack": AckRequest,
}
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    name: msgspec.json.Decoder(kind) for name, kind in VERBS.items()
}


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
    check_data(request.data, attachments, depth)
    return request


def _half_pairs(verb: str, argument: Raw) -> Any:
    """Return the request in JSON with half surrogate pairs. Raises ValueError, msgspec.ValidationError."""
    fields = loads_half_pairs(bytes(argument))
    if verb == "publish" and isinstance(fields, dict) and "data" in fields:
        fields["data"] = Raw(json.dumps(fields["data"]).encode())
    return msgspec.convert(fields, VERBS[verb])


def decode(verb: str, arguments: list[Raw], attachments: int, depth: int = MAX_DEPTH) -> Request:
    """Return the request in the arguments of a packet, as JSON. Raises BadRequest naming the field.

    `attachments`: how many came with the packet; the data of a publish may refer to them. `depth`: how deep it may nest.
    """
    if len(arguments) != 1:
        raise BadRequest(f"{verb} takes one object, not {len(arguments)} arguments")
    request: Request
    try:
        try:
            request = _DECODERS[verb].decode(arguments[0])
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            request = _half_pairs(verb, arguments[0])
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise BadRequest(f"{verb}: {error}") from None
    request.check()
    if isinstance(request, PublishRequest):
        check_data(request.data, attachments, depth)
    elif attachments:
        raise BadRequest(f"{verb}: no field of it may be binary")
    return request


def check_data(data: Raw, attachments: int, depth: int) -> None:
    """Refuse data that is JSON but breaks stock clients. Raises BadRequest."""
    try:
        strict_json.check_data(bytes(data), attachments, depth)
    except ValueError as error:
        raise BadRequest(f"data: {error}") from None
