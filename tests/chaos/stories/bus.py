"""The bus breaks, or is slow."""

from __future__ import annotations

import asyncio

from tests.chaos.drill import LATE, Drill, Scene
from tests.support.times import UNIT


async def heal_holds(d: Drill) -> None:
    """A message is lost with the bus; the next one, of another room, is heard with the first breath of the new bus."""
    m = await d.client("A", "B")
    hub = d.cluster.hubs[0]
    d.wire.late["bus", "down"] = LATE
    d.wire.refuse = True
    d.wire.cut_one("bus")
    await d.say("A")
    d.wire.refuse = False
    await d.until(lambda: d.listeners("B"))
    hub.freeze()
    await d.say("B")
    await asyncio.sleep(3 * LATE)
    hub.thaw()
    assert not m.fault


async def told_late(d: Drill) -> None:
    """Lose the bus: it is back at once, and hears late what it is to listen to."""
    d.wire.late["bus", "up"] = LATE
    d.wire.cut_one("bus")
    await asyncio.sleep(LATE / 2)
    await d.ready()
    await asyncio.sleep(LATE / 4)


async def heal_cut(d: Drill) -> None:
    """The bus is back, and is told late what to listen to."""
    await d.client("A")
    await told_late(d)
    await d.say("A")
    await asyncio.sleep(LATE)


async def heal_gap(d: Drill) -> None:
    """The bus is away for longer than the log reaches back, under a live session."""
    m = await d.client("A")
    d.wire.refuse = True
    d.wire.cut_one("bus")
    await d.say(*["A"] * 12)
    d.wire.refuse = False
    await d.ready()
    await d.told(m)


async def left_deaf(d: Drill) -> None:
    """A room is left while everybody waits for its channel."""
    m = await d.client("A", "B")
    await told_late(d)
    await m.leave("A")
    await d.say("B")


async def deaf_again(d: Drill) -> None:
    """More sessions than may be replayed at a time are; the bus is lost meanwhile, and told late what to listen to."""
    await asyncio.gather(*(d.client("A") for _ in range(80)))
    d.wire.late["commands", "down"] = 3 * LATE
    d.redis.publish(d.key("bus:nodes"), "reset")
    await asyncio.sleep(LATE / 2)
    d.wire.late["bus", "up"] = 2 * LATE
    d.wire.cut_one("bus")
    await asyncio.sleep(3 * LATE)
    await d.say("A")
    await asyncio.sleep(2 * LATE)


_SHORT = {"log_length": 5}

SCENES = {
    "heal_holds": Scene(heal_holds, {"bus_silence": 20 * UNIT, "redis_timeout": 20 * UNIT}),
    "heal_cut": Scene(heal_cut),
    "heal_gap": Scene(heal_gap, _SHORT),
    "left_deaf": Scene(left_deaf),
    "deaf_again": Scene(deaf_again, {"redis_timeout": 10 * UNIT, "bus_silence": 20 * UNIT}),
}
