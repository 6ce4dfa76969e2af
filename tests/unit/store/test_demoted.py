"""A primary that became a replica is left, though it closes nothing; what only it had is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from hub.errors import Unavailable
from hub.message import encode, meta
from hub.node.node import Node
from hub.redis.connection import ReplyError, own_words, pack
from hub.settings import Settings
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.publishing import OnPublished
from tests.support.redis import RedisServer
from tests.support.times import SOON, eventually


@pytest.fixture
def servers() -> Iterator[list[tuple[RedisServer, int]]]:
    """Two servers, each with its TCP port."""
    ports = [free_port(), free_port()]
    options = ("--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
    servers = [(RedisServer("--port", str(port), *options), port) for port in ports]
    yield servers
    for server, _ in servers:
        server.stop()


@pytest.fixture
async def way(servers: Any) -> AsyncIterator[Proxy]:
    """Lead to the first of the servers, as a name does that an operator can change."""
    async with Proxy(servers[0][1]) as proxy:
        yield proxy


def connections(server: RedisServer) -> int:
    """Return how many connections a server has received."""
    return int(server.client.info("stats")["total_connections_received"])


@pytest.mark.parametrize("stale", ["yes", "no"])
async def test_a_replica_is_left_until_it_is_promoted(start, own_redis, stale):
    """Its refusal ends the connection; it is asked again and again what it is, and nobody is ready meanwhile."""
    node = await start(own_redis.url)
    await node.publish("A")
    own_redis.client.config_set("replica-serve-stale-data", stale)
    own_redis.client.replicaof("127.0.0.1", 1)
    with pytest.raises(Unavailable, match="READONLY" if stale == "yes" else "MASTERDOWN"):
        await node.publish("A")
    await eventually(lambda: not node.store.ready)
    asked = connections(own_redis)
    await eventually(lambda: connections(own_redis) >= asked + 3)
    assert not node.store.ready
    own_redis.client.replicaof("NO", "ONE")
    await eventually(lambda: node.store.ready)
    assert node.events.index("lost") < node.events.index("changed")
    assert await node.publish("A")


async def test_those_who_were_refused_together_are_told_the_same(start, own_redis):
    """The connection is not closed before all of them have heard why."""
    node = await start(own_redis.url)
    own_redis.client.replicaof("127.0.0.1", 1)
    told: list[Any] = []
    commands, clock = node.store.commands, node.store.keys.clock
    for _ in range(3):
        packed = pack(("EVALSHA", commands.scripts["renew"].sha, 1, clock, "n", 1, 1, 1, "2"))
        commands.send(packed, told.append)
    await eventually(lambda: len(told) == 3)
    [message] = {error.message for error in told}
    assert message.startswith("Redis refuses: READONLY")


async def test_the_bus_follows_the_commands(start, servers, way):
    """The commands come to another server; the bus leaves the old one, which still serves it, before that is told."""
    node = await start(f"redis://127.0.0.1:{way.port}", bus_silence=10 * SOON)
    bus, channel = node.store.bus, node.store.keys.room_channel("A").encode()
    bus.subscribe(channel)
    await bus.wait_subscribed(channel)
    way.target = servers[1][1]
    servers[0][0].client.client_kill_filter(_type="normal")
    await eventually(lambda: "changed" in node.events)
    assert node.events[:2] == ["lost", "changed"]
    await bus.wait_subscribed(channel, SOON)
    await eventually(lambda: node.store.ready)
    await node.publish("A")
    await eventually(lambda: node.heard)


async def test_what_only_the_demoted_one_had_is_told(start, servers, way):
    """The replica that it became brings newer messages of a past without it: what was seen before counts."""
    (old, _), (new, port) = servers
    settings, url = Settings(redis_prefix="t"), f"redis://127.0.0.1:{way.port}"
    node = Node(settings, url)
    store, seen = node.store, node.store.loss_detector
    refused: list[Any] = []
    header, body = encode("m", b"1", meta("A", None))

    def publish() -> None:
        store.publishing.publish(
            "A", header, body, OnPublished(lambda result, _: refused.append(result))
        )

    await node.start()
    try:
        room = node.rooms.acquire("A")
        await store.bus.wait_subscribed(room.channel)
        publish()
        await eventually(lambda: seen.newest_logged[0])
        elsewhere = await start(new.url)
        old.client.replicaof("127.0.0.1", port)
        publish()
        await eventually(lambda: isinstance(refused[-1], Unavailable))
        await eventually(lambda: old.client.info("replication")["master_link_status"] == "up")
        await eventually(lambda: store.bus.is_subscribed(room.channel))
        newer = await elsewhere.publish("A")
        await eventually(lambda: seen.newest_logged == ("A", newer))
        assert new.client.get("t:{0}:reset") is None
        way.target = port
        await eventually(lambda: new.client.get("t:{0}:reset"))
    finally:
        await node.stop()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("READONLY You can't write against a read only replica.", "READONLY"),
        (
            "ERR Error running script (call to f_01): @user_script:4: @user_script: 4: -READONLY You can't",
            "READONLY",
        ),
        ("ERR Error running script (call to f_01): @user_script:3: no such thing", "ERR"),
    ],
)
def test_redis_6_wraps_what_a_script_ended_with(said, meant):
    assert own_words(ReplyError(said)).split(" ")[0] == meant
