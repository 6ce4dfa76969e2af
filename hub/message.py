"""A message on its way: what is stored of it, and the frames that deliver it.

Stored is a body, `"event",data,meta` as JSON text with the attachments after it, and a header of six words:

    length of `"event"`   of `"event",data`   of the text   client to skip or *   ttl in µs or 0   attachment lengths or *

so that every form in which a message is delivered is cut out of it and never encoded again.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import ceil
from typing import Any

import msgspec

from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.core.ws_frames import text_message

_encode = msgspec.json.encode


def encode(
    event: str,
    data: bytes,
    meta: bytes,
    *,
    attachments: Sequence[bytes] = (),
    skip: str | None = None,
    ttl: float = 0,
) -> tuple[bytes, bytes]:
    """Return header and body of a message; `data` and `meta` are JSON, `ttl` seconds (0: none)."""
    name = _encode(event)
    body = b",".join((name, data, meta))
    head = len(name)
    until = (head, head + 1 + len(data), len(body))
    if not attachments and not skip and not ttl:
        return b"%d %d %d * 0 *" % until, body
    lengths = ",".join(str(len(part)) for part in attachments) or "*"
    # Rounded up: 0 would be no ttl.
    rest = f" {skip or '*'} {ceil(ttl * 1e6)} {lengths}"
    return b"%d %d %d" % until + rest.encode(), body + b"".join(attachments)


@functools.lru_cache(4096)
def meta(room: str, sender: str | None) -> bytes:
    """Return the JSON of a message's `meta`."""
    if sender is None:
        return b'{"room":%b}' % _encode(room)
    return b'{"room":%b,"from":%b}' % (_encode(room), _encode(sender))


class StoredMessage(msgspec.Struct, eq=False):
    """A message as it came from the bus or a log. `n` is 0 for a volatile one.

    A Struct, since making one takes a third of the time.
    """

    room: str
    offset: int
    n: int
    # The client that asked not to get its own message.
    skip: str | None
    _header: Sequence[bytes]
    body: bytes
    # As the bus brought it.
    payload: bytes = b""
    # The finished WebSocket frame of `frame`, where the bus brought a message without attachments.
    _wire: bytes = b""
    _frame: PreparedMessage | None = None
    _bare: PreparedMessage | None = None

    @classmethod
    def from_bus(cls, room: str, payload: bytes) -> StoredMessage:
        """Return the message that publish.lua put on the bus: `<offset> <n> <header>`, a line feed, the body."""
        head, _, body = payload.partition(b"\n")
        offset, n, *header = head.split(b" ")
        wire = text_message(b'2[%b,"%b"]' % (body, offset)) if header[5] == b"*" else b""
        return cls(room, int(offset), int(n), _skip(header), header, body, payload, wire)

    @classmethod
    def from_log(
        cls, room: str, offset: bytes, n: bytes, header: bytes, body: bytes
    ) -> StoredMessage:
        """Return what a log entry holds."""
        words = header.split(b" ")
        return cls(room, int(offset), int(n), _skip(words), words, body)

    @property
    def wire(self) -> bytes:
        """The WebSocket frames of `frame`."""
        return self._wire or self.frame.wire

    @property
    def frame(self) -> PreparedMessage:
        """The packet `event, data, meta, offset`, encoded once for everybody."""
        if self._frame is None:
            if self._wire:
                self._frame = PreparedMessage.from_frame(self._wire)
            elif self._header[5] == b"*":
                self._frame = PreparedMessage.text(b'2[%b,"%d"]' % (self.body, self.offset))
            else:
                text = self.body[: int(self._header[2])]
                self._frame = self._packet(b'%b,"%d"' % (text, self.offset))
        return self._frame

    @property
    def bare_frame(self) -> PreparedMessage:
        """The packet `event, data`, for clients that asked for data alone."""
        if self._bare is None:
            self._bare = self._packet(self.body[: int(self._header[1])])
        return self._bare

    def expired(self, now: int) -> bool:
        """Tell whether its ttl has run out at a time in microseconds."""
        ttl = self._header[4]
        return ttl != b"0" and self.offset + int(ttl) <= now

    @property
    def attachments(self) -> list[bytes]:
        if self._header[5] == b"*":
            return []
        parts, start = [], int(self._header[2])
        for length in self._header[5].split(b","):
            parts.append(self.body[start : start + int(length)])
            start += int(length)
        return parts

    def _packet(self, arguments: bytes) -> PreparedMessage:
        attachments = self.attachments
        if not attachments:
            return PreparedMessage.text(b"2[%b]" % arguments)
        return PreparedMessage((b"5%d-[%b]" % (len(attachments), arguments)).decode(), *attachments)

    def history(self) -> tuple[dict[str, Any], list[bytes]]:
        """Return the message as `history` answers it, its JSON parts raw, and its attachments."""
        name, data, text = (int(word) for word in self._header[:3])
        body = self.body
        return {
            "event": msgspec.Raw(body[:name]),
            "data": msgspec.Raw(body[name + 1 : data]),
            "meta": msgspec.Raw(body[data + 1 : text]),
            "offset": str(self.offset),
        }, self.attachments


def _skip(header: Sequence[bytes]) -> str | None:
    return None if header[3] == b"*" else header[3].decode()


def event_frame(event: str, data: Any, offset: int | None) -> PreparedMessage:
    """Return the packet of one of the hub's own events; without an offset for clients that want data alone."""
    body = _encode([event, data] if offset is None else [event, data, str(offset)])
    return PreparedMessage.text(b"2" + body)
