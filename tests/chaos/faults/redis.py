"""Faults of Redis and of the way to it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import TypeVar

import redis

from tests.chaos.cluster import PREFIX, Cluster
from tests.chaos.faults.fault import Fault
from tests.support.times import MS, UNIT

T = TypeVar("T")


class RedisFault(Fault):
    """Of the server: those of one lane know that nobody else kills it meanwhile."""

    lane = "redis"

    def __init__(self, cluster: Cluster, dice: random.Random) -> None:
        super().__init__(cluster, dice)
        self._since: float | None = None

    def begin(self) -> None:
        self._since = time.monotonic()
        self.count += 1

    def end(self) -> None:
        if self._since is not None:
            self.cluster.outage(self._since)
        self._since = None


class WayFault(RedisFault):
    """Of the way between hubs and server, whatever befalls the server."""

    lane = "way"

    async def insist(self, ask: Callable[[redis.Redis], T]) -> T:
        """Ask the server something as soon as there is one."""
        while True:
            try:
                return await asyncio.to_thread(ask, self.cluster.redis.client)
            except redis.exceptions.ConnectionError:
                await asyncio.sleep(100 * MS)


class RedisKilled(RedisFault):
    """`kill -9` of Redis, and its return with its append-only file."""

    lasts = (0.0, 1500 * MS)

    async def strike(self) -> None:
        self.begin()
        await asyncio.to_thread(self.cluster.redis.kill)

    async def heal(self) -> None:
        if self._since is not None:
            await asyncio.to_thread(self.cluster.redis.start)
        self.end()


class RedisUnreachable(WayFault):
    """The way from some hubs, or all, to Redis swallows everything and takes no connections."""

    lasts = (3500 * MS, 4500 * MS)
    lasts_long = (30 * UNIT, 30 * UNIT)

    async def strike(self) -> None:
        self.begin()
        wires = self.cluster.wires
        for wire in self.dice.choice([wires, self.dice.sample(wires, 1)]):
            wire.refuse = True
            if self.dice.random() < 0.5:
                wire.blackhole()
            else:
                wire.cut()

    async def heal(self) -> None:
        for wire in self.cluster.wires:
            wire.refuse = False
        self.end()


class RedisSlow(WayFault):
    """Every answer of Redis, and every command, is 200 ms late."""

    lasts = (2 * UNIT, 3 * UNIT)

    async def strike(self) -> None:
        self.begin()
        for wire in self.cluster.wires:
            wire.delay = 100 * MS

    async def heal(self) -> None:
        for wire in self.cluster.wires:
            wire.delay = 0.0
        self.end()


class AnswersLost(WayFault):
    """Commands reach Redis, and their answers do not reach the hub: every outcome is unknown."""

    lasts = (300 * MS, UNIT)

    async def strike(self) -> None:
        self.begin()
        for wire in self.cluster.wires:
            wire.stall("down")

    async def heal(self) -> None:
        for wire in self.cluster.wires:
            if self._since is not None:
                wire.cut()
            wire.flow("down")
        self.end()


class KilledByClientKill(WayFault):
    """CLIENT KILL of one type of connection."""

    type = "normal"

    async def strike(self) -> None:
        self.begin()
        await self.insist(
            lambda client: client.execute_command("CLIENT", "KILL", "TYPE", self.type)
        )
        self.end()


class BusKilled(KilledByClientKill):
    """CLIENT KILL TYPE pubsub."""

    type = "pubsub"


class CommandsKilled(KilledByClientKill):
    """CLIENT KILL TYPE normal."""


class ScriptFlush(RedisFault):
    """SCRIPT FLUSH, a few times in a row."""

    async def strike(self) -> None:
        self.begin()
        for _ in range(5):
            await asyncio.to_thread(self.cluster.redis.client.script_flush)
            await asyncio.sleep(self.dice.uniform(0, 20 * MS))
        self.end()


class SilentBus(WayFault):
    """The buses of some hubs swallow everything and close nothing; commands go on."""

    lasts = (2 * UNIT, 3 * UNIT)

    async def strike(self) -> None:
        self.begin()
        listed = await self.insist(lambda client: client.client_list("pubsub"))
        ports = {int(entry["addr"].rpartition(":")[2]) for entry in listed if ":" in entry["addr"]}
        for wire in self.dice.sample(self.cluster.wires, self.dice.randint(1, 3)):
            wire.swallow(ports)

    async def heal(self) -> None:
        self.end()


class RedisFull(RedisFault):
    """Redis is at `maxmemory` with noeviction: it refuses whatever needs memory."""

    lasts = (UNIT, 2500 * MS)

    async def strike(self) -> None:
        self.begin()
        await asyncio.to_thread(self.cluster.redis.client.config_set, "maxmemory", "1")

    async def heal(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.cluster.redis.client.config_set, "maxmemory", "0")
                break
            except redis.exceptions.ConnectionError:
                await asyncio.sleep(100 * MS)
        self.end()


class ClockSetBack(RedisFault):
    """The server's time is behind the newest offset given out, as after somebody has set its clock back."""

    lasts = (500 * MS, 1500 * MS)
    seconds = 2

    async def strike(self) -> None:
        self.begin()
        # A script reads the time, and what was given out lies in a key: moving the one forward sets the other back.
        await asyncio.to_thread(
            self.cluster.redis.client.eval, _AHEAD, 1, f"{PREFIX}:{{0}}:clock", self.seconds
        )

    async def heal(self) -> None:
        self.end()


_AHEAD = """
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local ahead = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0)) + ARGV[1] * 1000000
redis.call('SET', KEYS[1], string.format('%.0f', ahead))
"""


class FailedOver(RedisFault):
    """The primary is lost, and a replica is promoted that lacks its last writes."""

    lasts = (0.0, 0.0)

    async def strike(self) -> None:
        # What is done to sessions in the forgotten seconds is forgotten too, and nobody could say what is right then.
        async with self.cluster.gate.closed():
            self.begin()
            async with self.cluster.failover():
                await asyncio.sleep(self.dice.uniform(200 * MS, 800 * MS))
        self.end()
