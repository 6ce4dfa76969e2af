"""Parses the WebSocket frames of a client, without I/O (RFC 6455 §5 to §8, RFC 7692).

`feed` adds bytes that were read from the socket. `next` returns one message or control frame after the other.
"""

from __future__ import annotations

import zlib

from hub.engineio.core import ws_frames

CONTINUATION = 0x0
TEXT = ws_frames.TEXT
BINARY = ws_frames.BINARY
CLOSE = ws_frames.CLOSE
PING = 0x9
PONG = ws_frames.PONG

# The most fragments of one message: a fragment may be empty, and each costs work.
FRAGMENTS = 10_000
# The first bytes of uncompressed messages that are one frame, as most are.
_WHOLE = frozenset({0x80 | TEXT, 0x80 | BINARY})
# Close codes that a peer may send (RFC 6455 §7.4).
_CODES = frozenset(range(1000, 1015)) - {1004, 1005, 1006}


class WebSocketError(Exception):
    """The peer broke the WebSocket protocol; `code` is the close code to send."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


# A text or binary message as str or bytes, or a control frame as its opcode and payload.
WebSocketMessage = str | bytes | tuple[int, bytes]


class FrameParser:
    """Parses what one client sends. It holds at most one message of `limit` bytes and the bytes of one read."""

    __slots__ = (
        "_buffer", "_compressed", "_deflate", "_fragments", "_limit", "_message", "_opcode", "_position",
    )  # fmt: skip

    def __init__(self, limit: int, *, deflate: bool = False) -> None:
        self._limit = limit
        self._deflate = deflate
        self._buffer: bytes | bytearray = b""
        self._position = 0
        # The beginning of a message that comes in fragments.
        self._message: bytearray | None = None
        self._fragments = 0
        self._opcode = 0
        self._compressed = False

    @property
    def waiting(self) -> int:
        """Bytes that were fed and not returned yet."""
        return len(self._buffer) - self._position

    def feed(self, data: bytes) -> None:
        """Add bytes that were read."""
        if not self._buffer:
            self._buffer = data
            return
        buffer = self._buffer
        if not isinstance(buffer, bytearray):
            self._buffer = buffer = bytearray(buffer)
        if self._position:
            del buffer[: self._position]
            self._position = 0
        buffer += data

    def next(self) -> WebSocketMessage | None:
        """Return the next message or control frame; None: it is not complete yet.

        Raises WebSocketError, after which nothing more can be parsed.
        """
        message = None
        while message is None:
            buffer, start = self._buffer, self._position
            have = len(buffer) - start
            if have < 2:
                self._compact()
                return None
            first, second = buffer[start], buffer[start + 1]
            size = second & 0x7F
            header = 6
            if size >= 126:
                header = 8 if size == 126 else 14
                if have < header - 4:
                    self._compact()
                    return None
                size = int.from_bytes(buffer[start + 2 : start + header - 4], "big")
            whole = first in _WHOLE and self._message is None
            if not whole or second < 0x80 or size > self._limit:
                self._check(first, second, size, header)
            if have < header + size:
                self._compact()
                return None
            begin = start + header
            end = begin + size
            payload = _unmask(buffer[begin:end], buffer[begin - 4 : begin])
            if end == len(buffer):
                self._buffer = b""
                end = 0
            self._position = end
            if whole:
                return _text(payload) if first & 0x0F == TEXT else payload
            message = self._join(first, payload)
        return message

    def _join(self, first: int, payload: bytes) -> WebSocketMessage | None:
        """Handle a control frame, a compressed message or a fragment; return a message if the frame completes one."""
        opcode = first & 0x0F
        if opcode >= CLOSE:
            if opcode == CLOSE:
                _check_close(payload)
            return opcode, payload
        if opcode == CONTINUATION:
            assert self._message is not None
            self._message += payload
            self._fragments += 1
            if self._fragments > FRAGMENTS:
                raise WebSocketError(1009, "too many fragments")
        else:
            self._opcode = opcode
            self._compressed = bool(first & 0x40)
            self._message = bytearray(payload)
            self._fragments = 1
        if not first & 0x80:
            return None
        payload = bytes(self._message)
        self._message = None
        if self._compressed:
            payload = self._inflate(payload)
        return payload if self._opcode == BINARY else _text(payload)

    def _check(self, first: int, second: int, size: int, header: int) -> None:
        """Raise WebSocketError for an illegal header, before its payload is waited for."""
        opcode = first & 0x0F
        if not second & 0x80:
            raise WebSocketError(1002, "frame is not masked")
        if opcode >= CLOSE:
            if opcode > PONG or header != 6 or not first & 0x80 or first & 0x70:
                raise WebSocketError(1002, "illegal control frame")
            return
        reserved = first & 0x70
        if opcode > BINARY or (reserved and not (reserved == 0x40 and self._deflate and opcode)):
            raise WebSocketError(1002, "illegal data frame")
        if (opcode == CONTINUATION) != (self._message is not None):
            raise WebSocketError(1002, "fragment out of order")
        if size + (len(self._message) if self._message is not None else 0) > self._limit:
            raise WebSocketError(1009, "message too big")

    def _compact(self) -> None:
        """Drop what was parsed: an idle connection keeps no buffer."""
        if self._position:
            self._buffer = bytes(self._buffer[self._position :])
            self._position = 0

    def _inflate(self, payload: bytes) -> bytes:
        # By the negotiation no context is kept between messages, so a connection holds nothing for it.
        inflate = zlib.decompressobj(-15)
        try:
            data = inflate.decompress(payload + ws_frames.DEFLATE_TAIL, self._limit + 1)
        except zlib.error:
            raise WebSocketError(1007, "invalid compressed data") from None
        if len(data) > self._limit or inflate.unconsumed_tail:
            raise WebSocketError(1009, "message too big")
        return data


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise WebSocketError(1007, "text is not UTF-8") from None


def _unmask(payload: bytes | bytearray, mask: bytes | bytearray) -> bytes:
    size = len(payload)
    key = mask * (size // 4 + 1)
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key[:size], "little")).to_bytes(
        size, "little"
    )


def _check_close(payload: bytes) -> None:
    if not payload:
        return
    if len(payload) == 1:
        raise WebSocketError(1002, "illegal close frame")
    code = int.from_bytes(payload[:2], "big")
    if code not in _CODES and not 3000 <= code <= 4999:
        raise WebSocketError(1002, "illegal close code")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise WebSocketError(1007, "close reason is not UTF-8") from None
