"""Servers on free ports, and a client that speaks Engine.IO by hand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from hub.engineio.core.connection import Connection
from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.core.state import CloseCode
from hub.engineio.options import EngineOptions
from hub.engineio.server import EngineServer
from hub.socketio.server import SocketIOServer
from tests.conformance import engineio_server, socketio_server
from tests.support.socketio_wire import OPEN, decode
from tests.support.times import MS, UNIT

# The product answers or closes within a second: a promise in seconds, and not a multiple of the unit.
SOON = 1.0


async def until(condition: Callable[[], bool], within: float = SOON) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(5 * MS)


class Peer:
    """A client of one server, by hand. `runner`: where it runs in this process; `engine`: the server's own."""

    engine: EngineServer

    def __init__(
        self, port: int, path: str, http: aiohttp.ClientSession, runner: web.AppRunner | None = None
    ) -> None:
        self.runner = runner
        self.port = port
        self.path = path
        self.http = http

    @property
    def handled(self) -> int:
        """How many requests aiohttp has handled."""
        assert self.runner is not None
        assert self.runner.server is not None
        return self.runner.server.requests_count

    def url(self, transport: str = "polling", sid: str = "", **more: str) -> str:
        query = "&".join(f"{key}={value}" for key, value in more.items())
        return (
            f"http://127.0.0.1:{self.port}/{self.path}/?EIO=4&transport={transport}"
            f"{'&sid=' + sid if sid else ''}{'&' + query if query else ''}"
        )

    async def open(self) -> str:
        """Open a polling session; return its sid."""
        status, body = await self.poll("")
        assert status == 200
        opened = decode(body)
        assert opened.type == OPEN
        sid = opened.data["sid"]
        assert isinstance(sid, str)
        return sid

    async def poll(self, sid: str) -> tuple[int, str]:
        async with self.http.get(self.url("polling", sid)) as answer:
            return answer.status, await answer.text()

    async def waiting_poll(self, sid: str) -> asyncio.Task[tuple[int, str]]:
        """Send a poll, and return it when the server holds it because there is nothing to answer."""
        poll = asyncio.create_task(self.poll(sid))
        await self.holds_poll(sid)
        return poll

    async def holds_poll(self, sid: str) -> None:
        """Wait until the server holds a poll of a session."""
        connection = self.engine.connections[sid]
        await until(lambda: connection._waiting_poll is not None)

    async def post(self, sid: str, body: str | bytes | Any) -> tuple[int, str]:
        async with self.http.post(self.url("polling", sid), data=body) as answer:
            return answer.status, await answer.text()

    @contextlib.asynccontextmanager
    async def websocket(
        self, sid: str = "", *, hello: bool = True
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a WebSocket; `hello`: and take its handshake packet."""
        async with self.http.ws_connect(self.url("websocket", sid), max_msg_size=0) as socket:
            if hello and not sid:
                assert (await text(socket))[0] == "0"
            yield socket

    @contextlib.asynccontextmanager
    async def connected(
        self, namespace: str = ""
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a WebSocket and connect to a Socket.IO namespace."""
        async with self.websocket() as socket:
            await connect(socket, namespace)
            yield socket

    @contextlib.asynccontextmanager
    async def upgraded(self, sid: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Go over to a WebSocket with a polling session."""
        async with self.websocket(sid) as socket:
            await socket.send_str("2probe")
            assert await text(socket) == "3probe"
            await socket.send_str("5")
            yield socket

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a TCP connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def raw_websocket(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a WebSocket whose frames are written by hand, its handshake packet taken."""
        reader, writer = await self.raw()
        writer.write(upgrade_request(self.path))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        first, size = await reader.readexactly(2)
        assert (first, size) < (0x81, 126)
        await reader.readexactly(size)
        return reader, writer


def upgrade_request(path: str, sid: str = "") -> bytes:
    """Return the bytes of a WebSocket handshake."""
    return (
        f"GET /{path}/?EIO=4&transport=websocket{'&sid=' + sid if sid else ''} HTTP/1.1\r\n"
        "Host: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


async def text(socket: aiohttp.ClientWebSocketResponse) -> str:
    """Return the next text message."""
    return await socket.receive_str(timeout=SOON)


async def connect(socket: aiohttp.ClientWebSocketResponse, namespace: str = "") -> str:
    """Connect to a namespace and take the reply and the `auth` event; return the sid."""
    await socket.send_str(f"40{namespace}")
    reply = await text(socket)
    assert reply.startswith("40" + (f"{namespace}," if namespace else ""))
    assert '["auth",' in await text(socket)
    return str(decode(reply).data["sid"])


def disconnect_replaced(connection: Connection) -> None:
    """Disconnect a client for good, as a session does whose connection was replaced."""
    connection.send(PreparedMessage("1"))
    connection.close(CloseCode.DONE)


async def closed(socket: aiohttp.ClientWebSocketResponse, within: float = SOON) -> int | None:
    """Wait until the server has closed; return its close code."""
    async with asyncio.timeout(within):
        while (await socket.receive()).type not in (
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.ERROR,
        ):
            pass
    return socket.close_code


@contextlib.asynccontextmanager
async def serving(
    app: web.Application, path: str, *, keepalive_timeout: float = 75.0
) -> AsyncIterator[Peer]:
    """Serve an application on a free port."""
    # Lingering is for paths that are not the engine's; see docs/engine.md.
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=UNIT,
        lingering_time=500 * MS,
        keepalive_timeout=keepalive_timeout,
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=10 * UNIT)
    ) as http:
        try:
            yield Peer(int(runner.addresses[0][1]), path, http, runner)
        finally:
            await runner.cleanup()


Serve = Callable[..., Awaitable[Any]]


@pytest.fixture
async def engine_of() -> AsyncIterator[Callable[..., Awaitable[tuple[Peer, EngineServer]]]]:
    """Start echo servers with given options."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**given: Any) -> tuple[Peer, EngineServer]:
            app, engine = engineio_server.application(
                EngineOptions(
                    **{"connect_timeout": 0, "close_timeout": UNIT, "cors": ("*",)} | given
                )
            )
            peer = await stack.enter_async_context(serving(app, "engine.io"))
            peer.engine = engine
            return peer, engine

        yield start


@pytest.fixture
async def server_of() -> AsyncIterator[Callable[..., Awaitable[tuple[Peer, SocketIOServer]]]]:
    """Start Socket.IO servers with given options."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**given: Any) -> tuple[Peer, SocketIOServer]:
            app, server = socketio_server.application(
                EngineOptions(**{"close_timeout": UNIT, "cors": ("*",)} | given)
            )
            peer = await stack.enter_async_context(serving(app, "socket.io"))
            peer.engine = server.eio
            return peer, server

        yield start


@pytest.fixture
async def peer(engine_of: Serve) -> Peer:
    """A client of an echo server with default heartbeats."""
    return (await engine_of())[0]


@pytest.fixture
async def quick(engine_of: Serve) -> Peer:
    """A client of an echo server with the official suites' heartbeats."""
    return (await engine_of(ping_interval=300 * MS, ping_timeout=200 * MS))[0]


@pytest.fixture
async def sio_peer(server_of: Serve) -> Peer:
    """A client of a Socket.IO server with default heartbeats."""
    return (await server_of(connect_timeout=300 * MS))[0]


@pytest.fixture(autouse=True)
def quiet_log(caplog: pytest.LogCaptureFixture) -> Any:
    """Nothing that a client sends may put more into the log than a line at debug, or the bounded lines about refusals."""
    caplog.set_level(logging.DEBUG)
    yield
    loud = [
        record
        for when in ("setup", "call")
        for record in caplog.get_records(when)
        if record.levelno > logging.DEBUG
        and record.name.split(".")[0] in ("hub", "aiohttp", "asyncio")
        and Path(record.pathname).name != "refusals.py"
    ]
    assert not loud, [record.getMessage() for record in loud]
