"""A connection that its client has given up does not put out the one that it has."""

from __future__ import annotations

import asyncio

import aiohttp

from tests.chaos.drill import LATE, Drill, Scene, play
from tests.support.raw import Raw
from tests.support.socketio_wire import CONNECT, encode, join_payload
from tests.support.times import UNIT


async def late_post(d: Drill) -> None:
    """Over polling it asks hub 0 for its session, gives up, and gets it from hub 1; then Redis hears hub 0's question."""
    m = await d.client("A", hub=1)
    await d.go(m)
    session = d.session(m)
    takes = int(d.redis.hget(session, "takes"))
    d.wire.late["commands", "up"] = 2 * LATE
    given_up = await Raw(d.cluster.hubs[0].url, "polling").open()
    await given_up.drop()
    async with aiohttp.ClientSession() as http:
        connect = join_payload(encode(CONNECT, {"pid": m._pid, "offset": str(m.offset)}))
        asking = asyncio.create_task(http.post(given_up.session_url, data=connect))
        await asyncio.sleep(LATE / 2)
        asking.cancel()
    d.wire.late.clear()  # for what is asked behind it
    await d.back(m)
    await d.until(lambda: int(d.redis.hget(session, "takes")) == takes + 2)
    await asyncio.sleep(2 * LATE)
    await d.say("A")


async def test_a_connect_that_was_given_up_puts_nobody_out():
    """It is over when its POST is, and the connection that it replaced comes back."""
    assert (
        await play(Scene(late_post, {"ping_timeout": 20 * UNIT, "redis_timeout": 10 * UNIT}), None)
        == []
    )
