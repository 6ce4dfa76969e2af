"""Three hub processes on one Redis, with a breakable network on both sides of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

import aiohttp

from tests.chaos.history import Forgotten, History
from tests.support.hubs import MAIN, Hub
from tests.support.ports import free_port
from tests.support.proxy import Proxy, _Pair, _reset
from tests.support.redis import RedisServer
from tests.support.times import MS, UNIT, eventually, eventually_true

PREFIX = "chaos"
# Short times and small bounds, so that each of them is met within a minute.
SETTINGS: dict[str, Any] = {
    "lease": 3 * UNIT,
    "bus_silence": 2 * UNIT,
    "redis_timeout": 3 * UNIT,
    "ping_interval": 2 * UNIT,
    "ping_timeout": 2 * UNIT,
    "log_length": 100,
    "inbox_length": 40,
    "replay_count": 50,
    "buffer_high": 16384,
    "buffer_low": 4096,
    "drain": 300 * MS,
}
# What a Redis must be told to lose nothing that it acknowledged; a replica is given its copy at once.
LASTING = ("--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0")
# Seconds within which hubs are ready after the last fault was healed: the longest pause between two attempts to
# reach Redis is 2 s.
READY = 10 * UNIT


class RedisWire(Proxy):
    """A hub's way to Redis, whose connections, `bus` and `commands`, can be told apart.

    `tried`: when each was asked for. `late`: seconds by which what goes one way on one of the two is late.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.tried: list[float] = []
        self.late: dict[tuple[str, str], float] = {}
        self._kinds: weakref.WeakKeyDictionary[_Pair, str] = weakref.WeakKeyDictionary()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tried.append(time.monotonic())
        await super()._accept(reader, writer)

    def swallow(self, ports: set[int]) -> int:
        """Black-hole the connections that Redis sees come from these ports; close nothing."""
        self.strikes["swallow"] += 1
        pairs = {pair for pair in self._pairs if _far_port(pair) in ports}
        self._pairs -= pairs
        self._lost |= pairs
        return len(pairs)

    def cut_one(self, kind: str) -> None:
        """Reset the hub's `bus`, or its `commands`."""
        self.strikes[f"cut {kind}"] += 1
        for pair in [pair for pair in self._pairs if self._kinds.get(pair) == kind]:
            self._pairs.discard(pair)
            for writer in pair.writers:
                _reset(writer)

    def _late(self, pair: _Pair, way: str, data: bytes) -> float:
        if way == "up" and pair not in self._kinds:  # scripts are loaded before anything else
            self._kinds[pair] = "commands" if b"SCRIPT" in data else "bus"
        return self.delay + self.late.get((self._kinds.get(pair, ""), way), 0.0)

    @property
    def redis_url(self) -> str:
        return self.url.replace("http:", "redis:")


class FrontDoor(Proxy):
    """The way of a group of clients to one hub at a time."""


def _far_port(pair: _Pair) -> int:
    name = pair.writers[1].get_extra_info("sockname")
    return int(name[1]) if name else 0


class Gate:
    """Lets everybody pass, or nobody."""

    def __init__(self) -> None:
        self._inside = 0
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()

    @contextlib.asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Go through as soon as the gate is open."""
        await self._open.wait()
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @contextlib.asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Let those who are inside come out, and nobody in."""
        self._open.clear()
        try:
            await self._empty.wait()
            yield
        finally:
            self._open.set()


