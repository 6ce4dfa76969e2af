"""Engine.IO packets and polling payloads: strict decoding, encoding (protocol v4, "Packet encoding").

A packet is str (its first character is its type), or bytes for a binary message.
"""

from __future__ import annotations

import binascii
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable

OPEN = "0"
CLOSE = "1"
PING = "2"
PONG = "3"
MESSAGE = "4"
UPGRADE = "5"
NOOP = "6"

PROBE = "2probe"
PROBED = "3probe"

SEPARATOR = "\x1e"


class ProtocolError(Exception):
    """The peer broke the protocol, and its connection is ended. The text says how; it is for the log."""


def decode_payload(body: bytes, max_packets: int) -> list[str | bytes]:
    """Return the packets of a polling body.

    Raises ProtocolError for an empty body, invalid UTF-8 or base64, an unknown packet type,
    or more than `max_packets` packets.
    """
    if body.count(0x1E) >= max_packets:
        raise ProtocolError("too many packets in a payload")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise ProtocolError("payload is not UTF-8") from None
    return [decode_text(packet) for packet in text.split(SEPARATOR)]


def decode_text(packet: str) -> str | bytes:
    """Return a packet that came as text. A binary message ("b" and base64) is returned as bytes.

    Raises ProtocolError for text that is no packet.
    """
    kind = packet[:1]
    if kind == "b":
        try:
            return a2b_base64(packet[1:], strict_mode=True)
        except (binascii.Error, ValueError):
            raise ProtocolError("invalid base64") from None
    if not kind or kind not in "0123456":
        raise ProtocolError("unknown packet type")
    return packet


def encode_binary(data: bytes) -> str:
    """Return a binary message as a polling packet."""
    return "b" + b2a_base64(data, newline=False).decode()


def encode_payload(packets: Iterable[str]) -> str:
    """Return the body of a response to a poll."""
    return SEPARATOR.join(packets)
