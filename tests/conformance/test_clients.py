"""The stock clients, unmodified, on both transports."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import socketio

from hub.engineio.core.connection import Connection
from hub.engineio.core.state import CloseCode
from hub.socketio.server import SocketIOServer
from tests.conformance.conftest import Serve, disconnect_replaced, until
from tests.conformance.gateway import PlainGateway, connection_of
from tests.support.times import MS, UNIT
from tests.support.tools import node, node_modules

SCRIPT = Path(__file__).with_name("stock.cjs")
TRANSPORTS = (["polling"], ["websocket"], ["polling", "websocket"])


def with_goodbyes(server: SocketIOServer) -> None:
    """Let clients choose how the server disconnects them."""

    @server.on("bye")
    async def bye(sid: str) -> None:
        connection = connection_of(server, sid)
        assert connection is not None
        connection.close(CloseCode.RESTART)

    @server.on("replaced")
    async def replaced(sid: str) -> None:
        connection = connection_of(server, sid)
        assert connection is not None
        disconnect_replaced(connection)


class TestJavaScript:
    async def play(self, server_of: Serve, scenario: str) -> tuple[Any, SocketIOServer]:
        """Return what a scenario found."""
        peer, server = await server_of()
        with_goodbyes(server)
        tries: set[str] = set()

        class Swallowing(PlainGateway):
            """Takes each event the first time it comes, and answers nothing."""

            def on_event(self, connection: Connection, ack: str, text: str, *rest: Any) -> bool:
                first = '"flaky"' in text and text not in tries
                tries.add(text)
                return first

        if scenario == "retries":
            Swallowing(server)
            server.on("flaky", lambda sid, number: number)
        process = await asyncio.create_subprocess_exec(
            node(), str(SCRIPT), str(node_modules()), f"http://127.0.0.1:{peer.port}", scenario,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(10 * UNIT):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await until(lambda: not server.eio.connections)
        assert not server._clients
        return json.loads(output), server

    @pytest.mark.parametrize(
        ("scenario", "expected"),
        [
            ("upgrade", {"before": "polling", "after": "websocket", "ordered": True}),
            ("rememberUpgrade", {"first": "websocket"}),
            ("binary", {"polling": True, "websocket": True}),
            ("retries", {"answers": [0, 1, 2]}),
            ("volatile", {"back": ["connected"]}),
            (
                "offline",
                {
                    "polling": ["transport close", "again"],
                    "websocket": ["transport close", "again"],
                },
            ),
            (
                "goodbye",
                {
                    "polling": ["io server disconnect", False],
                    "websocket": ["io server disconnect", False],
                },
            ),
        ],
    )
    async def test_behaviour(self, server_of: Serve, scenario: str, expected: Any) -> None:
        found, _ = await self.play(server_of, scenario)
        assert found == expected

    async def test_all_transports_are_tried(
        self, server_of: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "hub.engineio.transports.websocket_handshake.check_handshake", lambda request: None
        )
        found, _ = await self.play(server_of, "tryAllTransports")
        assert found == {"transport": "polling"}


class TestPython:
    @pytest.mark.parametrize("transports", TRANSPORTS)
    async def test_asynchronous(self, server_of: Serve, transports: list[str]) -> None:
        peer, server = await server_of()
        with_goodbyes(server)
        client = socketio.AsyncClient(
            reconnection_delay=10 * MS, reconnection_delay_max=50 * MS, randomization_factor=0
        )
        got: list[Any] = []
        connects: list[int] = []
        client.on("message-back", lambda *arguments: got.append(arguments))
        client.on("connect", lambda: connects.append(1))
        await client.connect(
            f"http://127.0.0.1:{peer.port}", transports=transports, auth={"token": "t"}
        )
        try:
            assert client.transport() == transports[-1]
            assert await client.call("message-with-ack", ("a", b"b", {"c": [b"d"]})) == (
                "a",
                b"b",
                {"c": [b"d"]},
            )
            # More than stock clients take in one polling answer.
            for number in range(200):
                await client.emit("message", number)
            await until(lambda: len(got) == 200, 5 * UNIT)
            assert got == [(number,) for number in range(200)]
            await client.emit("bye")
            await until(lambda: len(connects) == 2, 5 * UNIT)
            await client.emit("replaced")
            await until(lambda: not client.connected)
        finally:
            await client.disconnect()
        await until(lambda: not server.eio.connections)
        assert len(connects) == 2

    @pytest.mark.parametrize("transports", TRANSPORTS)
    async def test_synchronous(self, server_of: Serve, transports: list[str]) -> None:
        peer, server = await server_of()

        def run() -> tuple[Any, str]:
            client = socketio.Client(reconnection=False)
            client.connect(f"http://127.0.0.1:{peer.port}", transports=transports)
            try:
                return client.call("message-with-ack", ("a", b"b")), client.transport()
            finally:
                client.disconnect()

        assert await asyncio.to_thread(run) == (("a", b"b"), transports[-1])
        await until(lambda: not server.eio.connections, 2 * UNIT)
