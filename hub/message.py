"""A message: what is stored of it, and the frames that deliver it.

Stored are a body, `"event",data,meta` as JSON text with the attachments after it, and a header of six words:

    length of `"event"`   of `"event",data`   of the text   client to skip or *   ttl in µs or 0   attachment lengths or *

So each form in which a message is delivered is a slice of the body, and nothing is encoded again.
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
    skip_client: str | None = None,
    ttl: float = 0,
) -> tuple[bytes, bytes]:
    """Return header and body of a message; `data` and `meta` are JSON, `ttl` is in seconds (0: none).

    `skip_client`: the client that does not get the message.
    """
    name = _encode(event)
    body = b",".join((name, data, meta))
    head = len(name)
    until = (head, head + 1 + len(data), len(body))
    if not attachments and not skip_client and not ttl:
        return b"%d %d %d * 0 *" % until, body
    lengths = ",".join(str(len(part)) for part in attachments) or "*"
    # Rounded up: 0 would be no ttl.
    rest = f" {skip_client or '*'} {ceil(ttl * 1e6)} {lengths}"
    return b"%d %d %d" % until + rest.encode(), body + b"".join(attachments)


@functools.lru_cache(4096)
def meta(room: str, sender: str | None) -> bytes:
    """Return the JSON of a message's `meta`."""
    if sender is None:
        return b'{"room":%b}' % _encode(room)
    return b'{"room":%b,"from":%b}' % (_encode(room), _encode(sender))


class StoredMessage(msgspec.Struct, eq=False):
    """A message as it came from the bus or a log.

    A Struct, since making one takes a third of the time.
    """

    room: str
    offset: int
    # Its running number; 0: it is volatile.
    n: int
    # The client that does not get it: its publisher, if it turned the echo off.
    skip_client: str | None
    _header: Sequence[bytes]
    body: bytes
    # As the bus brought it.
    payload: bytes = b""
    # The finished WebSocket frame of `frame`; empty: it has attachments, or came from a log.
    _wire: bytes = b""
    _frame: PreparedMessage | None = None
    _data_only_frame: PreparedMessage | None = None

    @classmethod
    def from_bus(cls, room: str, payload: bytes) -> StoredMessage:
        """Return the message that publish.lua put on the bus: `<offset> <n> <header>`, a line feed, the body."""
        head, _, body = payload.partition(b"\n")
        offset, n, *header = head.split(b" ")
        wire = text_message(b'2[%b,"%b"]' % (body, offset)) if header[5] == b"*" else b""
        return cls(room, int(offset), int(n), _skip_client(header), header, body, payload, wire)

    @classmethod
    def from_log(
        cls, room: str, offset: bytes, n: bytes, header: bytes, body: bytes
    ) -> StoredMessage:
        """Return the message of a log entry."""
        words = header.split(b" ")
        return cls(room, int(offset), int(n), _skip_client(words), words, body)

    @property
    def wire(self) -> bytes:
        """The WebSocket frames of `frame`."""
        return self._wire or self.frame.wire

    @property
    def frame(self) -> PreparedMessage:
        """The packet `event, data, meta, offset`, encoded once for all clients."""
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
    def data_only_frame(self) -> PreparedMessage:
        """The packet `event, data`, for clients that asked for data alone."""
        if self._data_only_frame is None:
            self._data_only_frame = self._packet(self.body[: int(self._header[1])])
        return self._data_only_frame

    def expired(self, now: int) -> bool:
        """Tell whether its ttl is over at `now`, in microseconds."""
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


def _skip_client(header: Sequence[bytes]) -> str | None:
    return None if header[3] == b"*" else header[3].decode()


def event_frame(event: str, data: Any, offset: int | None) -> PreparedMessage:
    """Return the packet of one of the hub's own events; without an offset for clients that want data alone."""
    body = _encode([event, data] if offset is None else [event, data, str(offset)])
    return PreparedMessage.text(b"2" + body)
