"""A replica is promoted that lacks the last writes, and whoever has not got them is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.chaos.bare import Bare
from tests.chaos.drill import LATE, Drill, Scene, Story
from tests.chaos.history import Got
from tests.support.ports import free_port
from tests.support.raw import Raw
from tests.support.times import UNIT


async def gone(d: Drill) -> Bare:
    """Return a client that has got a message, and is away."""
    m = await d.client("A")
    await d.say("A")
    await d.go(m)
    return m


@contextlib.asynccontextmanager
async def overtaken(d: Drill) -> AsyncIterator[None]:
    """Lose a message of which hub 1 knows, and let hub 0 publish a newer one; hub 1 is back after the body."""
    async with d.cluster.failover():
        await d.say("A")
        d.cluster.wires[1].refuse = True
    await d.ready()
    await d.say("A", hub=0)
    yield
    d.cluster.wires[1].refuse = False
    await d.cluster.ready()


async def loss_told(d: Drill) -> None:
    """It is away, and hub 1 has acknowledged what the lost primary alone had."""
    m = await gone(d)
    async with d.cluster.failover():
        await d.say("A")
    await d.cluster.ready()
    await d.back(m)


async def loss_overtaken(d: Drill) -> None:
    """So it is, and by the time hub 1 finds out, hub 0 has published something newer."""
    m = await gone(d)
    async with overtaken(d):
        pass
    await d.back(m)


async def noticed_late(d: Drill) -> None:
    """Its hub has not heard of it, and it gets newer messages before hub 1 finds out."""
    m = await d.client("A")
    await d.say("A")
    d.wire.late["bus", "down"] = 2 * LATE
    async with overtaken(d):
        await d.heard(m)
    d.wire.late.clear()
    await d.told(m)


async def each_loss(d: Drill) -> None:
    """It is away for two of them, and for what was published in between."""
    m = await gone(d)
    for _ in range(2):
        async with d.cluster.failover():
            await d.say("A")
        await d.cluster.ready()
        await d.say("A")
    await d.back(m)


async def told_once(d: Drill) -> None:
    """It was told, and gets more than a log holds; then the server takes another identity, which the bus has seen coming."""
    m = await d.client("A")
    await d.go(m)
    await d.say("A", "A")
    async with overtaken(d):
        pass
    await d.back(m)
    await d.heard(m)
    await d.say(*["A"] * 150)
    await d.heard(m)
    told = len(d.gaps(m))
    d.redis.replicaof("127.0.0.1", free_port())
    d.redis.replicaof("NO", "ONE")
    d.wire.cut_one("commands")
    await asyncio.sleep(LATE)
    await d.ready()
    d.expect(len(d.gaps(m)) == told, f"told again: {d.gaps(m)[told:]}")


async def lost_for_good(d: Drill) -> None:
    """It was told of a gap, and is within it, by messages of another room, when what had cut that log is forgotten."""
    m = await d.client("A", "B")
    await d.fill(m, "B")
    await d.say("B", "A", "A", "A")
    async with d.cluster.failover():
        await d.say("A", "A", "A")
        d.wire.late["commands", "down"] = LATE
        d.door.flow("down")
        await d.until(lambda: any(gap.room == "A" for gap in d.gaps(m)))
    d.wire.late.clear()
    await d.cluster.ready()


async def cursor_void(d: Drill) -> None:
    """It is amid catching up when the promoted replica lacks what it has got; the numbers of that are given out again."""
    m = await d.client("A", "B")
    await d.say("A")
    await d.heard(m)
    await d.fill(m, "B")
    async with d.cluster.failover():
        await d.say("A", "A")
        await d.say(*["B"] * 10, pad=200_000)
        d.wire.late["commands", "down"] = LATE / 2
        d.door.flow("down")
        await d.until(lambda: sum(e.room == "A" for e in m.record.events if isinstance(e, Got)) > 1)
        d.wire.refuse = True
    d.wire.late.clear()
    await d.ready(hub=1)
    await d.say("A")
    d.wire.refuse = False
    await d.cluster.ready()
    await d.heard(m)
    counted = [gap for gap in d.gaps(m) if gap.dropped is not None]
    d.expect(not counted, f"nobody can count what the lost primary alone had: {counted}")


async def before_reset(d: Drill) -> None:
    """It is away for more than a batch, and hub 1 has acknowledged what the lost primary alone had."""
    m = await gone(d)
    await d.say("A", "A")
    async with d.cluster.failover():
        await d.say("A")
    await d.cluster.ready()
    await d.back(m)


async def takes_count(d: Drill) -> None:
    """It has gone over to hub 1, and the promoted replica has not heard of that."""
    m = await d.client("A")
    async with d.cluster.failover():
        await m.stop()
        m.url = d.cluster.doors[1].url
        await d.back(m)
    await d.cluster.ready()
    await d.say("A")


async def serials_are_times(d: Drill) -> None:
    """The promoted replica does not know its pid; then another connection claims the session by its name."""

    async def other() -> None:
        raw = await Raw(d.cluster.hubs[1].url).open()
        await raw.connect({"client_id": "ada"})
        await raw.drop()
        await d.away(m)

    m = await d.client("A", name="ada")
    d.door.stall("up")  # so that nothing is known to have arrived
    await d.say("A")
    await d.heard(m)
    d.door.cut()
    await m.stop()
    await d.away(m)
    d.door.flow("up")
    await other()
    async with d.cluster.failover():
        await d.back(m)
        await m.stop()
    await d.cluster.ready()
    await other()
    await m.start()
    await d.say("A")


def _scene(story: Story, **settings: Any) -> Scene:
    return Scene(story, settings, reasons=("overflow", "reset"), remembered=True)


SCENES = {
    "loss_told": _scene(loss_told),
    "loss_overtaken": _scene(loss_overtaken),
    "publisher_knows": _scene(loss_overtaken),
    "noticed_late": _scene(noticed_late, bus_silence=20 * UNIT),
    "each_loss": _scene(each_loss),
    "told_once": _scene(told_once),
    "lost_for_good": _scene(lost_for_good, log_length=3, replay_count=1),
    "cursor_void": _scene(cursor_void, replay_count=1, replay_memory=0),
    "before_reset": _scene(before_reset, replay_count=1),
    "takes_count": _scene(takes_count),
    "serials_are_times": _scene(serials_are_times),
}