class Cluster:
    """The hubs, their Redis, and the proxies. `history` learns when Redis was away, and what it has forgotten."""

    def __init__(
        self, hubs: int = 3, doors: int = 6, *, main: Sequence[str] = MAIN, **settings: Any
    ) -> None:
        self.history = History()
        self._size, self._doors = hubs, doors
        self._settings = SETTINGS | settings
        self._main = main
        # The primary, and where it listens.
        self.redis: RedisServer
        self.redis_port = 0
        self.wires: list[RedisWire] = []
        self.hubs: list[Hub] = []
        self.doors: list[FrontDoor] = []
        # Hubs that a fault has taken away for now.
        self.down: set[int] = set()
        # Whoever joins, leaves or begins a session passes it.
        self.gate = Gate()
        # Faults of the way to Redis pass it. A hub that could not start because of them closes it, and tries again.
        self.way = Gate()
        # Clients that can be told to stop reading.
        self.readers: list[Any] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.redis_port = free_port()
        self.redis = await self._start_redis(self.redis_port)
        self._stack.push_async_callback(lambda: asyncio.to_thread(self.redis.stop))
        for _ in range(self._size):
            wire = await self._stack.enter_async_context(RedisWire(self.redis_port))
            self.wires.append(wire)
            hub = Hub(wire.redis_url, PREFIX, main=self._main, **self._settings)
            hub.port = free_port()
            self.hubs.append(hub)
            self._stack.push_async_callback(asyncio.to_thread, hub.close)
        await asyncio.gather(*(asyncio.to_thread(hub.start) for hub in self.hubs))
        for number in range(self._doors):
            door = FrontDoor(self.hubs[number % self._size].port)
            self.doors.append(await self._stack.enter_async_context(door))
        return self

    async def __aexit__(self, *_: object) -> None:
        for hub in self.hubs:
            with contextlib.suppress(AssertionError):
                hub.thaw()
        await self._stack.aclose()

    async def _start_redis(self, port: int) -> RedisServer:
        return await asyncio.to_thread(RedisServer, *LASTING, "--port", str(port))

    @contextlib.asynccontextmanager
    async def failover(self) -> AsyncIterator[None]:
        """Promote a replica that has not heard of what the body does; the primary is lost with that."""
        clock = f"{PREFIX}:{{0}}:clock"
        old, port = self.redis, free_port()
        async with Proxy(self.redis_port) as between:
            new = await self._start_redis(port)
            try:
                new.client.replicaof("127.0.0.1", between.port)
                await eventually(lambda: _in_step(old, new), what="the replica is not in step")
                since = time.monotonic()
                between.refuse = True
                between.cut()
                await eventually(
                    lambda: new.client.info("replication")["master_link_status"] == "down"
                )
                after = int(new.client.get(clock) or 0)
                yield
                for wire in self.wires:
                    wire.target = port
                    wire.cut()
                # Nothing that it does from here on reaches anybody.
                upto = int(old.client.get(clock) or 0)
                new.client.replicaof("NO", "ONE")
            except BaseException:
                await asyncio.to_thread(new.stop)
                raise
        self.redis, self.redis_port = new, port
        self.history.forgotten.append(Forgotten(after, upto, since, time.monotonic()))
        await asyncio.to_thread(old.stop)

    def doors_of(self, number: int) -> list[FrontDoor]:
        return [door for door in self.doors if door.target == self.hubs[number].port]

    def up(self) -> list[int]:
        return [number for number in range(self._size) if number not in self.down]

    def outage(self, since: float) -> None:
        """Note that positions could not be written back since then; the recovery takes its time."""
        self.history.outages.append((since, time.monotonic() + READY))

    async def readiness(self, number: int) -> int:
        """Return what a hub's /readyz says, 0 where nobody answers."""
        timeout = aiohttp.ClientTimeout(total=1)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.get(f"{self.hubs[number].url}/readyz") as answer,
            ):
                return answer.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0

    async def ready(self, within: float = READY) -> None:
        """Wait until every hub that is up says that it is ready."""

        async def all_ready() -> bool:
            return all([await self.readiness(number) == 200 for number in self.up()])

        await eventually_true(all_ready, within, "the hubs are not ready again")

    def check(self) -> None:
        """Fail if a hub's log has a traceback or a secret in it."""
        for hub in self.hubs:
            hub.check()


def _in_step(primary: RedisServer, replica: RedisServer) -> bool:
    """Return whether a replica follows its primary, and has all it had when it was asked."""
    offset = primary.client.info("replication")["master_repl_offset"]
    state = replica.client.info("replication")
    return state["master_link_status"] == "up" and state["slave_repl_offset"] >= offset
