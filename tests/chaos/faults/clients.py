"""Faults between clients and hubs: connections that end, or do not, and bytes that stop."""

from __future__ import annotations

import random

from tests.chaos.bare import Bare
from tests.chaos.cluster import Cluster, FrontDoor
from tests.chaos.faults.fault import Fault
from tests.support.times import MS, UNIT


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


class HubGone(Fault):
    """Hubs see connections end while the clients' sides stay open and silent."""

    async def strike(self) -> None:
        doors = self.some_doors()
        self.count += sum(door.cut_hub_side() for door in doors) > 0
        self.reroute(doors)


class Stalled(Fault):
    """Bytes stop one way, and flow again later or never."""

    way = "down"
    lasts = (UNIT, 4500 * MS)

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

    lasts = (2 * UNIT, 3500 * MS)

    def __init__(self, cluster: Cluster, dice: random.Random) -> None:
        super().__init__(cluster, dice)
        self._held: list[Bare] = []

    async def strike(self) -> None:
        self._held = [member for member in self.cluster.readers if self.dice.random() < 0.5]
        for member in self._held:
            member.hold()
        self.count += bool(self._held)

    async def heal(self) -> None:
        for member in self._held:
            member.go_on()
        self._held = []
