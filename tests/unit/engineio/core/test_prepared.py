"""Frames: what an independent WebSocket parser reads is what was put in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.engineio.core import ws_frames
from hub.engineio.core.prepared import PreparedMessage


def unframe(data: bytes) -> list[tuple[int, bytes]]:
    """Read whole, unmasked frames."""
    frames = []
    while data:
        first, size = data[0], data[1]
        at = 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
        frames.append((first, data[at : at + size]))
        data = data[at + size :]
    return frames


sizes = st.sampled_from([0, 1, 123, 124, 125, 126, 127, 65533, 65534, 65535, 65536])


@given(st.lists(st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.binary())))
def test_wire_is_the_packets(packets: list[str | bytes]) -> None:
    prepared = PreparedMessage(*packets)
    assert unframe(prepared.wire) == [
        (0x81, b"4" + packet.encode()) if isinstance(packet, str) else (0x82, packet)
        for packet in packets
    ]
    assert not packets or prepared.packets == tuple(packets)


@given(sizes)
def test_text_from_bytes_is_the_same(size: int) -> None:
    payload = b"x" * size
    assert PreparedMessage.text(payload).wire == PreparedMessage(payload.decode()).wire
    assert PreparedMessage.text(payload).packets == (payload.decode(),)
    assert unframe(ws_frames.frame(ws_frames.BINARY, payload)) == [(0x82, payload)]


def test_only_large_messages_are_compressed_and_once() -> None:
    prepared = PreparedMessage("small", "x" * 5000)
    small, large = unframe(prepared.deflated(1024))
    assert small == (0x81, b"4small")
    assert large[0] == 0xC1
    assert len(large[1]) < 100
    assert prepared.deflated(1024) is prepared.deflated(1024)
