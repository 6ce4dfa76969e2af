"""The words that clients and the hub share: bounds of names, offsets, gaps."""

from __future__ import annotations

import pytest

from hub import model
from hub.errors import BadRequest
from hub.model import Gap


@pytest.mark.parametrize("room", ["a", "é" * 255, "😀" * 255, " ", "a b", "@x", "\u2028"])
def test_rooms(room):
    """1 to 255 characters of any script."""
    assert model.check_room(room) == room


@pytest.mark.parametrize(
    "room", ["", "x" * 256, "a\n", "\x00", "\x7f", "\x85", "\ud800", None, 5, b"a", ["a"]]
)
def test_no_rooms(room):
    """No control characters, not even a line feed at the end; nothing that UTF-8 cannot hold."""
    with pytest.raises(BadRequest, match="room"):
        model.check_room(room)


@pytest.mark.parametrize(
    "event", ["m", "x" * 128, "Connect", "hubs:x", "message", "a b", "**", "error"]
)
def test_events(event):
    """1 to 128 characters; reserved names are case-sensitive."""
    assert model.check_event(event) == event


@pytest.mark.parametrize(
    "event",
    [
        "",
        "x" * 129,
        "hub:",
        "hub:task",
        "*",
        "a\nb",
        "a\n",
        "\x00",
        "\x7f",
        "\x85",
        "\udfff",
        None,
        1,
        *sorted(model.RESERVED_EVENTS),
    ],
)
def test_no_events(event):
    """Stock clients break on reserved names."""
    with pytest.raises(BadRequest, match="event"):
        model.check_event(event)


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 128, "."])
def test_client_ids(name):
    """Letters, digits, dots, underscores and hyphens, at most 128."""
    assert model.check_client_id(name) == name


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "é", "a\n", "@a", "a:b", "٣", None, 7])
def test_no_client_ids(name):
    """ASCII only, and no separator that keys or pids use otherwise."""
    with pytest.raises(BadRequest, match="client_id"):
        model.check_client_id(name)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0", True), ("1764000000000000", True), ("", False), ("12345678901234567", False), ("-1", False),
     ("1\n", False), (" 1", False), ("٣", False), (5, False), (None, False)],
)  # fmt: skip
def test_offsets(value, expected):
    """A decimal string of at most 16 digits."""
    assert model.is_offset(value) is expected


def test_offsets_compare_as_numbers():
    """Length does not decide, and no offset comes before all."""
    assert model.offset_int("9") < model.offset_int("10")
    assert model.offset_int("") == model.offset_int(None) == 0


def test_gaps_contain_each_other():
    """A gap replaces one of the same room that lies within it."""
    small = Gap("r", "overflow", "9", "20")
    assert Gap("r", "expired", "9", "100").contains(small)
    assert small.contains(small)
    assert not small.contains(Gap("r", "overflow", "9", "100"))
    assert not Gap("other", "overflow", "1", "100").contains(small)
