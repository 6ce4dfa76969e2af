"""Socket.IO packets, strictly decoded; the client manager; which messages the fast lane sees."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hub.engineio.core.packet import ProtocolError
from hub.socketio.manager import Manager
from hub.socketio.packet import Packet, parse_json, plain_event
from hub.socketio.server import SocketIOServer

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
PIECES = st.sampled_from(
    ["0", "2", "3", "5", "51-", "52-", "6", "/", "/a", ",", "?x", "1", "12", "[", "]", "{", "}", '"e"',
     '{"_placeholder":true,"num":0}', "NaN", "1e999", "null", "-", "\\ud800", "４", " "]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(PIECES, max_size=8).map("".join)))
@example("")
@example("2" + "[" * 100_000)
@example("2" + '{"a":' * 5000)
def test_any_text_is_a_packet_or_a_protocol_error(text: str) -> None:
    with contextlib.suppress(ProtocolError):
        packet = Packet(encoded_packet=text or "?")
        assert 0 <= packet.attachment_count <= 100
        assert packet.packet_type != 4
        if packet.fault:
            return
        assert packet.attachment_count <= 10
        if packet.packet_type in (2, 5):
            assert isinstance(packet.data, list)
            assert isinstance(packet.data[0], str)
        if packet.packet_type in (3, 6):
            assert isinstance(packet.data, list)
            assert packet.id is not None


@given(
    st.text(min_size=1).filter(lambda name: not name.startswith("__")),
    st.lists(VALUES, max_size=3),
    st.sampled_from([None, "/custom"]),
    st.none() | st.integers(0, 10**15 - 1),
)
def test_what_python_socketio_encodes_is_decoded(
    name: str, arguments: list[Any], namespace: str | None, number: int | None
) -> None:
    with contextlib.suppress(ProtocolError):  # a reserved name
        sent = Packet(2, data=[name, *arguments], namespace=namespace, id=number)
        got = Packet(encoded_packet=sent.encode())
        assert (got.packet_type, got.namespace, got.id) == (2, namespace, number)
        assert got.data == [name, *arguments]


@given(VALUES)
def test_json_is_parsed_as_the_standard_library_does(value: Any) -> None:
    assert parse_json(json.dumps(value), 100) == value


@pytest.mark.parametrize(
    "text",
    ["NaN", "[Infinity]", "-Infinity", "1e999", "[-1e999]", "[1,]", "{1:2}", "'a'", "", "[1]]",
     '"\\ud800" NaN', '["\\u0041",NaN]', '["\\u0041",1e999]', '["\\ud800",-Infinity]', "\ud800",
     "[" * 101 + "]" * 101, "[" * 2000 + "]" * 2000],
)  # fmt: skip
def test_json_that_others_would_choke_on_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_json(text, 100)


def test_json_as_deep_as_allowed_and_lone_surrogates_are_taken() -> None:
    parse_json("[" * 100 + "]" * 100, 100)
    assert parse_json('["\\ud800"]', 100) == ["\ud800"]
    assert len(parse_json("[" + "[]," * 99_999 + "[]]", 100)) == 100_000


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ('2["e"]', True),
        ('20["e"]', True),
        ('2123456789012345["e"]', True),
        ('2/,["e"]', True),
        ('2/,17["e"]', True),
        ('217 \n["e"]', True),
        ('2/, 17["e"]', False),
        ('2/?a,["e"]', False),
        ('2１["e"]', False),
        ('2/a,["e"]', False),
        ('2-1["e"]', False),
        ('51-["e"]', False),
        ("2", False),
        ("2{}", False),
        ("0", False),
        ('31["e"]', False),
        ("", False),
    ],
)
def test_the_fast_lane_sees_plain_events_only(text: str, plain: bool) -> None:
    assert (plain_event(text) is not None) is plain


class TestManager:
    @pytest.fixture
    async def manager(self) -> Manager:
        manager: Manager = SocketIOServer().manager
        return manager

    async def join(self, manager: Manager, eio_sid: str) -> str:
        sid = await manager.pre_connect(eio_sid, "/")
        assert manager.is_pre_connected(sid, "/")
        assert not manager.is_connected(sid, "/")
        return await manager.connect(sid, "/")

    async def test_rooms(self, manager: Manager) -> None:
        a, b = await self.join(manager, "A"), await self.join(manager, "B")
        assert manager.is_connected(a, "/")
        assert manager.get_rooms(a, "/") == [a]
        await manager.enter_room(a, "/", "x")
        await manager.enter_room(b, "/", "x")
        await manager.enter_room(a, "/", "y")
        assert set(manager.get_rooms(a, "/")) == {a, "x", "y"}
        assert dict(manager.get_participants("/", "x")) == {a: "A", b: "B"}
        assert dict(manager.get_participants("/", a)) == {a: "A"}
        assert dict(manager.get_participants("/", ["y", b])) == {a: "A", b: "B"}
        assert dict(manager.get_participants("/", None)) == {a: "A", b: "B"}
        with pytest.raises(ValueError, match="sid room"):
            await manager.enter_room(a, "/", b)
        await manager.leave_room(a, "/", "y")
        await manager.close_room("x", "/")
        assert manager.get_rooms(a, "/") == [a]
        assert manager._entered == {}

    async def test_nothing_stays_of_a_client_that_left(self, manager: Manager) -> None:
        sid = await self.join(manager, "A")
        await manager.enter_room(sid, "/", "x")
        manager._generate_ack_id(sid, print)
        assert manager.pre_disconnect(sid, "/") == "A"
        assert not manager.is_connected(sid, "/")
        await manager.disconnect(sid, "/")
        await manager.disconnect(sid, "/")
        assert (manager.rooms, manager._entered, manager.callbacks) == ({}, {}, {})
        assert not manager._pending
        assert manager.get_rooms(sid, "/") == []

    async def test_leaving_does_not_cost_what_others_entered(self, manager: Manager) -> None:
        sids = [await self.join(manager, f"E{number}") for number in range(20_000)]
        begin = time.process_time()
        for sid in sids:
            await manager.disconnect(sid, "/")
        assert time.process_time() - begin < 2
        assert manager.rooms == {}


async def test_unknown_options_are_told() -> None:
    with pytest.raises(TypeError, match="unknown engine options: ping_intervall"):
        SocketIOServer(ping_intervall=3)
