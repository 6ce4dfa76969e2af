"""Fixtures of the store's tests: a server they may empty, and stores on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from hub.errors import BadRequest
from hub.message import encode, meta
from hub.redis.bus import Messages
from hub.settings import Settings
from hub.store.results import ReplayBatch, ReplayCursor, SessionClaim
from hub.store.store import Store
from tests.support.publishing import OnPublished
from tests.support.redis import RedisServer


@pytest.fixture(scope="package")
def server() -> Iterator[RedisServer]:
    """A server that every test of this package finds empty."""
    server = RedisServer()
    yield server
    server.stop()


class Node:
    """A store and what its bus has brought."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.heard: list[tuple[str, str]] = []
        self.events: list[str] = []
        self.store = Store(
            Settings(redis_prefix="t", **settings),
            url,
            self,
        )

    def on_bus_lost(self) -> None:
        self.events.append("lost")

    def on_bus_back(self) -> None:
        self.events.append("back")

    def on_redis_changed(self) -> None:
        self.events.append("changed")

    def on_messages(self, messages: Messages) -> None:
        self.heard += [(channel.decode(), payload.decode()) for channel, payload in messages]

    async def publish(self, room: str = "A", data: Any = 1, **options: Any) -> int:
        return (await self.publish_all([(room, data)], **options))[0]

    async def publish_all(self, messages: list[tuple[str, Any]], **options: Any) -> list[int]:
        """Publish in one turn of the loop; return the offsets."""
        sender, ttl = options.pop("skip_client", None), options.pop("ttl", 0)
        conditional = options.pop("conditional", sender is not None or ttl > 0)
        futures: list[asyncio.Future[int]] = []
        for room, data in messages:
            header, body = encode(
                "m", str(data).encode(), meta(room, None), skip_client=sender, ttl=ttl
            )
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

            def done(result: Any, _: bool, future: asyncio.Future[int] = future) -> None:
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

            self.store.publishing.publish(
                room, header, body, OnPublished(done), conditional=conditional, **options
            )
            futures.append(future)
        return list(await asyncio.gather(*futures))

    async def claim(self, connection: str, **options: Any) -> SessionClaim:
        claimed = await self.maybe(connection, **options)
        assert claimed is not None
        return claimed

    async def maybe(self, connection: str, **options: Any) -> SessionClaim | None:
        options = {"client_id": None, "pid": None, "offset": None} | options
        return await self.store.sessions.claim(connection, **options)

    async def join(self, claimed: SessionClaim, connection: str, *rooms: str) -> None:
        """Join rooms that the connection does not know to be in. Raises BadRequest."""
        for join in await self.store.sessions.subscribe(
            claimed.client_id, connection, [(room, False) for room in rooms]
        ):
            if isinstance(join, BadRequest):
                raise join

    async def all(
        self, client: str, connection: str, after: int, cursor: ReplayCursor | None = None
    ) -> tuple[list[int], list[ReplayBatch]]:
        """Replay to the end; return the offsets handed out, and the batches."""
        offsets: list[int] = []
        batches: list[ReplayBatch] = []
        while not batches or batches[-1].live_from is None:
            cursor = batches[-1].cursor if batches else cursor
            batches.append(
                await self.store.sessions.replay(client, connection, after, cursor=cursor)
            )
            offsets += [message.offset for message in batches[-1].messages]
            after = batches[-1].position
            assert len(batches) < 1000
        return offsets, batches


@pytest.fixture
async def start(server: RedisServer) -> AsyncIterator[Callable[..., Any]]:
    """Start stores: `await start(log_length=5)`."""
    server.client.flushall()
    nodes: list[Node] = []

    async def start(url: str = "", **settings: Any) -> Node:
        nodes.append(Node(url or server.url, **settings))
        await nodes[-1].store.start()
        return nodes[-1]

    yield start
    for node in nodes:
        await node.store.stop()


@pytest.fixture
async def node(start: Callable[..., Any]) -> Node:
    node: Node = await start()
    return node
