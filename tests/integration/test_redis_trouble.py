"""Connections to Redis that break under way: nothing acknowledged is lost, repeated or reordered."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.support.expect import exactly, in_order
from tests.support.times import MS, SOON, UNIT, eventually, eventually_true

KINDS = ("pubsub", "normal", "both")


@pytest.fixture
async def fragile(own_redis, own_hub):
    """Two hubs on a Redis of their own, quick to notice."""
    settings = {"redis_url": own_redis.url, "prefix": "f", "redis_timeout": UNIT}
    return [await own_hub(bus_silence=500 * MS, **settings) for _ in range(2)]


@pytest.mark.parametrize("kind", KINDS)
async def test_connections_to_redis_are_killed(own_redis, fragile, js, raw, client, room, kind):
    """Bus and command connections are cut again and again while messages flow through two hubs."""
    here, there = fragile
    page = await js(here.url, transports=["websocket"])
    poller = await raw(there.url, "polling")
    reader = await raw(there.url)
    for each in (page, poller, reader):
        await each.join(room)
    writers = [await client(hub.url, answer_timeout=3 * UNIT) for hub in fragile]
    done = asyncio.Event()

    async def write(writer, index):
        for number in range(80):
            await writer.publish(room, "m", [index, number])

    async def trouble():
        while not done.is_set():
            for name in ("pubsub", "normal") if kind == "both" else (kind,):
                await asyncio.to_thread(own_redis.client.client_kill_filter, _type=name)
            heard = len(reader.data())
            await eventually(lambda heard=heard: done.is_set() or len(reader.data()) > heard + 25)

    troubling = asyncio.create_task(trouble())
    try:
        async with asyncio.timeout(4 * SOON):
            await asyncio.gather(*(write(writer, index) for index, writer in enumerate(writers)))
    finally:
        done.set()
        await troubling
    everybody = (page, poller, reader)
    await eventually(
        lambda: all(len(each.data()) >= 160 for each in everybody),
        within=2 * SOON,
        what=lambda: [len(each.data()) for each in everybody],
    )
    for each in everybody:
        in_order(each)
        assert each.named("m") == reader.named("m")
        for index in range(2):
            mine = [number for who, number in each.data() if who == index]
            assert mine == list(range(80))
        assert each.named("hub:gap") == []


async def test_redis_loses_everything(own_redis, fragile, js, raw, room):
    """A Redis that comes back empty: sessions are told so, and the order goes on from there."""
    here, _ = fragile
    page = await js(here.url, transports=["websocket"])
    await page.join(room)
    publisher = await raw(here.url)
    await publisher.publish(room, 1)
    await exactly(page, [1])
    before = page.named("m")[-1][-1]
    await asyncio.to_thread(own_redis.kill)
    for file in own_redis.directory.glob("appendonlydir/*"):
        file.unlink()
    await asyncio.to_thread(own_redis.start)

    async def works():
        fresh = await raw(here.url)
        await fresh.join(room + "x")
        return fresh

    fresh = None
    async with asyncio.timeout(2 * SOON):
        while fresh is None:
            try:
                fresh = await works()
            except (AssertionError, OSError):
                await asyncio.sleep(50 * MS)
    # Offsets are times, and never those that were given out before.
    assert int(await fresh.publish(room + "x", 2)) > int(before)
    await exactly(fresh, [2])
    # The page is in its room still and told of the reset, or knows that it has a new session.
    await fresh.publish(room, 3)
    await eventually(
        lambda: page.data()[-1:] == [3] or len(page.sessions) > 1,
        what=lambda: (page.events, page.connects, page.disconnects, page.errors),
    )


async def test_redis_becomes_a_replica_and_a_primary_again(own_redis, own_hub, raw, room):
    """It closes no connection: the hub is not ready until it is promoted, and then serves those who stayed."""
    hub = await own_hub(redis_url=own_redis.url, prefix="d")
    reader, publisher = await raw(hub.url), await raw(hub.url)
    await reader.join(room)
    await publisher.publish(room, 1)

    async def ready():
        async with aiohttp.ClientSession() as http, http.get(hub.url + "/readyz") as answer:
            return answer.status == 200

    async def not_ready():
        return not await ready()

    await asyncio.to_thread(own_redis.client.replicaof, "127.0.0.1", 1)
    with pytest.raises(AssertionError, match="READONLY"):
        await publisher.publish(room, 2)
    await eventually_true(not_ready)
    await asyncio.to_thread(own_redis.client.replicaof, "NO", "ONE")
    await eventually_true(ready)
    await publisher.publish(room, 3)
    await exactly(reader, [1, 3])
