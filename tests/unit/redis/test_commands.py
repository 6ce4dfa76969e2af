"""The command connection: order above all, also where Redis has forgotten the scripts; nothing is repeated."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hub.errors import Unavailable
from tests.support.publishing import OnPublished
from tests.support.redis import RedisServer
from tests.support.times import MS, SOON, UNIT, eventually


async def bodies(server: RedisServer, room: str = "A") -> list[int]:
    entries = server.client.xrange("t:{0}:room:" + room + ":log")
    return [int(fields["m"].split(",")[1]) for _, fields in entries]


@pytest.mark.parametrize("when", ["before", "amid"])
async def test_forgotten_scripts_change_no_order(node, server, when):
    """SCRIPT FLUSH before or amid pipelined publishes: all are carried out, once, in the order sent."""
    await node.publish("A", 0)
    if when == "before":
        server.client.script_flush()
        await node.publish_all([("A", i) for i in range(1, 200)])
    else:
        flush = [asyncio.create_task(node.store.commands.call("SCRIPT", "FLUSH")) for _ in range(1)]
        await asyncio.sleep(0)
        await node.publish_all([("A", i) for i in range(1, 200)])
        await asyncio.gather(*flush)
    assert await bodies(server) == list(range(200))


async def test_forgotten_amid_and_loaded_by_another(start, server):
    """Another node loads the scripts while some are refused: what would come out of order is given up instead."""
    one, two = await start(), await start()
    for turn in range(30):
        results: list[Any] = []
        batch = [("A", turn * 100 + i) for i in range(20)]
        task = asyncio.create_task(one.publish_all(batch))
        server.client.script_flush()
        await two.publish("B", turn)
        try:
            results = await task
        except Unavailable:
            await asyncio.sleep(0)
        stored = [n for n in await bodies(server) if n // 100 == turn]
        assert stored == sorted(set(stored))
        if results:
            assert len(stored) == 20


async def test_a_lost_connection_leaves_the_outcome_open(node, server):
    """Whoever waits hears that nobody knows; nothing is sent twice; the next command goes through."""
    server.pause()
    try:
        waiting = [asyncio.ensure_future(node.publish("A", i)) for i in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        node.store.commands.cut()
        for each in waiting:
            with pytest.raises(Unavailable, match="unknown"):
                await each
        with pytest.raises(Unavailable):
            await node.publish("A", 9)
    finally:
        server.resume()
    await eventually(lambda: node.store.ready)
    await node.publish("A", 10)
    stored = await bodies(server)
    assert stored[-1] == 10, (
        "nothing of the lost connection takes effect behind the new one's commands"
    )
    assert len(stored) == len(set(stored))


async def test_nobody_uses_a_connection_before_it_was_looked_at(node, server):
    """A server that must not be used gets no command."""
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        node.store.commands.cut()
        for _ in range(20):
            with pytest.raises(Unavailable):
                await node.publish("A")
            await asyncio.sleep(10 * MS)
    finally:
        server.client.config_set("maxmemory-policy", "noeviction")
    await eventually(lambda: node.store.ready, within=2 * SOON)
    assert await node.publish("A")


async def test_a_bus_that_was_lost_hears_everything_wanted_again(node):
    """Also what was wanted while it was away, and not what was dropped."""
    bus = node.store.bus
    names = [f"t:{{0}}:bus:room:r{i}".encode() for i in range(1200)]
    for name in names[:-1]:
        bus.subscribe(name)
    for name in names[:-1]:
        await bus.wait_subscribed(name)
    bus.cut()
    assert node.events == ["lost"]
    assert not bus.is_subscribed(names[0])
    bus.subscribe(names[-1])
    bus.unsubscribe(names[5])
    for name in names:
        await asyncio.wait_for(bus.wait_subscribed(name), SOON)
    assert node.events == ["lost", "back"]
    assert bus.is_subscribed(names[-1])
    assert not bus.is_subscribed(names[5])
    await node.publish("r1199")
    await node.publish("r5")
    await node.publish("r0")
    await eventually(lambda: len(node.heard) == 2)
    assert [channel for channel, _ in node.heard] == [names[-1].decode(), names[0].decode()]


async def test_a_channel_wanted_anew_waits_for_its_last_confirmation(node):
    """Dropped and wanted again in one turn: heard only when the last command was confirmed."""
    bus, name = node.store.bus, b"t:{0}:bus:room:A"
    bus.subscribe(name)
    await bus.wait_subscribed(name)
    bus.unsubscribe(name)
    bus.subscribe(name)
    assert not bus.is_subscribed(name)
    await bus.wait_subscribed(name)
    await node.publish("A")
    await eventually(lambda: node.heard)


async def test_nobody_waits_for_a_channel_that_is_not_wanted(node, server):
    """Who waits for a channel that is dropped meanwhile goes on."""
    server.pause()
    try:
        node.store.bus.subscribe(b"x")
        waiting = asyncio.ensure_future(node.store.bus.wait_subscribed(b"x"))
        await asyncio.sleep(0)
        node.store.bus.unsubscribe(b"x")
        await asyncio.wait_for(waiting, 5 * UNIT)
    finally:
        server.resume()


async def test_who_waits_for_a_channel_waits_only_so_long(node, server):
    server.pause()
    try:
        node.store.bus.subscribe(b"x")
        waiting = asyncio.ensure_future(node.store.bus.wait_subscribed(b"x"))
        with pytest.raises(Unavailable, match="the bus is away"):
            await node.store.bus.wait_subscribed(b"x", 0.05)
        assert not waiting.done()
    finally:
        server.resume()
    await asyncio.wait_for(waiting, 5 * UNIT)


async def test_a_silent_bus_is_made_anew(start):
    """The node's own probes keep it alive; without them it is given up."""
    node = await start(bus_silence=200 * MS)
    await eventually(lambda: node.events[:2] == ["lost", "back"])


async def test_a_restarted_server_is_noticed(start, own_redis):
    """Another run of the server is told as a change; the same one coming back is not."""
    node = await start(own_redis.url)
    node.store.commands.cut()
    await eventually(lambda: node.store.ready)
    assert "changed" not in node.events
    own_redis.kill()
    own_redis.start()
    await eventually(lambda: "changed" in node.events, within=2 * SOON)


async def test_nobody_joins_a_group_that_was_answered(node):
    """The connection is lost between two publishes of one turn: both are told, and neither waits for ever."""
    told: list[Any] = []

    def publish() -> None:
        node.store.publishing.publish(
            "A", b"3 5 5 * 0 *", b'"m",1', OnPublished(lambda result, _: told.append(result))
        )

    publish()
    node.store.commands._connection.close()
    publish()
    assert [type(result) for result in told] == [Unavailable, Unavailable]
