"""Fixtures of the tests that drive a real hub: hubs, clients, and a look at the logs afterwards."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from hub.client import HubClient
from tests.support.hubs import Hub
from tests.support.js import JSClient
from tests.support.proxy import Proxy
from tests.support.raw import Raw
from tests.support.redis import RedisServer
from tests.support.stock import Stock
from tests.support.times import eventually

_running: list[Hub] = []
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def start_hub(redis_server: RedisServer) -> Iterator[Callable[..., Hub]]:
    """Start hubs for the tests of one module; under one prefix unless told otherwise."""
    started: list[Hub] = []
    prefix = f"t{uuid.uuid4().hex[:8]}"

    def start(**settings: Any) -> Hub:
        url = settings.pop("redis_url", redis_server.url)
        hub = Hub(url, settings.pop("prefix", prefix), **settings)
        started.append(hub)
        _running.append(hub)
        return hub.start()

    yield start
    for hub in started:
        hub.close()
        _running.remove(hub)


@pytest.fixture(scope="module")
def hub(start_hub: Callable[..., Hub]) -> Hub:
    """One hub with the default settings for the tests of one module."""
    return start_hub()


@pytest.fixture
async def own_hub(start_hub: Callable[..., Hub]) -> AsyncIterator[Callable[..., Any]]:
    """Start hubs for one test: `await own_hub(**settings)`. They are drained after it."""
    started: list[Hub] = []

    async def start(**settings: Any) -> Hub:
        started.append(await asyncio.to_thread(start_hub, **settings))
        return started[-1]

    yield start
    for hub in started:
        # Clients are still there, and must be able to say goodbye: not in their loop.
        assert await asyncio.to_thread(hub.terminate) == 0


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    """Whatever a test does, no hub writes a traceback or a secret into its log."""
    yield
    for hub in _running:
        hub.check()


@pytest.fixture
def room() -> str:
    """Return a room that no other test uses."""
    return f"room-{next(_numbers)}-{uuid.uuid4().hex[:6]}"


@pytest.fixture
def name() -> str:
    """Return a client_id that no other test uses."""
    return f"client-{next(_numbers)}-{uuid.uuid4().hex[:6]}"


@pytest.fixture
async def js() -> AsyncIterator[Callable[..., Any]]:
    """Connect stock JavaScript clients, closed after the test: `await js(url, **options)`."""
    clients: list[JSClient] = []

    async def connect(url: str, **options: Any) -> JSClient:
        clients.append(JSClient())
        return await clients[-1].connect(url, **options)

    yield connect
    for client in clients:
        await client.close()


@pytest.fixture
async def raw() -> AsyncIterator[Callable[..., Any]]:
    """Open bare sessions, cut after the test; `auth=False` leaves out the CONNECT."""
    sessions: list[Raw] = []

    async def connect(
        url: str, transport: str = "websocket", auth: dict[str, Any] | bool | None = None,
        *, pong: bool = True,
    ) -> Raw:  # fmt: skip
        sessions.append(Raw(url, transport, pong=pong))
        session = await sessions[-1].open()
        if not isinstance(auth, bool):
            await session.connect(auth)
        return session

    yield connect
    for session in sessions:
        await session.drop()


@pytest.fixture
async def client() -> AsyncIterator[Callable[..., Any]]:
    """Connect HubClients, closed after the test: `await client(url, **options)`."""
    clients: list[HubClient] = []

    async def connect(url: str, **options: Any) -> HubClient:
        clients.append(HubClient(url, **options))
        return await clients[-1].connect()

    yield connect
    for each in clients:
        await each.close()


@pytest.fixture
async def parked(redis_server: RedisServer) -> Callable[..., Any]:
    """Wait until the hub has noticed that a client is gone: `await parked(hub, client)`."""

    async def wait(hub: Hub, client: Raw) -> None:
        key = f"{hub.prefix}:{{0}}:session:{client.named('hub:session')[0][0]['client_id']}"
        await eventually(lambda: redis_server.client.hget(key, "away") == "1")

    return wait


@pytest.fixture
async def stock() -> AsyncIterator[Callable[..., Any]]:
    """Connect stock Python clients: `await stock(url, *transports, **auth)`."""
    clients: list[Stock] = []

    async def connect(url: str, *transports: str, silence: float = 45.0, **auth: Any) -> Stock:
        clients.append(Stock(silence))
        return await clients[-1].connect(url, *transports, **auth)

    yield connect
    for each in clients:
        await each.sio.shutdown()


@pytest.fixture
async def proxy(hub: Hub) -> AsyncIterator[Proxy]:
    """A proxy before the module's hub."""
    async with Proxy(hub.port) as between:
        yield between
