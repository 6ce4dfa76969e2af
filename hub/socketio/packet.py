"""Socket.IO packets: strict decoding, and a cheap recognition of events that are not decoded here."""

from __future__ import annotations

import re
from typing import Any

from socketio import packet as sio

from hub import strict_json
from hub.engineio.core.packet import ProtocolError
from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.options import EngineOptions
from hub.errors import BadRequest, HubError, TooLarge
from hub.model import RESERVED_EVENTS

_DEFAULTS = EngineOptions()

# Attachments of one packet that are read; those of a packet with more than max_attachments are dropped.
ATTACHMENTS_READ = 100

# Digits of the longest acknowledgement id. Stock clients count from 0, and JavaScript numbers are exact up to 15 digits.
_ID_DIGITS = 15
# The part of an event between its type and its JSON: "/" may be named, and JSON may begin with blanks.
_HEAD = rf"(?:/,)?([0-9]{{0,{_ID_DIGITS}}})[ \t\r\n]*\["
# Matches an event of "/", `2[…]` or `2<id>[…]`, up to its bracket; the group is the id.
plain_event = re.compile("2" + _HEAD).match
# Matches one with attachments, `5<count>-…`; the groups are the count and the id.
binary_event = re.compile("5([0-9]{1,9})-" + _HEAD).match


class Packet(sio.Packet):  # type: ignore[misc]
    """A Socket.IO packet, decoded strictly. Raises ProtocolError for anything malformed."""

    max_attachments = _DEFAULTS.max_attachments
    max_depth = _DEFAULTS.max_depth
    # Why nobody takes the data of a packet that stock clients send; empty: it is fine.
    fault = ""

    def decode(self, encoded_packet: str) -> int:
        """Decode a text packet; return how many attachments follow."""
        text = encoded_packet
        kind = text[:1]
        if not kind or kind not in "0123456":
            raise ProtocolError("unknown Socket.IO packet type")
        self.packet_type = int(kind)
        at = 1
        count = 0
        if self.packet_type in (sio.BINARY_EVENT, sio.BINARY_ACK):
            dash = text.find("-", 1, 12)
            if dash < 0 or not _is_number(text[1:dash]):
                raise ProtocolError("illegal attachment count")
            count = int(text[1:dash])
            if count > ATTACHMENTS_READ:
                raise ProtocolError("too many attachments")
            if count > self.max_attachments:
                self.fault = too_many_attachments(count, self.max_attachments)
            at = dash + 1
        self.namespace = None
        if text[at : at + 1] == "/":
            comma = text.find(",", at)
            end = comma if comma >= 0 else len(text)
            self.namespace = text[at:end].partition("?")[0]
            at = end + 1
        digits = at
        while text[digits : digits + 1] in _DIGITS and digits < len(text):
            digits += 1
            if digits - at > _ID_DIGITS:
                raise ProtocolError("acknowledgement id too long")
        self.id = int(text[at:digits]) if digits > at else None
        self.data = None
        if digits < len(text):
            try:
                self.data = parse_json(text[digits:], self.max_depth)
            except DataRefused as refusal:
                self.fault = str(refusal)
        if not self.fault:
            self._check()
        return count

    def _check(self) -> None:
        """Raise ProtocolError if the payload does not fit the packet's type."""
        kind = self.packet_type
        data: Any = self.data
        if kind == sio.CONNECT:
            good = True
            if self.id is not None or not (data is None or isinstance(data, dict)):
                self.fault = "an object"
        elif kind == sio.DISCONNECT:
            good = data is None
        elif kind in (sio.EVENT, sio.BINARY_EVENT):
            good = isinstance(data, list) and bool(data) and isinstance(data[0], str)
            if good and data[0] in RESERVED_EVENTS:
                raise ProtocolError("reserved event name")
        elif kind in (sio.ACK, sio.BINARY_ACK):
            good = isinstance(data, list) and self.id is not None
        else:
            good = False
        if not good:
            raise ProtocolError("illegal Socket.IO payload")

    def add_attachment(self, attachment: bytes) -> bool:
        """Add the next attachment; return whether it was the last one. Those of a refused packet are not kept."""
        try:
            return bool(super().add_attachment(b"" if self.fault else attachment))
        except ProtocolError as error:
            self.fault = str(error)
            return True

    @classmethod
    def reconstruct_binary(cls, data: Any, attachments: list[bytes]) -> Any:
        """Put the attachments in the places of their placeholders. Raises ProtocolError for an illegal placeholder."""
        if isinstance(data, list):
            return [cls.reconstruct_binary(item, attachments) for item in data]
        if isinstance(data, dict):
            if data.get("_placeholder") is True:
                number = data.get("num")
                if type(number) is not int or not 0 <= number < len(attachments):
                    raise ProtocolError("illegal placeholder")
                return attachments[number]
            return {key: cls.reconstruct_binary(item, attachments) for key, item in data.items()}
        return data


_DIGITS = frozenset("0123456789")


def _is_number(text: str) -> bool:
    """Return whether a text is ASCII digits (str.isdigit accepts others too)."""
    return text.isascii() and text.isdigit()


class DataRefused(ProtocolError):
    """A packet that stock clients send, with data that nobody takes."""


def parse_json(text: str, max_depth: int) -> Any:
    """Parse JSON strictly. Raises ProtocolError, DataRefused."""
    try:
        return strict_json.loads(text, max_depth)
    except strict_json.RefusedJson as error:
        raise DataRefused(str(error)) from None
    except ValueError as error:
        raise ProtocolError(str(error)) from None


def too_many_attachments(count: int, most: int) -> str:
    return f"at most {most} binary values, not {count}"


def prepare(packet: sio.Packet) -> PreparedMessage:
    """Return a packet and its attachments as one prepared message."""
    encoded = packet.encode()
    return PreparedMessage(*encoded) if isinstance(encoded, list) else PreparedMessage(encoded)


class UndecodedEvent:
    """A binary event of "/" that is not decoded, while its attachments are still coming.

    It holds at most `max_attachments` of them, and `max_size` bytes.
    """

    __slots__ = (
        "_bracket",
        "_max_size",
        "_missing",
        "_size",
        "ack",
        "attachments",
        "packet",
        "refusal",
    )

    def __init__(self, found: re.Match[str], max_attachments: int, max_size: int) -> None:
        """Raise ProtocolError for more attachments than are read."""
        self.packet = found.string
        self.ack = found[2]
        self.attachments: list[bytes] = []
        # Why it is refused. Its attachments are read all the same, and dropped.
        self.refusal: HubError | None = None
        self._bracket = found.end() - 1
        self._missing = count = int(found[1])
        self._max_size = max_size
        self._size = 0
        if count > ATTACHMENTS_READ:
            raise ProtocolError("too many attachments")
        if count > max_attachments:
            self.refusal = BadRequest(f"data: {too_many_attachments(count, max_attachments)}")

    @property
    def complete(self) -> bool:
        """True: no attachment is missing."""
        return not self._missing

    @property
    def text(self) -> str:
        """The JSON of the event."""
        return self.packet[self._bracket :]

    def add_attachment(self, data: bytes) -> bool:
        """Add the next attachment; return whether it was the last one."""
        self._missing -= 1
        self._size += len(data)
        if self.refusal is None and self._size > self._max_size:
            self.refusal = TooLarge(f"data: more than {self._max_size} bytes")
            self.attachments.clear()
        if self.refusal is None:
            self.attachments.append(data)
        return not self._missing
