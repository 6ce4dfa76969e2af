"""Engine.IO and Socket.IO packets without I/O: the base of every client and server that the tests wrote by hand.

It shares no code with the hub or with the stock libraries, and so can judge them. An end of a connection is a `Wire`:
packets that arrived go into `Wire.receive`, and `Wire.due` returns what must be sent in return. Packets to send are
written by `encode` and `Wire.ask`.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

# Between two packets of a polling payload.
SEPARATOR = "\x1e"

# The types of packets as they stand on the wire: Engine.IO's, and Socket.IO's, which follow Engine.IO's 4.
OPEN, CLOSE, PING, PONG = "0", "1", "2", "3"
CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR = "40", "41", "42", "43", "44"
# The types of packets that have attachments, and back.
_BINARY = {EVENT: "45", ACK: "46"}
_PLAIN = {binary: plain for plain, binary in _BINARY.items()}

# The part of a Socket.IO packet between its type and its JSON.
_HEAD = re.compile(r"(?:(?P<attachments>\d+)-)?(?:(?P<namespace>/[^,]*),?)?(?P<number>\d*)")


class Packet(NamedTuple):
    """One packet that is complete. `data`: the JSON value, with the attachments in their places."""

    type: str
    data: Any = None
    # With it an event asks for an acknowledgement, which bears the same number.
    number: int | None = None
    namespace: str = "/"


# ---------------------------------------------------------------------------- packets


def encode(
    type: str, data: Any = None, number: int | None = None, namespace: str = "/"
) -> list[str | bytes]:
    """Return a Socket.IO packet as Engine.IO packets: its text, then an attachment for each `bytes` in the data."""
    attachments: list[bytes] = []

    def take_out(value: Any) -> Any:
        if isinstance(value, bytes):
            attachments.append(value)
            return {"_placeholder": True, "num": len(attachments) - 1}
        if isinstance(value, list | tuple):
            return [take_out(item) for item in value]
        if isinstance(value, dict):
            return {key: take_out(item) for key, item in value.items()}
        return value

    text = "" if data is None else json.dumps(take_out(data), separators=(",", ":"))
    kind = f"{_BINARY[type]}{len(attachments)}-" if attachments else type
    space = "" if namespace == "/" else f"{namespace},"
    return [f"{kind}{space}{'' if number is None else number}{text}", *attachments]


def decode(text: str, attachments: Sequence[bytes] = ()) -> Packet:
    """Return the packet that a text and the attachments behind it are."""
    if text[:1] == OPEN:
        return Packet(OPEN, json.loads(text[1:]))
    if not is_message(text):
        return Packet(text[:1], text[1:])
    head = _HEAD.match(text, 2)
    assert head is not None  # the pattern fits the empty text, too
    body = text[head.end() :]
    data = json.loads(body) if body else None
    if attachments:
        data = _put_in(data, attachments)
    number = int(head["number"]) if head["number"] else None
    return Packet(_PLAIN.get(text[:2], text[:2]), data, number, head["namespace"] or "/")


def is_message(packet: str | bytes) -> bool:
    """Return whether an Engine.IO packet belongs to Socket.IO."""
    return isinstance(packet, bytes) or packet[:1] == "4"


def _put_in(value: Any, attachments: Sequence[bytes]) -> Any:
    if isinstance(value, list):
        return [_put_in(item, attachments) for item in value]
    if isinstance(value, dict):
        if value.get("_placeholder") is True:
            return attachments[value["num"]]
        return {key: _put_in(item, attachments) for key, item in value.items()}
    return value


# ---------------------------------------------------------------------------- payloads of polling


def join_payload(packets: Iterable[str | bytes]) -> str:
    """Return the payload of these Engine.IO packets."""
    return SEPARATOR.join(
        "b" + base64.b64encode(packet).decode() if isinstance(packet, bytes) else packet
        for packet in packets
    )


def split_payload(text: str) -> list[str | bytes]:
    """Return the Engine.IO packets of a payload."""
    return [
        base64.b64decode(packet[1:]) if packet[:1] == "b" else packet
        for packet in text.split(SEPARATOR)
    ]


# ---------------------------------------------------------------------------- connections


class Wire:
    """One end of a connection. `pong`: whether it answers pings."""

    def __init__(self, *, pong: bool = True) -> None:
        self.pong = pong
        # The text of the last Socket.IO packet, and the attachments that came behind it.
        self._text = ""
        self._attachments: list[bytes] = []
        # How many attachments the packet announces; 0 once all are there.
        self._announced = 0
        # Packets to be sent in return.
        self._due: list[str] = []
        self._numbers = itertools.count(1)

    def receive(self, packet: str | bytes) -> Packet | None:
        """Take an Engine.IO packet; return what it is or completes, or None while attachments are missing.

        Raises AssertionError where attachments and what announces them do not go together.
        """
        if isinstance(packet, bytes):
            assert self._announced, "an attachment that nothing announced"
            self._attachments.append(packet)
        elif is_message(packet):
            assert not self._announced, f"{packet!r} between a packet and its attachments"
            self._text, self._attachments = packet, []
            self._announced = int(packet[2:].partition("-")[0]) if packet[:2] in _PLAIN else 0
        else:
            if packet == PING and self.pong:
                self._due.append(PONG)
            return decode(packet)
        if len(self._attachments) < self._announced:
            return None
        self._announced = 0
        return decode(self._text, self._attachments)

    def due(self) -> list[str]:
        """Return the packets to be sent in return for what has arrived."""
        due, self._due = self._due, []
        return due

    def number(self) -> int:
        """Return a number for the next event that asks for an acknowledgement."""
        return next(self._numbers)

    def ask(self, event: str, *args: Any) -> tuple[int, list[str | bytes]]:
        """Return the number and the Engine.IO packets of an event that asks for an acknowledgement."""
        number = self.number()
        return number, encode(EVENT, [event, *args], number)
