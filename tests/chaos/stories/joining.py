"""Joining and leaving."""

from __future__ import annotations

import asyncio

from tests.chaos.drill import LATE, Drill, Scene
from tests.chaos.history import Joined, Joining, Leaving
from tests.support.times import UNIT


async def sub_adds_away(d: Drill) -> None:
    """A slow reader, parked, joins a second room."""
    m = await d.client("A")
    await d.fill(m, "A")
    joining = asyncio.create_task(m.join("B"))
    await d.until(lambda: d.redis.hexists(d.session(m), "r:B"))
    await d.say("B")
    d.door.flow("down")
    await joining


async def resub_keeps_join(d: Drill) -> None:
    """It joins again while a message is on its way over a slow bus."""
    m = await d.client("A")
    d.wire.late["bus", "down"] = LATE
    await d.say("A")
    await m.join("A")


async def join_filter(d: Drill) -> None:
    """It joins while an older message is on its way over a slow bus."""
    await d.client("A")
    m = await d.client()
    d.wire.late["bus", "down"] = LATE
    await d.say("A")
    await m.join("A")
    await asyncio.sleep(2 * LATE)


async def sub_bus_first(d: Drill) -> None:
    """The bus is told late that a room is to be heard, and a message follows the answer."""
    m = await d.client()
    d.wire.late["bus", "up"] = LATE
    await m.join("A")
    await d.say("A")


async def sub_holds_all(d: Drill) -> None:
    """It has joined, and the history that it asked for is late; messages of that room, and then of another, are not."""
    m = await d.client("A")
    d.wire.late["commands", "down"] = LATE
    joining = asyncio.create_task(m.join("B", history=5))
    await d.until(lambda: d.redis.hexists(d.session(m), "r:B"))
    await asyncio.sleep(1.5 * LATE)
    await d.say("B", "A")
    await joining


async def unsub_state(d: Drill) -> None:
    """A room is left and joined again while the bus's commands are late: the first is confirmed before the second."""
    m = await d.client("A")
    d.wire.late["bus", "up"] = LATE
    await m.leave("A")
    await asyncio.sleep(LATE / 4)
    await m.join("A")
    await d.say("A")


async def replay_filters(d: Drill) -> None:
    """A slow reader, parked, leaves a room of which something waits in its inbox; its hub has lost what it had heard."""
    m = await d.client("A", "B")
    await d.fill(m, "B")
    await d.say("A")
    leaving = asyncio.create_task(m.leave("A"))
    await d.until(lambda: not d.redis.hexists(d.session(m), "r:A"))
    d.wire.cut_one("bus")
    await asyncio.sleep(LATE / 2)
    await d.ready()
    d.wire.late["commands", "down"] = LATE / 2
    d.door.flow("down")
    await leaving
    await asyncio.sleep(2 * LATE)


async def lost_join(d: Drill) -> None:
    """The answer to a join is lost, messages pass, and the client tries again."""
    m = await d.client()
    d.wire.late["commands", "down"] = LATE
    joining = asyncio.create_task(m.join("A"))
    await d.until(lambda: d.redis.hexists(d.session(m), "r:A"))
    d.wire.cut_one("commands")
    await d.say("A", "A")
    d.wire.late.clear()
    await joining


async def passed_join(d: Drill) -> None:
    """The answer to a join is lost, another room moves the client past it, and it comes back and tries again."""
    m = await d.client("B")
    d.wire.late["commands", "down"] = LATE
    joining = asyncio.create_task(m.join("A"))
    await d.until(lambda: d.redis.hexists(d.session(m), "r:A"))
    joining.cancel()
    d.wire.cut_one("commands")
    d.wire.late.clear()
    await d.say("A", "B")
    await d.heard(m)
    await d.ready()
    await d.return_(m)
    await m.join("A")


async def left_unheard(d: Drill) -> None:
    """The answer to leaving a room is lost; something is said there for the first time while it is slow elsewhere."""
    m = await d.client("A", "B")
    m.rooms.discard("B")
    m.record.add(Leaving("B"))
    d.wire.late["commands", "down"] = LATE
    leaving = asyncio.create_task(m.ask("unsubscribe", room="B"))
    await d.until(lambda: not d.redis.hexists(d.session(m), "r:B"))
    d.wire.cut_one("commands")
    d.wire.late.clear()
    await leaving
    await d.ready()
    await d.fill(m, "A")
    await d.say("B")
    d.door.flow("down")


async def count_from_join(d: Drill) -> None:
    """It is slow amid its replay, and leaves a room and joins it again before it reads on."""
    m = await d.client("A", "B")
    await d.go(m)
    await d.say("A", *["B"] * 3)
    await d.say(*["B"] * 60, pad=200_000)
    d.wire.late["commands", "down"] = LATE / 2
    await d.back(m)
    d.door.stall("down")
    d.wire.late.clear()
    await asyncio.sleep(2 * LATE)  # until its socket is full
    leaving = asyncio.create_task(m.leave("A"))
    await d.until(lambda: not d.redis.hexists(d.session(m), "r:A"))
    await d.say("A")
    joining = asyncio.create_task(m.ask("subscribe", room="A"))
    await d.until(lambda: d.redis.hexists(d.session(m), "r:A"))
    await d.say("A")
    d.door.flow("down")
    await leaving
    m.record.add(Joining("A"))
    m.record.add(Joined("A", int((await joining)["offset"])))
    m.rooms.add("A")


# A hub carries out no verb of a client that leaves more than twice `buffer_high` bytes unread.
_SLOW = {"ping_timeout": 20 * UNIT, "log_length": 1000, "buffer_high": 1024 * 1024}

SCENES = {
    "sub_adds_away": Scene(sub_adds_away, _SLOW),
    "resub_keeps_join": Scene(resub_keeps_join),
    "join_filter": Scene(join_filter),
    "sub_bus_first": Scene(sub_bus_first),
    "sub_holds_all": Scene(sub_holds_all),
    "replay_filters": Scene(replay_filters, _SLOW),
    "unsub_state": Scene(unsub_state),
    "left_unheard": Scene(left_unheard, _SLOW),
    "lost_join": Scene(lost_join),
    "passed_join": Scene(passed_join),
    "count_from_join": Scene(count_from_join, {**_SLOW, "replay_count": 2}),
}
