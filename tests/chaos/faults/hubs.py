"""Faults of hub processes: killed, stopped for a while, restarted in turn."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

from tests.chaos.cluster import Cluster
from tests.chaos.faults.fault import Fault
from tests.support.times import MS, UNIT


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

    lasts = (0.0, 4 * UNIT)

    async def strike(self) -> None:
        number = self.take_one()
        await asyncio.to_thread(self.cluster.hubs[number].kill)
        self.count += 1
        self.lead_away(number)

    async def heal(self) -> None:
        if self._number is not None:
            hub = self.cluster.hubs[self._number]
            calm: contextlib.AbstractAsyncContextManager[None] = contextlib.nullcontext()
            while True:
                try:
                    async with calm:
                        await asyncio.to_thread(hub.start)
                    break
                except AssertionError:  # Redis is away: it says so, and does not start
                    await asyncio.sleep(200 * MS)
                    calm = self.cluster.way.closed()
        self.give_back()


class Frozen(HubFault):
    """SIGSTOP for longer than the lease, then SIGCONT: the others have parked its sessions."""

    lasts = (3500 * MS, 5 * UNIT)

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
