"""Engine.IO messages, encoded once for everybody who gets them."""

from __future__ import annotations

from hub.engineio.core import ws_frames


class PreparedMessage:
    """One or several Engine.IO messages that belong together; nothing comes between them.

    `wire` is their finished WebSocket frames. `packets` are the same as payloads: str for a
    text message without its "4", bytes for a binary one; only polling clients need them.
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
        """Return the frame of one text message from its UTF-8 bytes, without decoding them."""
        return cls.finished(ws_frames.text_message(payload))

    @classmethod
    def finished(cls, wire: bytes) -> PreparedMessage:
        """Return the frame of one text message from its WebSocket frame."""
        self = cls.__new__(cls)
        self.wire = wire
        self._packets = ()
        self._deflated = None
        return self

    @property
    def packets(self) -> tuple[str | bytes, ...]:
        packets = self._packets
        if not packets:
            # From its wire: the payload is what follows the header and the "4".
            size = self.wire[1]
            header = 2 if size < 126 else 4 if size == 126 else 10
            # What is no UTF-8 ends a WebSocket client; it must not end the writer.
            text = self.wire[header + 1 :].decode("utf-8", "replace")
            self._packets = packets = (text,)
        return packets

    def deflated(self, threshold: int) -> bytes:
        """Return the WebSocket frames, those of at least `threshold` bytes compressed."""
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
