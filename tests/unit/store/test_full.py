"""A full Redis: what adds is refused and leaves nothing half done; what takes away still works."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hub.errors import Unavailable
from tests.support.redis import RedisServer
from tests.support.times import MS


def contents(server: RedisServer) -> dict[str, bytes]:
    return {
        name: server.client.type(name) + str(_value(server, name))
        for name in server.client.keys("t:*")
    }


def _value(server: RedisServer, name: str) -> Any:
    client = server.client
    read: dict[str, Callable[[], Any]] = {
        "string": lambda: client.get(name),
        "hash": lambda: sorted(client.hgetall(name).items()),
        "list": lambda: client.lrange(name, 0, -1),
        "set": lambda: sorted(client.smembers(name)),
        "stream": lambda: client.xrange(name),
    }
    return read[client.type(name)]()


@pytest.fixture
async def full(start: Any, server: RedisServer) -> Any:
    """A node with a live and an away session, then no memory left."""
    node = await start()
    live, away = await node.claim("c"), await node.claim("d")
    await node.join(live, "c", "A", "B")
    await node.join(away, "d", "A")
    await node.store.sessions.park(away.client_id, "d", 0, gone=False)
    await node.publish_all([("A", 1), ("B", 2)])
    server.client.config_set("maxmemory", 1)
    try:
        yield node, live, away
    finally:
        server.client.config_set("maxmemory", 0)


@pytest.mark.parametrize(
    "options", [{}, {"volatile": True}, {"ttl": 5}, {"dedupe": "t:{0}:dedupe:x"}]
)
async def test_a_publish_is_refused_whole(full, server, options):
    """Nothing of it is there: no offset, no entry, no reference, no key, and nothing was told."""
    node, *_ = full
    channel = node.store.keys.room_channel("A").encode()
    node.store.bus.subscribe(channel)
    await node.store.bus.wait_subscribed(channel)
    before = contents(server)
    with pytest.raises(Unavailable, match="OOM"):
        await node.publish("A", **options)
    assert contents(server) == before
    server.client.config_set("maxmemory", 0)
    await node.publish("A")
    while not node.heard:  # the answer and the bus have no order between them
        await asyncio.sleep(10 * MS)
    assert len(node.heard) == 1


async def test_subscribing_and_proving_are_refused_whole(full, server):
    """They add something: the client hears that it may try again."""
    node, live, _ = full
    before = contents(server)
    with pytest.raises(Unavailable):
        await node.join(live, "c", "C")
    with pytest.raises(Unavailable):
        await node.store.sessions.commit([(live.client_id, "c", live.position + 1)])
    assert contents(server) == before


async def test_sessions_go_on(full, server):
    """They are claimed, parked, replayed and ended, and rooms are left: nobody is lost for want of memory."""
    node, live, away = full
    await node.store.sessions.park(live.client_id, "c", 0, gone=True)
    assert server.client.scard("t:{0}:room:B:away") == 1
    again = await node.claim("e", pid=live.pid)
    await node.store.sessions.unsubscribe(live.client_id, "e", "B")
    offsets, _ = await node.all(live.client_id, "e", again.position)
    assert len(offsets) == 1
    assert (await node.claim("f")).how == "new"
    offsets, _ = await node.all(away.client_id, "d", away.position)
    assert len(offsets) == 1
    await node.store.sessions.end_session(away.client_id, "d")
    await node.store.leases.release()
    await node.store.leases.sweep()


async def test_a_replay_goes_on(start, server):
    """A later batch, too, stores up to where gaps are reported."""
    node = await start(replay_count=1)
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A", "B")
    await node.publish_all([("A", 1), ("A", 2), ("B", 3)])
    replay = node.store.sessions.replay
    first = await replay(claimed.client_id, "c", claimed.position)
    server.client.delete("t:{0}:room:B:log")
    server.client.config_set("maxmemory", 1)
    try:
        second = await replay(claimed.client_id, "c", first.position, cursor=first.cursor)
    finally:
        server.client.config_set("maxmemory", 0)
    assert [gap.room for gap in second.gaps] == ["B"]
    told = server.client.hget(f"t:{{0}}:session:{claimed.client_id}", "told")
    assert int(told) == second.gaps[0].before - 1


async def test_nodes_live_on(full, server):
    """They renew their leases, and one that had lapsed is told so: nobody takes them for dead and parks everybody."""
    node, live, _ = full
    lease = f"t:{{0}}:node:{node.store.node_id}"
    assert not await node.store.leases.renew()
    assert server.client.sismember("t:{0}:nodes", node.store.node_id)
    server.client.pexpire(lease, 1000)
    assert await node.store.leases.renew()
    assert server.client.pttl(lease) > 1000
    assert await node.store.sessions.touch([(live.client_id, "c")]) == 1
    assert await node.store.leases.sweep() == 0
