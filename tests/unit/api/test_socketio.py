"""Events that are refused: answered, or counted where nobody waits for an answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hub.api.limits import ConnectionLimits, SharedLoad
from hub.api.pipeline import VerbPipeline
from hub.api.socketio import SocketIOGateway
from hub.errors import TooLarge
from hub.settings import Settings
from hub.socketio.server import SocketIOServer
from tests.unit.api.test_pipeline import Node, Peer

SETTINGS = Settings(max_message=1024)


@pytest.fixture
async def server() -> SocketIOServer:
    return SocketIOServer()


@pytest.fixture
async def gateway(server: SocketIOServer) -> SocketIOGateway:
    node: Any = SimpleNamespace(settings=SETTINGS)
    return SocketIOGateway(node, server)


@pytest.fixture
async def connection(gateway: SocketIOGateway) -> Any:
    peer: Any = Peer()
    node: Any = Node()
    limits = ConnectionLimits(SETTINGS, peer, gateway._loop, SharedLoad(32))
    peer.data = {"pipeline": VerbPipeline(node, peer, SimpleNamespace(client_id="c"), limits)}  # type: ignore[arg-type]
    return peer


REFUSED = [
    ('["publish",{"room":"r","event":"m","data":NaN}]', "bad_request"),
    ('["publish",{"room":"r","event":"*","data":1}]', "bad_request"),
    ('["publish",{"room":"r","event":"m","data":"%s"}]' % ("x" * 1024), "too_large"),
    ('["publish",{"room":"r","event":"m","data":"%s"}]' % ("€" * 340), "too_large"),
    ('["connect",{}]', "not_found"),
    ("[5]", "not_found"),
]


@pytest.mark.parametrize(("text", "code"), REFUSED)
async def test_it_is_answered(gateway, server, connection, text, code):
    assert gateway.on_event(connection, "7", text)
    [frame] = connection.written
    assert frame.packets[0].startswith(f'37[{{"ok":false,"error":{{"code":"{code}"')
    assert not server.counters


@pytest.mark.parametrize(("text", "code"), REFUSED)
async def test_without_an_acknowledgement_it_is_counted(gateway, server, connection, text, code):
    assert gateway.on_event(connection, "", text)
    gateway.on_refused(connection, "", TooLarge("data: more than 1024 bytes"))
    assert not connection.written
    expected = {f"{code} without an acknowledgement": 1}
    expected["too_large without an acknowledgement"] = 1 + (code == "too_large")
    assert server.counters == expected


async def test_the_length_is_that_of_the_bytes_and_exact(gateway, connection):
    """Attachments count too, and so does each byte of a character."""
    empty = '["history",{"room":"%s"}]'
    room = 1024 - len(empty % "")
    for text, attachments in (
        (empty % ("x" * (room + 1)), []),
        (empty % ("€" * (room // 3) + "x" * (room % 3 + 1)), []),
        (empty % "", [b"x" * room, b"x"]),
    ):
        connection.written.clear()
        assert gateway.on_event(connection, "7", text, attachments)
        assert "1025 bytes: a message may have 1024" in connection.written[0].packets[0]
    for text, attachments in (
        (empty % ("x" * room), []),
        (empty % ("€" * (room // 3) + "x" * (room % 3)), []),
        (empty % "", [b"x" * room]),
    ):
        connection.written.clear()
        assert gateway.on_event(connection, "7", text, attachments)
        assert '"bad_request"' in connection.written[0].packets[0]


async def test_what_is_no_event_is_left_to_the_server(gateway, connection):
    """The server closes the connection."""
    assert not gateway.on_event(connection, "7", '["publish",{]')
