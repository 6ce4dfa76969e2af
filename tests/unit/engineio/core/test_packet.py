"""Engine.IO packets and payloads: strict in, exact out."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hub.engineio.core.packet import (
    ProtocolError,
    decode_payload,
    decode_text,
    encode_binary,
    encode_payload,
)
from hub.engineio.core.poll_queue import PollQueue
from hub.engineio.core.prepared import PreparedMessage

messages = st.one_of(
    st.text(st.characters(exclude_characters="\x1e", exclude_categories=["Cs"])), st.binary()
)


@given(st.binary())
@example(b"")
@example(b"\x1e")
@example(b"4\xff")
@example("４".encode())
def test_any_body_is_packets_or_a_protocol_error(body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        packets = decode_payload(body, 10)
        assert 0 < len(packets) <= 10
        for packet in packets:
            assert isinstance(packet, bytes) or packet[0] in "0123456"


@given(st.lists(messages, min_size=1, max_size=40))
def test_what_goes_out_comes_back(sent: list[str | bytes]) -> None:
    queue = PollQueue()
    messages = [PreparedMessage(message) for message in sent]
    queue.push(messages, sum(len(each) for each in messages))
    got: list[str | bytes] = []
    while queue:
        body = encode_payload(queue.take_payload(16, 1_000_000)).encode()
        packets = decode_payload(body, 16)
        got += [packet[1:] if isinstance(packet, str) else packet for packet in packets]
    assert got == sent
    assert queue.size == 0


@pytest.mark.parametrize("packet", ["", "7", "x", "b=", "bA", "b A==", "bAQID\n"])
def test_no_packet_is_refused(packet: str) -> None:
    with pytest.raises(ProtocolError):
        decode_text(packet)


def test_binary_is_base64_with_a_b() -> None:
    assert encode_binary(b"\x01\x02\x03\x04") == "bAQIDBA=="
    assert decode_text("bAQIDBA==") == b"\x01\x02\x03\x04"
