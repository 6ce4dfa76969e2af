"""Engine.IO messages that are encoded once for all connections that get them."""

from __future__ import annotations

from hub.engineio.core import ws_frames


class PreparedMessage:
    """One or several Engine.IO messages that belong together: nothing is sent between them.

    `wire` holds their finished WebSocket frames: the bytes as they are written to a socket ("on the wire"). `packets`
    holds the same messages as payloads: str for a text message without its "4", bytes for a binary one. They are made
    when they are read, as only polling and compressing connections need them.
    """

    __slots__ = ("_deflated", "_packets", "wire")

    wire: bytes
    _packets: tuple[str | bytes, ...]

    def __init__(self, *packets: str | bytes) -> None:
        self._packets = packets
        self._deflated: bytes | None = None
        self.wire = b"".join(
            ws_frames.text_message(packet.encode())
            if isinstance(packet, str)
            else ws_frames.binary_message(packet)
            for packet in packets
        )

    @classmethod
    def text(cls, payload: bytes) -> PreparedMessage:
        """Prepare one text message from its UTF-8 bytes, without decoding them."""
        return cls.from_frame(ws_frames.text_message(payload))

    @classmethod
    def from_frame(cls, wire: bytes) -> PreparedMessage:
        """Prepare one text message from its finished WebSocket frame."""
        self = cls.__new__(cls)
        self.wire = wire
        self._packets = ()
        self._deflated = None
        return self

    @property
    def packets(self) -> tuple[str | bytes, ...]:
        packets = self._packets
        if not packets:
            # The payload follows the frame's header and the "4".
            size = self.wire[1]
            header = 2 if size < 126 else 4 if size == 126 else 10
            # Invalid UTF-8 ends a WebSocket client. It must not raise here, in the code that sends to others too.
            text = self.wire[header + 1 :].decode("utf-8", "replace")
            self._packets = packets = (text,)
        return packets

    def deflated(self, threshold: int) -> bytes:
        """Return the WebSocket frames; those of at least `threshold` bytes are compressed."""
        if self._deflated is None:
            self._deflated = b"".join(_deflated(packet, threshold) for packet in self.packets)
        return self._deflated

    def __len__(self) -> int:
        return len(self.wire)


def _deflated(packet: str | bytes, threshold: int) -> bytes:
    if isinstance(packet, str):
        opcode, payload = ws_frames.TEXT, b"4" + packet.encode()
    else:
        opcode, payload = ws_frames.BINARY, packet
    if len(payload) < threshold:
        return ws_frames.frame(opcode, payload)
    return ws_frames.deflated(opcode, payload)
