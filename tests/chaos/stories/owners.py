"""How long sessions live, and whose they are."""

from __future__ import annotations

import asyncio
import contextlib

from tests.chaos.drill import LATE, Brittle, Drill, Scene
from tests.chaos.member import LOST
from tests.support.raw import Raw
from tests.support.socketio_wire import CONNECT, encode
from tests.support.times import UNIT, eventually


async def closed_join(d: Drill) -> None:
    """It joins again while the bus is away, and is lost while its hub cannot park it."""
    m = await d.client("A")
    d.wire.late["bus", "up"] = 4 * LATE
    d.wire.cut_one("bus")
    await asyncio.sleep(LATE)
    joining = asyncio.create_task(m.ask("subscribe", room="A"))
    await asyncio.sleep(LATE / 4)
    await d.say("A")
    d.wire.refuse = True
    d.wire.cut_one("commands")
    await m.stop()
    joining.cancel()
    await asyncio.sleep(LATE / 4)
    d.wire.refuse = False
    await d.until(lambda: d.listeners("A"))
    await asyncio.sleep(LATE)
    await d.back(m)


async def late_admission(d: Drill) -> None:
    """Two connections take its session, and the first of them is let in last."""
    m = await d.client("A")
    await d.go(m)
    session = d.session(m)
    takes = d.redis.hget(session, "takes")
    first = await Raw(d.cluster.hubs[0].url).open()
    coming = asyncio.create_task(first.connect({"pid": m._pid}))
    await d.until(lambda: d.redis.hget(session, "takes") != takes)
    await d.back(m)
    await d.say("A")
    await asyncio.sleep(3 * LATE)
    d.expect(d.began(m) == 2, "sent away, although nobody has replaced it")
    coming.cancel()
    await first.drop()


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


def bus_ports(d: Drill) -> set[int]:
    """Return where the hubs' buses come from, as Redis sees it."""
    listed = d.redis.client_list("pubsub")
    return {int(entry["addr"].rpartition(":")[2]) for entry in listed}


async def fence_all(d: Drill) -> None:
    """A replaced connection, whose hub has not heard of that, says goodbye for good."""
    m = await d.client("A")
    assert m._pid is not None
    await d.go(m)
    old = await Raw(d.cluster.hubs[0].url).open()
    await old.connect({"pid": m._pid, "offset": str(m.offset)})
    d.wire.swallow(bus_ports(d))
    m.url = d.cluster.doors[1].url
    await d.back(m)
    await old.send("41")
    await asyncio.sleep(LATE)
    await old.drop()
    await m.stop()
    await d.back(m)


async def ack_stored(d: Drill) -> None:
    """It acknowledges over a connection that was replaced, whose hub has not heard of that."""
    m = await d.client("A", manual=True)
    await d.say("A")
    await d.heard(m)
    d.wire.swallow(bus_ports(d))
    newer = await Raw(d.cluster.hubs[1].url).open()
    await newer.connect({"pid": m._pid, "acks": "manual"})
    with contextlib.suppress(*LOST):  # no answer, and then the connection is ended
        async with asyncio.timeout(LATE):
            await m.acknowledge_once()
    await newer.drop()
    await m.stop()
    m.url = d.cluster.doors[1].url
    await d.back(m)


async def served_first(d: Drill) -> None:
    """It asks hub 0, gets its session from hub 1, and gives hub 0 up, which Redis has heard by now, and the bus has not."""
    m = await d.client("A", hub=1)
    await d.go(m)
    session = d.session(m)
    takes = int(d.redis.hget(session, "takes"))
    given_up = await Raw(d.cluster.hubs[0].url).open()
    d.wire.late["commands", "up"] = 2 * LATE
    d.wire.late["bus", "down"] = 10 * LATE
    await given_up.send(*encode(CONNECT, {"pid": m._pid, "offset": str(m.offset)}))
    await asyncio.sleep(LATE / 2)
    d.wire.late["commands", "up"] = 0.0
    await d.back(m)
    await d.until(lambda: int(d.redis.hget(session, "takes")) == takes + 2)
    await given_up.drop()
    began = d.began(m)
    await d.until(lambda: m.fault or d.began(m) > began)
    d.wire.late.clear()
    await d.say("A")


async def log_in_as_bob(d: Drill) -> tuple[Brittle, int]:
    """Let a message for bob pass while he is away, and let a guest who has got it log in as him on the same socket."""
    bob = await d.client("A", name="bob")
    await d.go(bob)
    guest = await d.client("A")
    await d.say("A")
    await d.heard(guest)
    await d.go(guest)
    d.members.remove(guest)
    bob._pid, bob.offset = guest._pid, guest.offset
    return bob, guest.offset


async def foreign_offset(d: Drill) -> None:
    """Somebody else logs in on a socket, which sends the pid and the offset of the session before."""
    bob, _ = await log_in_as_bob(d)
    await d.back(bob)


async def carried_offset(d: Drill) -> None:
    """The same, and the connection is lost with no more than the CONNECT reply."""
    bob, offset = await log_in_as_bob(d)
    lost = await Raw(d.cluster.hubs[0].url).open()
    reply = await lost.connect(bob._auth())
    await lost.drop()
    await d.away(bob)
    bob._pid, bob.offset = reply["pid"], offset
    await d.back(bob)


_MORTAL = {"named_life": 2 * UNIT, "anonymous_life": 2 * UNIT}
_LEASED = {"lease": UNIT, "bus_silence": 20 * UNIT, "ping_timeout": 20 * UNIT}

SCENES = {
    "lapse_replays": Scene(lapse_replays, _LEASED | _MORTAL),
    "fence_all": Scene(fence_all, {"bus_silence": 20 * UNIT}),
    "ttl_connected": Scene(ttl_connected, _MORTAL),
    "swept_owner": Scene(swept_owner, _LEASED),
    "closed_join": Scene(closed_join, {"redis_timeout": 10 * UNIT, "bus_silence": 20 * UNIT}),
    "ack_stored": Scene(ack_stored, {"bus_silence": 20 * UNIT}),
    "served_first": Scene(
        served_first,
        {"redis_timeout": 10 * UNIT, "bus_silence": 20 * UNIT, "ping_timeout": 20 * UNIT},
    ),
    "foreign_offset": Scene(foreign_offset),
    "carried_offset": Scene(carried_offset),
    "late_admission": Scene(late_admission, hold="takes without an offset"),
}
