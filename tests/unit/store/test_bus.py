"""The bus tells messages and confirmations in the order in which they were heard, and of no other database."""

from __future__ import annotations

from typing import Any

from hub.store.bus import Bus
from tests.support.times import eventually


def test_what_comes_before_a_confirmation_is_told_before_it():
    """The end of an earlier subscription, in one read with the beginning of the next, is not taken for part of it."""
    told: list[tuple[bytes, bool]] = []

    def hear(messages: list[tuple[bytes, bytes]]) -> None:
        told.extend((payload, bus.hears(b"c")) for _, payload in messages)

    bus = Bus("redis://127.0.0.1:1", hear, print, print, 4.0)
    sent: list[bytes] = []

    class Link:
        def send(self, packed: bytes, _: Any) -> None:
            sent.append(packed)

    bus._link, bus.up = Link(), True  # type: ignore[assignment]
    bus.want(b"c")
    bus._pushed([[b"subscribe", b"c", 1], [b"message", b"c", b"1"]])
    bus.drop(b"c")
    bus.want(b"c")
    assert len(sent) == 3
    bus._pushed(
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
            node.store.bus.want(channel)
            await node.store.bus.confirmed(channel)
    for node in nodes:
        offset = await node.publish("A", data=id(node))
        node.store.seen.newest = offset + 1
        assert await node.store.rollback()
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
