"""The bus tells messages and confirmations in the order in which they were heard, and of no other database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hub.errors import Unavailable
from hub.redis.bus import Bus
from hub.redis.connection import ReplyError
from tests.support.times import SOON, eventually


class SilentListener:
    """Takes what the bus reports, and does nothing."""

    def on_messages(self, messages: list[tuple[bytes, bytes]]) -> None: ...

    def on_bus_lost(self) -> None: ...

    def on_bus_back(self) -> None: ...


def test_what_comes_before_a_confirmation_is_told_before_it():
    """The end of an earlier subscription, in one read with the beginning of the next, is not taken for part of it."""
    told: list[tuple[bytes, bool]] = []

    class Listener(SilentListener):
        def on_messages(self, messages: list[tuple[bytes, bytes]]) -> None:
            told.extend((payload, bus.is_subscribed(b"c")) for _, payload in messages)

    bus = Bus("redis://127.0.0.1:1", Listener(), 4.0)
    sent: list[bytes] = []

    class Connection:
        def send(self, packed: bytes, _: Any) -> None:
            sent.append(packed)

    bus._connection, bus.up = Connection(), True  # type: ignore[assignment]
    bus.subscribe(b"c")
    bus.on_pushed([[b"subscribe", b"c", 1], [b"message", b"c", b"1"]])
    bus.unsubscribe(b"c")
    bus.subscribe(b"c")
    assert len(sent) == 3
    bus.on_pushed(
        [
            [b"message", b"c", b"2"],
            [b"unsubscribe", b"c", 0],
            [b"subscribe", b"c", 1],
            [b"message", b"c", b"4"],
        ]
    )
    assert told == [(b"1", True), (b"2", False), (b"4", True)]


async def test_other_databases_of_one_server_are_not_heard(start, server):
    """Redis has its channels in common for all of them: neither messages nor what is said to all nodes gets across."""
    nodes = [await start(f"{server.url}?db={number}") for number in (0, 3, 13)]
    for node in nodes:
        keys = node.store.keys
        for channel in (keys.room_channel("A").encode(), keys.all_nodes_channel.encode()):
            node.store.bus.subscribe(channel)
            await node.store.bus.wait_subscribed(channel)
    for node in nodes:
        offset = await node.publish("A", data=id(node))
        node.store.loss_detector.newest = offset + 1
        assert await node.store.loss_detector.detect()
    for node in nodes:
        keys = node.store.keys
        await eventually(lambda node=node: len(node.heard) >= 2)
        # Behind all that the others have said.
        await node.publish("A", data="last")
        await eventually(lambda node=node: "last" in node.heard[-1][1])
        assert [channel for channel, _ in node.heard] == [
            keys.room_channel("A"), keys.all_nodes_channel, keys.room_channel("A"),
        ]  # fmt: skip
    assert nodes[0].store.keys.room_channel("A") == "t:{0}:bus:room:A"


async def test_a_subscription_that_redis_refuses_is_told(start, own_redis, caplog):
    """To whoever waits for it, and at once; further attempts come at growing intervals until Redis takes one."""
    acl = own_redis.client.execute_command
    acl("ACL", "SETUSER", "hub", "on", ">open", "~t:*", "resetchannels", "&*:nodes", "+@all")
    node = await start(f"unix://hub:open@{own_redis.socket}")
    bus, channel = node.store.bus, node.store.keys.room_channel("A").encode()
    clock = asyncio.get_running_loop().time
    refused: list[float] = []
    bus.subscribe(channel)
    while len(refused) < 6:
        with pytest.raises(Unavailable, match="NOPERM"):
            await bus.wait_subscribed(channel)
        refused.append(clock())
    # Jittered: half of 0.05 s, 0.1, 0.2, 0.4, 0.8 at least.
    assert refused[-1] - refused[0] > 0.75
    told = {r.error.split(" ")[0] for r in caplog.records if "refuses" in r.message}
    assert told == {"NOPERM"}
    acl("ACL", "SETUSER", "hub", "allchannels")
    await eventually(lambda: bus.is_subscribed(channel))


async def test_a_channel_that_may_not_be_heard_spoils_no_other(start, own_redis):
    """Once nobody wants it any more, which its refusal sees to, the others are heard again."""
    acl = own_redis.client.execute_command
    acl(
        "ACL", "SETUSER", "hub", "on", ">open", "~t:*", "resetchannels", "&*:A", "&*:nodes", "+@all"
    )
    node = await start(f"unix://hub:open@{own_redis.socket}")
    bus = node.store.bus
    heard, refused = (node.store.keys.room_channel(room).encode() for room in "AB")
    bus.subscribe(heard)
    await bus.wait_subscribed(heard)
    bus.subscribe(refused)
    with pytest.raises(Unavailable, match="NOPERM"):
        await bus.wait_subscribed(refused)
    assert node.events == ["lost"]
    bus.unsubscribe(refused)
    await bus.wait_subscribed(heard, SOON)
    await node.publish("A")
    await eventually(lambda: node.heard)


def test_what_was_heard_before_a_refusal_is_told():
    """Also if both came in one read; nothing that comes behind it is."""
    told: list[Any] = []

    class Listener(SilentListener):
        def on_messages(self, messages: list[tuple[bytes, bytes]]) -> None:
            told.extend(messages)

        def on_bus_lost(self) -> None:
            told.append("lost")

    bus = Bus("redis://127.0.0.1:1", Listener(), 4.0)

    class Connection:
        def send(self, *_: Any) -> None: ...

        def close(self) -> None:
            bus.on_connection_lost()

    bus._connection, bus.up = Connection(), True  # type: ignore[assignment]
    bus.subscribe(b"c")
    bus.on_pushed(
        [
            [b"subscribe", b"c", 1],
            [b"message", b"c", b"1"],
            ReplyError("NOPERM"),
            [b"message", b"c", b"2"],
        ]
    )
    assert told == [(b"c", b"1"), "lost"]
