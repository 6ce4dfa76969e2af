"""A story for each rule of docs/reliability.md: it ends well, and without the rule it does not.

The same rules, and mostly the same stories, as `tests.integration.walk.scenes`, told by real processes: what a walk holds
back by hand is made late here on its way through a proxy.
"""

from __future__ import annotations

import asyncio
import time

from tests.chaos.drill import LATE, Drill, Scene
from tests.chaos.history import Publication
from tests.support.raw import Raw
from tests.support.times import UNIT, eventually

# -- joining and leaving


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
    """The answer to a join is late; messages of that room, and then of another, are not."""
    m = await d.client("A")
    d.wire.late["commands", "down"] = LATE
    joining = asyncio.create_task(m.join("B"))
    await d.until(lambda: d.redis.hexists(d.session(m), "r:B"))
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


# -- away and back


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
    await asyncio.sleep(1.2 * UNIT)
    await d.go(other)
    await d.until(lambda: not d.redis.exists(d.session(m)))
    d.members.remove(m)
    again = await d.client("B", name="ada")
    await d.go(again)
    await d.say("A", "B")
    await d.back(again)
    await d.back(other)


# -- gaps


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


# -- the bus


async def heal_holds(d: Drill) -> None:
    """A message is lost with the bus; the next one, of another room, is heard with the first breath of the new bus."""
    m = await d.client("A", "B")
    hub = d.cluster.hubs[0]
    d.wire.late["bus", "down"] = LATE
    d.wire.refuse = True
    d.wire.cut_one("bus")
    await d.say("A")
    d.wire.refuse = False
    channel = d.key("bus:room:B")
    await d.until(lambda: d.redis.pubsub_numsub(channel)[0][1])
    hub.freeze()
    await d.say("B")
    await asyncio.sleep(3 * LATE)
    hub.thaw()
    assert not m.fault


async def heal_cut(d: Drill) -> None:
    """The bus is back, and is told late what to listen to."""
    await d.client("A")
    d.wire.late["bus", "up"] = LATE
    d.wire.cut_one("bus")
    await asyncio.sleep(LATE / 2)
    await d.ready()
    await asyncio.sleep(LATE / 4)
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
    d.wire.late["bus", "up"] = LATE
    d.wire.cut_one("bus")
    await asyncio.sleep(LATE / 2)
    await d.ready()
    await asyncio.sleep(LATE / 4)
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


# -- lives and owners


async def ttl_connected(d: Drill) -> None:
    """It was away once, and is connected for longer than a session outlives its connection."""
    m = await d.client("A")
    await d.return_(m)
    await asyncio.sleep(4 * UNIT)
    await m.stop()
    await d.back(m)


async def stopped(d: Drill) -> None:
    """Stop hub 0 for longer than its lease; the other one parks its sessions."""
    hub = d.cluster.hubs[0]
    hub.freeze()
    try:
        session = d.session(d.members[0])
        await eventually(lambda: d.redis.hget(session, "away") == "1", what="not swept")
    finally:
        hub.thaw()


async def lapse_replays(d: Drill) -> None:
    """Its hub was stopped for longer than the lease, and then serves it for longer than a session's life."""
    m = await d.client("A")
    await stopped(d)
    await asyncio.sleep(4 * UNIT)
    await m.stop()
    await d.back(m)


async def swept_owner(d: Drill) -> None:
    """Its hub was stopped for longer than the lease, and keeps it."""
    m = await d.client("A")
    await stopped(d)
    await asyncio.sleep(2 * UNIT)
    d.expect(d.began(m) == 1, "sent away, although nobody has replaced it")


async def fence_all(d: Drill) -> None:
    """A replaced connection, whose hub has not heard of that, says goodbye for good."""
    m = await d.client("A")
    assert m._pid is not None
    await d.go(m)
    old = await Raw(d.cluster.hubs[0].url).open()
    await old.connect({"pid": m._pid, "offset": str(m.offset)})
    listed = d.redis.client_list("pubsub")
    d.wire.swallow({int(entry["addr"].rpartition(":")[2]) for entry in listed})
    m.url = d.cluster.doors[1].url
    await d.back(m)
    await old.send("41")
    await asyncio.sleep(LATE)
    await old.drop()
    await m.stop()
    await d.back(m)


_SHORT = {"log_length": 5}
_SMALL = {"inbox_length": 8, "log_length": 100}
_SLOW = {"max_payload": 1_000_000, "ping_timeout": 20.0, "log_length": 1000}
_AGING = {"log_age": 1.0, "named_life": 60.0, "anonymous_life": 60.0, "replay_count": 2}
_MORTAL = {"named_life": 2.0, "anonymous_life": 2.0}
_LEASED = {"lease": 1.0, "bus_silence": 20.0, "ping_timeout": 20.0}

SCENES = {
    "sub_adds_away": Scene(sub_adds_away, _SLOW),
    "resub_keeps_join": Scene(resub_keeps_join),
    "join_filter": Scene(join_filter),
    "sub_bus_first": Scene(sub_bus_first),
    "sub_holds_all": Scene(sub_holds_all),
    "log_decides": Scene(log_decides, _SMALL),
    "never_empty": Scene(log_decides, _SMALL),
    "park_from_live": Scene(park_from_live),
    "sent_filter": Scene(sent_filter),
    "heal_holds": Scene(heal_holds, {"bus_silence": 20.0, "redis_timeout": 20.0}),
    "heal_cut": Scene(heal_cut),
    "heal_gap": Scene(heal_gap, _SHORT),
    "gap_offset": Scene(gap_offset, _SHORT),
    "gap_early": Scene(overflow, _SHORT),
    "final_gap": Scene(final_gap, _AGING, ("expired",)),
    "lapse_replays": Scene(lapse_replays, _LEASED | _MORTAL),
    "fence_all": Scene(fence_all, {"bus_silence": 20.0}),
    "gen_in_key": Scene(gen_in_key, _MORTAL),
    "echo_in_log": Scene(echo_in_log),
    "replay_filters": Scene(replay_filters, _SLOW),
    "n_gap": Scene(overflow, _SHORT),
    "floor_expiry": Scene(final_gap, _AGING, ("expired",)),
    "unsub_state": Scene(unsub_state),
    "ttl_connected": Scene(ttl_connected, _MORTAL),
    "buffer_replay": Scene(buffer_replay),
    "lost_answer": Scene(lost_answer, _AGING, ("expired",)),
    "swept_owner": Scene(swept_owner, _LEASED),
    "left_deaf": Scene(left_deaf),
    "lost_join": Scene(lost_join),
    "deaf_again": Scene(deaf_again, {"redis_timeout": 10.0, "bus_silence": 20.0}),
}

# Those that no story from outside can tell, and why.
UNTOLD = {
    "closed_join": "a verb has to wait just while its connection ends; found by a storm, told by the walk",
    "learn_whole": "batches of two clients have to interleave within one gap; the walk decides that",
    "read_ahead": "a log has to be read just between two messages of the bus; found by a storm, told by the walk",
    "told_is_lost": "a node has to have heard what its log has lost already; the walk decides that",
    "late_admission": "one task of a process has to overtake another; no fault outside decides that",
}
