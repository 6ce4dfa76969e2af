"""Away and back, and what is told of what was lost meanwhile."""

from __future__ import annotations

import asyncio
import time

from tests.chaos.drill import LATE, Drill, Scene
from tests.chaos.history import Publication
from tests.support.times import MS, UNIT


async def log_decides(d: Drill) -> None:
    """An inbox that overflows is no gap as long as the log has everything."""
    m = await d.client("A")
    await d.go(m)
    await d.say(*["A"] * 20)
    await d.back(m)


async def park_from_live(d: Drill) -> None:
    """What it was sent while live never arrived, and it is parked a second time."""
    m = await d.client("A")
    await d.return_(m)
    await d.say("A")
    d.door.stall("down")
    await d.say("A")
    await asyncio.sleep(LATE)
    await d.go(m)
    d.door.flow("down")
    await d.say("A")
    await d.back(m)


async def sent_filter(d: Drill) -> None:
    """What a replay has handed out comes again over a slow bus."""
    await d.client("A")
    m = await d.client("A")
    await d.go(m)
    d.wire.late["bus", "down"] = LATE
    await d.say("A")
    await d.back(m)
    await asyncio.sleep(2 * LATE)


async def buffer_replay(d: Drill) -> None:
    """A message is published while the answer that makes the session live is on its way."""
    await d.client("A")
    m = await d.client("A")
    await d.go(m)
    d.wire.late["commands", "down"] = LATE
    await d.back(m)
    await asyncio.sleep(LATE / 4)
    await d.say("A")


async def echo_in_log(d: Drill) -> None:
    """A publisher that wants no echo is away and back."""
    m = await d.client("A")
    own = Publication("A", "own", time.monotonic(), skip=m.name)
    d.history.publications["own"] = own
    answer = await m.ask("publish", room="A", event="m", data={"k": "own"}, id="own", echo=False)
    own.offset, own.acked_at = int(answer["offset"]), time.monotonic()
    await d.return_(m)


async def gen_in_key(d: Drill) -> None:
    """A named session runs out; its successor is in another room, and somebody else is away in the first one."""
    m = await d.client("A", name="ada")
    other = await d.client("A", name="bob")
    await d.go(m)
    await asyncio.sleep(1200 * MS)
    await d.go(other)
    await d.until(lambda: not d.redis.exists(d.session(m)))
    d.members.remove(m)
    again = await d.client("B", name="ada")
    await d.go(again)
    await d.say("A", "B")
    await d.back(again)
    await d.back(other)


async def overflow(d: Drill) -> None:
    """It is away for longer than the log reaches back."""
    m = await d.client("A", "B")
    await d.go(m)
    await d.say("B", *["A"] * 12)
    await d.back(m)
    await d.say("A")
    await d.told(m)
    d.expect([gap.dropped for gap in d.gaps(m)] == [7], f"7 are lost: {d.gaps(m)}")


async def gap_offset(d: Drill) -> None:
    """Its connection breaks between a gap and what is older than the gap's end."""
    m = await d.client("A", "B")
    await d.go(m)
    await d.say("B", *["A"] * 12)
    m.brittle = True
    await d.back(m)


async def final_gap(d: Drill) -> None:
    """A room's log runs out while it is away, and nothing newer follows."""
    m = await d.client("A")
    await d.go(m)
    await d.say("A")
    await d.until(lambda: not d.redis.exists(d.key("room:A:log")))
    await d.back(m)
    await d.told(m)


async def numbers_last(d: Drill) -> None:
    """Something is on its way to it when both hubs are killed, and they stay away for longer than a session lives."""
    m = await d.client("A")
    d.door.stall("down")
    await d.say("A")
    await d.kill_all()
    d.door.cut()
    d.door.flow("down")
    await asyncio.sleep(6 * UNIT)
    await d.start_all()
    await d.until(lambda: d.began(m) == 2)
    await d.told(m)


async def lost_answer(d: Drill) -> None:
    """A gap stands in an answer that is lost, and more follows than fits into one."""
    m = await d.client("A", "B")
    await d.go(m)
    await d.say(*["A"] * 3)
    await d.until(lambda: not d.redis.exists(d.key("room:A:log")))
    await d.say(*["B"] * 6)
    d.wire.late["commands", "down"] = LATE
    await d.back(m)
    await asyncio.sleep(LATE / 2)
    d.wire.cut_one("commands")
    d.wire.late.clear()


_SHORT = {"log_length": 5}
_SMALL = {"inbox_length": 8, "log_length": 100}
_AGING = {"log_age": UNIT, "named_life": 60 * UNIT, "anonymous_life": 60 * UNIT, "replay_count": 2}
_OUTLIVED = {"log_age": UNIT, "named_life": 4 * UNIT, "anonymous_life": 4 * UNIT}
_MORTAL = {"named_life": 2 * UNIT, "anonymous_life": 2 * UNIT}

SCENES = {
    "log_decides": Scene(log_decides, _SMALL),
    "never_empty": Scene(log_decides, _SMALL),
    "park_from_live": Scene(park_from_live),
    "sent_filter": Scene(sent_filter),
    "gap_offset": Scene(gap_offset, _SHORT),
    "gap_early": Scene(overflow, _SHORT),
    "final_gap": Scene(final_gap, _AGING, ("expired",)),
    "gen_in_key": Scene(gen_in_key, _MORTAL),
    "echo_in_log": Scene(echo_in_log),
    "n_gap": Scene(overflow, _SHORT),
    "floor_expiry": Scene(final_gap, _AGING, ("expired",)),
    "buffer_replay": Scene(buffer_replay),
    "numbers_last": Scene(numbers_last, _OUTLIVED, ("expired",)),
    "lost_answer": Scene(lost_answer, _AGING, ("expired",)),
}
