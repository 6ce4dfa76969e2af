"""A message's stored form, and every form that is cut out of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.message import StoredMessage, encode, event_frame, meta

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def stored(
    event: str, value: Any, room: str = "r", sender: str | None = None, **more: Any
) -> StoredMessage:
    header, body = encode(event, msgspec.json.encode(value), meta(room, sender), **more)
    return StoredMessage.from_bus(room, b"7 3 " + header + b"\n" + body)


@given(
    event=names,
    value=json_values,
    room=names,
    sender=st.none() | st.from_regex(r"[A-Za-z0-9._-]{1,9}\Z"),
)
def test_every_form_holds_the_same(event: str, value: Any, room: str, sender: str | None) -> None:
    """As an event with its offset, as data alone, as history tells it: whatever JSON the data is."""
    message = stored(event, value, room, sender)
    told = {"room": room} | ({"from": sender} if sender else {})
    assert (message.offset, message.n, message.skip_client, message.attachments) == (7, 3, None, [])
    assert json.loads(message.frame.packets[0][1:]) == [event, value, told, "7"]
    assert json.loads(message.data_only_frame.packets[0][1:]) == [event, value]
    entry, attachments = message.history()
    assert json.loads(msgspec.json.encode(entry)) == {
        "event": event,
        "data": value,
        "meta": told,
        "offset": "7",
    }
    assert attachments == []
    assert message.frame is message.frame, "encoded once"


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=10))
def test_attachments_follow_the_text(parts: list[bytes]) -> None:
    """Of any length, nought included, and whatever bytes they are: line feeds as well."""
    data = [{"_placeholder": True, "num": i} for i in range(len(parts))]
    message = stored("e", data, attachments=parts)
    assert message.attachments == parts
    text, *binary = message.frame.packets
    assert binary == parts
    assert text.startswith(f"5{len(parts)}-[")
    assert json.loads(text.partition("-")[2]) == ["e", data, {"room": "r"}, "7"]
    assert json.loads(message.data_only_frame.packets[0].partition("-")[2]) == ["e", data]
    assert message.history()[1] == parts


@pytest.mark.parametrize("body", ["\n", "7 3\n", "é\r\n\0", '"', "\\"])
def test_line_feeds_in_the_data_do_not_end_the_header(body: str) -> None:
    """Only the first one does, and JSON has none raw: attachments may."""
    message = stored("e", body, attachments=[b"\n\n", b"\n"])
    assert json.loads(message.frame.packets[0].partition("-")[2])[1] == body
    assert message.attachments == [b"\n\n", b"\n"]


def test_the_header_says_for_whom_and_how_long() -> None:
    """The client to skip, and a time in microseconds."""
    header, _ = encode("e", b"1", b"{}", ttl=1e-9)
    assert header.split()[4] == b"1"
    header, _ = encode("e", b"1", b"{}", skip_client="ada", ttl=1.5)
    assert header == b"3 5 8 ada 1500000 *"
    message = stored("e", 1, skip_client="ada")
    assert message.skip_client == "ada"


def test_events_of_the_hub() -> None:
    """They end with a position, except for clients that want data alone."""
    assert event_frame("hub:x", {"a": 1}, 5).packets == ('2["hub:x",{"a":1},"5"]',)
    assert event_frame("hub:x", {"a": 1}, None).packets == ('2["hub:x",{"a":1}]',)
