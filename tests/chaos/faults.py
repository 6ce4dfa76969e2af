"""Faults: each an object that strikes and is healed, and may strike again.

A fault belongs to a lane. Faults of one lane strike one after the other, those of several lanes at the same time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import redis

from tests.chaos.clients import Bare
from tests.chaos.cluster import Cluster, FrontDoor
from tests.support.times import UNIT


class Fault:
    """Something that breaks. `lasts`: seconds, from and to, between strike and heal."""

    lane = "clients"
    lasts: tuple[float, float] = (0.2, 1.0)

    def __init__(self, cluster: Cluster, dice: random.Random) -> None:
        self.cluster = cluster
        self.dice = dice
        # How often it has struck; a strike that met nothing does not count.
        self.count = 0

    @property
    def name(self) -> str:
        return type(self).__name__

    async def strike(self) -> None:
        raise NotImplementedError

    async def heal(self) -> None:
        """Undo what is left of it. Idempotent."""

    def some_doors(self) -> list[FrontDoor]:
        return self.dice.sample(self.cluster.doors, self.dice.randint(1, 3))

    def reroute(self, doors: Sequence[FrontDoor]) -> None:
        """Let what comes next through these doors go to any hub that is up."""
        for door in doors:
            if up := self.cluster.up():
                door.target = self.cluster.hubs[self.dice.choice(up)].port


# -- between clients and hubs


class Reset(Fault):
    """Connections end by RST, on both sides; clients come back to any hub."""

    async def strike(self) -> None:
        doors = self.some_doors()
        self.count += sum(door.cut() for door in doors) > 0
        self.reroute(doors)


class HalfOpen(Fault):
    """Connections swallow everything and close nothing."""

    async def strike(self) -> None:
        doors = self.some_doors()
        self.count += sum(door.blackhole() for door in doors) > 0
        self.reroute(doors)


class ClientGone(Fault):
    """Clients see their connections end, and return, while the hub's sides stay open and silent."""

    async def strike(self) -> None:
        doors = self.some_doors()
        self.count += sum(door.cut_client_side() for door in doors) > 0
        self.reroute(doors)


class Stalled(Fault):
    """Bytes stop one way, and flow again later or never."""

    way = "down"
    lasts = (1.0, 4.5)

    def __init__(self, cluster: Cluster, dice: random.Random) -> None:
        super().__init__(cluster, dice)
        self._doors: list[FrontDoor] = []

    async def strike(self) -> None:
        self._doors = self.some_doors()
        for door in self._doors:
            door.stall(self.way)
        self.count += 1

    async def heal(self) -> None:
        for door in self._doors:
            if self.dice.random() < 0.3:
                door.cut()
            door.flow(self.way)
        self._doors = []


class StalledDown(Stalled):
    """Nothing reaches the clients."""


class StalledUp(Stalled):
    """Nothing reaches the hubs."""

    way = "up"


class SlowReaders(Fault):
    """Clients stop reading, and go on later."""

    lasts = (2.0, 3.5)
    members: Sequence[Bare] = ()

    def __init__(self, cluster: Cluster, dice: random.Random) -> None:
        super().__init__(cluster, dice)
        self._held: list[Bare] = []

    async def strike(self) -> None:
        self._held = [member for member in self.members if self.dice.random() < 0.5]
        for member in self._held:
            member.hold()
        self.count += bool(self._held)

    async def heal(self) -> None:
        for member in self._held:
            member.go_on()
        self._held = []


# -- hubs


class HubFault(Fault):
    lane = "hubs"

    def __init__(self, cluster: Cluster, dice: random.Random) -> None:
        super().__init__(cluster, dice)
        self._number: int | None = None
        self._since = 0.0

    def take_one(self) -> int:
        self._number = self.dice.choice(self.cluster.up())
        self.cluster.down.add(self._number)
        self._since = time.monotonic()
        return self._number

    def lead_away(self, number: int) -> None:
        """Mostly somebody notices, and leads clients to another hub."""
        if self.dice.random() < 0.7:
            self.reroute(self.cluster.doors_of(number))

    def give_back(self) -> None:
        if self._number is not None:
            self.cluster.down.discard(self._number)
            self.cluster.outage(self._since)
            # Some come to it again.
            for door in self.cluster.doors:
                if self.dice.random() < 0.3:
                    door.target = self.cluster.hubs[self._number].port
        self._number = None


