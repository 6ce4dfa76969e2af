"""What a node remembers of its rooms, so that not everybody is replayed from the logs."""

from __future__ import annotations

import asyncio

from tests.chaos.drill import LATE, Drill, Scene
from tests.support.times import UNIT


async def learn_whole(d: Drill) -> None:
    """A gap is told, and what follows it is more than one batch; another one comes back, from within the gap."""
    one, two = await d.client("A", "B"), await d.client("A", "B")
    await d.go(one)
    await d.say("B", "B")
    await d.heard(two)
    await d.go(two)
    await d.say("A", "A", "A")
    await d.back(one)
    await d.told(one)
    await asyncio.sleep(LATE)
    await d.back(two)
    await d.told(two)


async def told_is_lost(d: Drill) -> None:
    """A log is gone, a gap was told for it, and its connection breaks within that; its hub has what was in it."""
    m = await d.client("A", "B")
    await d.client("A", "B")
    await d.say("A")
    await d.heard(m)
    await d.go(m)
    await d.say("B", "B", "B", "A")
    d.redis.delete(d.key("room:A:log"))
    d.wire.late["commands", "down"] = LATE
    await d.back(m)
    await d.told(m)
    d.wire.late.clear()
    await d.return_(m)


async def read_ahead(d: Drill) -> None:
    """One of them reads a log while the bus is slow; what it read is remembered when the other one comes back."""
    await d.client("B")
    await d.say("B")
    one, both = await d.client("A"), await d.client("A", "B")
    await d.go(one)
    await d.go(both)
    await d.until(lambda: not d.listeners("A"))
    d.wire.late["commands", "up"] = 2 * LATE
    coming = asyncio.create_task(d.back(one))
    await d.until(lambda: d.listeners("A"))
    await asyncio.sleep(LATE / 2)
    d.wire.late["bus", "down"] = 6 * LATE
    await d.say("B", "A")
    d.wire.late["commands", "up"] = 0.0
    await coming
    await d.heard(one)
    await d.back(both)
    await asyncio.sleep(6 * LATE)
    d.wire.late.clear()


async def heard_confirmed(d: Drill) -> None:
    """The last of a room leaves it and others enter it, while the bus still brings what was said before that."""
    one, two = await d.client("A"), await d.client("A")
    await d.go(one)
    await d.go(two)
    await d.say("A")
    three = await d.client("A")
    d.wire.late["bus", "down"] = 2 * LATE
    await d.say("A")
    await three.leave("A")
    await d.until(lambda: not d.listeners("A"))
    await d.say("A")
    await d.back(one)
    await d.heard(one)
    await d.back(two)
    await asyncio.sleep(LATE)
    d.expect(two.offset == one.offset, "has not got what was said in between")


SCENES = {
    "heard_confirmed": Scene(heard_confirmed),
    "learn_whole": Scene(learn_whole, {"log_length": 2, "replay_count": 2}),
    "told_is_lost": Scene(told_is_lost, {"log_length": 2, "replay_count": 1}),
    "read_ahead": Scene(read_ahead, {"redis_timeout": 10 * UNIT, "bus_silence": 20 * UNIT}),
}
