"""What every fault is: an object that strikes and is healed, and may strike again."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.chaos.cluster import Cluster, FrontDoor
from tests.support.times import MS, UNIT


class Fault:
    """Something that breaks. `lasts`: seconds, from and to, between strike and heal.

    A fault belongs to a lane. Faults of one lane strike one after the other, those of several lanes at the same time.
    """

    lane = "clients"
    lasts: tuple[float, float] = (200 * MS, UNIT)
    # The same where there is time for it; None: no longer.
    lasts_long: tuple[float, float] | None = None

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