class Killed(HubFault):
    """`kill -9` of a hub, and its return as a new node on the same port."""

    lasts = (0.0, 4.0)

    async def strike(self) -> None:
        number = self.take_one()
        await asyncio.to_thread(self.cluster.hubs[number].kill)
        self.count += 1
        self.lead_away(number)

    async def heal(self) -> None:
        if self._number is not None:
            hub = self.cluster.hubs[self._number]
            while True:
                try:
                    await asyncio.to_thread(hub.start)
                    break
                except AssertionError:  # Redis is away: it says so, and does not start
                    await asyncio.sleep(0.2)
        self.give_back()


class Frozen(HubFault):
    """SIGSTOP for longer than the lease, then SIGCONT: the others have parked its sessions."""

    lasts = (3.5 * UNIT, 5.0 * UNIT)

    async def strike(self) -> None:
        number = self.take_one()
        self.cluster.hubs[number].freeze()
        self.count += 1
        self.lead_away(number)

    async def heal(self) -> None:
        if self._number is not None:
            self.cluster.hubs[self._number].thaw()
        self.give_back()


class Rolling(HubFault):
    """All hubs are restarted in turn by SIGTERM, which drains them."""

    async def strike(self) -> None:
        for number in range(len(self.cluster.hubs)):
            hub = self.cluster.hubs[number]
            self._number = number
            self._since = time.monotonic()
            self.cluster.down.add(number)
            self.reroute(self.cluster.doors_of(number))
            code = await asyncio.to_thread(hub.terminate)
            assert code == 0, f"a drained hub ended with {code}"
            await Killed.heal(self)  # type: ignore[arg-type]
        self.count += 1

    async def heal(self) -> None:
        if self._number is not None and not self.cluster.hubs[self._number].running:
            await Killed.heal(self)  # type: ignore[arg-type]


# -- Redis and the way to it


class RedisFault(Fault):
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


class RedisKilled(RedisFault):
    """`kill -9` of Redis, and its return with its append-only file."""

    lasts = (0.0, 1.5)

    async def strike(self) -> None:
        self.begin()
        await asyncio.to_thread(self.cluster.redis.kill)

    async def heal(self) -> None:
        if self._since is not None:
            await asyncio.to_thread(self.cluster.redis.start)
        self.end()


class RedisUnreachable(RedisFault):
    """The way from some hubs, or all, to Redis swallows everything and takes no connections."""

    lasts = (3.5 * UNIT, 4.5 * UNIT)

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


class RedisSlow(RedisFault):
    """Every answer of Redis, and every command, is 200 ms late."""

    lasts = (2.0, 3.0)

    async def strike(self) -> None:
        self.begin()
        for wire in self.cluster.wires:
            wire.delay = 0.1

    async def heal(self) -> None:
        for wire in self.cluster.wires:
            wire.delay = 0.0
        self.end()


class AnswersLost(RedisFault):
    """Commands reach Redis, and their answers do not reach the hub: every outcome is unknown."""

    lasts = (0.3, 1.0)

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


class KilledByClientKill(RedisFault):
    """CLIENT KILL of one type of connection."""

    type = "normal"

    async def strike(self) -> None:
        self.begin()
        client = self.cluster.redis.client
        await asyncio.to_thread(client.execute_command, "CLIENT", "KILL", "TYPE", self.type)
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
            await asyncio.sleep(self.dice.uniform(0, 0.02))
        self.end()


class SilentBus(RedisFault):
    """The buses of some hubs swallow everything and close nothing; commands go on."""

    lasts = (2.0, 3.0)

    async def strike(self) -> None:
        self.begin()
        listed = await asyncio.to_thread(self.cluster.redis.client.client_list, "pubsub")
        ports = {int(entry["addr"].rpartition(":")[2]) for entry in listed if ":" in entry["addr"]}
        for wire in self.dice.sample(self.cluster.wires, self.dice.randint(1, 3)):
            wire.swallow(ports)

    async def heal(self) -> None:
        self.end()


class RedisFull(RedisFault):
    """Redis is at `maxmemory` with noeviction: it refuses whatever needs memory."""

    lasts = (1.0, 2.5)

    async def strike(self) -> None:
        self.begin()
        await asyncio.to_thread(self.cluster.redis.client.config_set, "maxmemory", "1")

    async def heal(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.cluster.redis.client.config_set, "maxmemory", "0")
                break
            except redis.exceptions.ConnectionError:
                await asyncio.sleep(0.1)
        self.end()


ALL: tuple[type[Fault], ...] = (
    Reset, HalfOpen, ClientGone, StalledDown, StalledUp, SlowReaders,
    Killed, Frozen, Rolling,
    RedisKilled, RedisUnreachable, RedisSlow, AnswersLost, BusKilled, CommandsKilled, ScriptFlush,
    SilentBus, RedisFull,
)  # fmt: skip
