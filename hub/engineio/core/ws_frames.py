"""WebSocket frames as a server sends them: one for a message, unmasked (RFC 6455 §5)."""

from __future__ import annotations

import zlib
from struct import Struct

TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PONG = 0xA

_FIN = 0x80
_RSV1 = 0x40
_LONG = Struct("!BBH").pack
_HUGE = Struct("!BBQ").pack

# The last bytes of compressed data, which permessage-deflate does not send (RFC 7692 §7.2.1).
DEFLATE_TAIL = b"\x00\x00\xff\xff"


def frame(opcode: int, payload: bytes, *, flags: int = 0) -> bytes:
    """Return one final frame."""
    size = len(payload)
    first = _FIN | flags | opcode
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return _LONG(first, 126, size) + payload
    return _HUGE(first, 127, size) + payload


def deflated(opcode: int, payload: bytes) -> bytes:
    """Return one final frame with a compressed payload; no compression context is kept between messages."""
    deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
    body = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return frame(opcode, body.removesuffix(DEFLATE_TAIL), flags=_RSV1)


def close(code: int) -> bytes:
    """Return a close frame with a code."""
    return frame(CLOSE, code.to_bytes(2, "big"))


# The header and Engine.IO's "4" of short text messages, by length: their header has two bytes.
_SHORT = tuple(bytes((_FIN | TEXT, size + 1)) + b"4" for size in range(125))


def text_message(payload: bytes) -> bytes:
    """Return the frame of an Engine.IO text message; `payload` is UTF-8 without the "4"."""
    size = len(payload)
    if size < 125:
        return _SHORT[size] + payload
    if size < 65535:
        return _LONG(_FIN | TEXT, 126, size + 1) + b"4" + payload
    return _HUGE(_FIN | TEXT, 127, size + 1) + b"4" + payload


def binary_message(payload: bytes) -> bytes:
    """Return the frame of an Engine.IO binary message, which has no type character."""
    return frame(BINARY, payload)
