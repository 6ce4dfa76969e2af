"""The WebSocket parser: any bytes, in any pieces."""

from __future__ import annotations

import contextlib
import os
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.engineio.core.ws_parser import FRAGMENTS, FrameParser, WebSocketError, WebSocketMessage


def masked(first: int, payload: bytes, mask: bytes = b"\x01\x02\x03\x04") -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def everything(inbound: FrameParser, *pieces: bytes) -> list[WebSocketMessage]:
    got = []
    for piece in pieces:
        inbound.feed(piece)
        while (message := inbound.next()) is not None:
            got.append(message)
    return got


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places) if a < b]


@given(
    st.lists(st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.binary())),
    st.lists(st.integers(0, 10_000)),
    st.integers(1, 50),
)
def test_messages_arrive_whatever_the_pieces(
    messages: list[str | bytes], cuts: list[int], fragment: int
) -> None:
    data = b""
    for message in messages:
        opcode = 1 if isinstance(message, str) else 2
        payload = message.encode() if isinstance(message, str) else message
        parts = [payload[at : at + fragment] for at in range(0, len(payload), fragment)] or [b""]
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            data += masked((0x80 if last else 0) | (opcode if number == 0 else 0), part)
            data += masked(0x89, b"ping")
    inbound = FrameParser(10_000)
    got = everything(inbound, *pieces_of(data, cuts))
    assert [message for message in got if not isinstance(message, tuple)] == messages
    assert inbound.waiting == 0


@given(st.binary(max_size=300), st.lists(st.integers(0, 300)), st.booleans())
def test_any_bytes_are_messages_or_an_error_and_memory_stays_bounded(
    data: bytes, cuts: list[int], deflate: bool
) -> None:
    inbound = FrameParser(100, deflate=deflate)
    with contextlib.suppress(WebSocketError):
        for message in everything(inbound, *pieces_of(data, cuts)):
            if isinstance(message, tuple):
                assert len(message[1]) <= 125
            else:
                assert len(message) <= 100
        assert inbound.waiting < 100 + 14


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x02hi", 1002),  # not masked
        (masked(0x83, b""), 1002),  # unknown opcode
        (masked(0x8B, b""), 1002),
        (masked(0xC1, b""), 1002),  # reserved bit without an extension
        (masked(0x80, b"x"), 1002),  # continuation of nothing
        (masked(0x01, b"x") + masked(0x81, b"x"), 1002),  # a message within a message
        (masked(0x09, b""), 1002),  # fragmented ping
        (masked(0x89, bytes(126)), 1002),  # long ping
        (masked(0x88, b"x"), 1002),
        (masked(0x88, b"\x03\xed"), 1002),  # 1005 is never sent
        (masked(0x88, b"\x03\xe8\xff"), 1007),
        (masked(0x81, b"\xff"), 1007),
        (masked(0x81, b"\xed\xa0\x80"), 1007),
        (masked(0x82, bytes(1001)), 1009),
        (b"\x82\xff" + b"\xff" * 8, 1009),  # told before any of it has come
        (masked(0x02, bytes(600)) + masked(0x80, bytes(600)), 1009),
    ],
)
def test_what_breaks_the_protocol_is_told(data: bytes, code: int) -> None:
    with pytest.raises(WebSocketError) as raised:
        everything(FrameParser(1000), data)
    assert raised.value.code == code


def test_a_message_of_exactly_the_limit_is_taken() -> None:
    assert everything(FrameParser(1000), masked(0x82, bytes(1000))) == [bytes(1000)]


def test_compressed_messages() -> None:
    def deflated(payload: bytes) -> bytes:
        deflate = zlib.compressobj(wbits=-15)
        return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]

    inbound = FrameParser(1000, deflate=True)
    data = masked(0xC1, deflated(b"hello")) + masked(0x81, b"plain")
    assert everything(inbound, data) == ["hello", "plain"]
    for payload, code in ((deflated(bytes(1001)), 1009), (os.urandom(50), 1007)):
        with pytest.raises(WebSocketError) as raised:
            everything(FrameParser(1000, deflate=True), masked(0xC2, payload))
        assert raised.value.code == code


def test_a_message_of_too_many_fragments_is_refused() -> None:
    """Empty ones are legal, and work."""
    parts = [masked(0x01, b"a"), *[masked(0x00, b"")] * (FRAGMENTS - 2)]
    assert everything(FrameParser(100), *parts, masked(0x80, b"")) == ["a"]
    with pytest.raises(WebSocketError, match="fragments") as refused:
        everything(FrameParser(100), *parts, *[masked(0x00, b"")] * 2)
    assert refused.value.code == 1009
