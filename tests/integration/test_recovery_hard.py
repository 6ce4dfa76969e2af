"""Recovery where it is hardest: cut in the middle of things, between hubs, under load."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.expect import exactly, flow, in_order
from tests.support.proxy import Proxy
from tests.support.times import MS, SOON, eventually

TRANSPORTS = [["websocket"], ["polling"], ["polling", "websocket"]]
every_transport = pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)


@every_transport
async def test_cut_in_the_middle_of_a_replay(own_hub, js, raw, room, transports):
    """Cut again and again while the missed messages come: each once, in order, none lost."""
    hub = await own_hub(replay_count=20)
    async with Proxy(hub.port) as proxy:
        client = await js(proxy.url, transports=transports)
        await client.join(room)
        publisher = await raw(hub.url)
        proxy.refuse = True
        proxy.cut()
        pad = "x" * 500
        sent = [[number, pad] for number in range(1000)]
        await asyncio.gather(*(publisher.publish(room, data) for data in sent))
        proxy.refuse = False
        proxy.delay = 5 * MS
        async with asyncio.timeout(3 * SOON):
            while len(client.data()) < 800:
                heard = len(client.data())
                await eventually(lambda heard=heard: len(client.data()) > heard + 50)
                proxy.cut()
        proxy.delay = 0
        await exactly(client, sent, within=2 * SOON)
        assert len(client.connects) >= 3
        assert all(state["recovered"] for state in client.connects[1:])


@every_transport
async def test_thrown_between_two_hubs(hub, own_hub, js, raw, room, transports):
    """Each cut sends the client to the other hub, while both hubs' publishers are at work."""
    other = await own_hub()
    async with Proxy(hub.port) as proxy:
        client = await js(proxy.url, transports=transports)
        await client.join(room)
        here, there = await raw(hub.url), await raw(other.url)
        witness = await raw(other.url)
        await witness.join(room)
        async with flow(here, room), flow(there, room):
            for turn in range(8):
                proxy.target = other.port if turn % 2 == 0 else hub.port
                heard = len(client.data())
                (proxy.cut if turn % 3 else proxy.cut_client_side)()
                await eventually(lambda heard=heard: len(client.data()) > heard + 10)
        await eventually(lambda: client.named("m") == witness.named("m"))
        assert client.named("m") == witness.named("m")
        in_order(client)
        assert all(state["recovered"] for state in client.connects[1:])


async def test_one_order_for_everybody(hub, own_hub, js, raw, stock, room):
    """Publishers and subscribers at two hubs, over all transports, binary among the messages."""
    other = await own_hub()
    rooms = [room, room + "b"]
    listeners = [
        await js(hub.url, transports=["websocket"]),
        await js(other.url, transports=["polling"]),
        await raw(hub.url, "polling"),
        await raw(other.url),
    ]
    for listener in listeners:
        await listener.join(*rooms)
    script = await stock(other.url, "polling")
    for each in rooms:
        await script.sio.call("subscribe", {"room": each})
    publishers = [await raw(hub.url), await raw(other.url), await raw(hub.url, "polling")]

    async def publish(index):
        for number in range(60):
            data = b"%d" % number if number % 9 == index else [index, number]
            await publishers[index].publish(rooms[number % 2], data)

    await asyncio.gather(*(publish(index) for index in range(3)))
    for listener in listeners:
        await eventually(lambda listener=listener: len(listener.data()) == 180)
        in_order(listener)
        assert listener.named("m") == listeners[0].named("m")
    await eventually(lambda: len(script.messages) == 180)
    assert script.messages == listeners[0].named("m")


@every_transport
async def test_small_batches(own_hub, js, raw, room, transports):
    """A replay in batches of 3 messages, with large and binary ones that fill a batch alone."""
    hub = await own_hub(replay_count=3, replay_bytes=2048)
    async with Proxy(hub.port) as proxy:
        client = await js(proxy.url, transports=transports)
        await client.join(room)
        proxy.refuse = True
        proxy.cut()
        publisher = await raw(hub.url)
        sent = [
            ("x" * 5000 if number % 7 == 0 else [b"y" * 3000, b""] if number % 5 == 0 else number)
            for number in range(60)
        ]
        for data in sent:
            await publisher.publish(room, data)
        proxy.refuse = False
        async with flow(publisher, room) as more:
            await eventually(lambda: len(client.data()) > len(sent) + 20)
        assert client.connects[1]["recovered"] is True
        await exactly(client, sent + more)


async def test_many_clients_at_once(own_hub, raw, room):
    """Fifty sessions lose the hub together and come back together: each gets everything."""
    hub = await own_hub()
    publisher = await raw(hub.url)
    clients = [await raw(hub.url, ("websocket", "polling")[n % 2]) for n in range(50)]
    await asyncio.gather(*(each.join(room) for each in clients))
    for number in range(20):
        await publisher.publish(room, number)
    await asyncio.gather(*(exactly(each, list(range(20))) for each in clients))
    await hub.restart()
    publisher = await raw(hub.url)
    for number in range(20, 40):
        await publisher.publish(room, number)

    async def back(client):
        last = client.named("m")[-1][-1]
        auth = {"pid": client.reply["pid"], "offset": last}
        again = await raw(hub.url, client.transport, auth)
        await exactly(again, list(range(20, 40)))
        session, _ = await again.session()
        assert (session["resumed"], session["missed"]) == ("pid", 20)

    await asyncio.gather(*(back(client) for client in clients))


async def test_a_dead_hubs_sessions_are_parked(own_hub, raw, redis_server, room):
    """A hub that was killed leaves its sessions to the others, which give them an inbox."""
    prefix = f"swept-{room[-6:]}"
    settings = {"prefix": prefix, "lease": 600 * MS, "log_length": 50, "inbox_length": 20}
    dead, other = await own_hub(**settings), await own_hub(**settings)
    client = await raw(dead.url)
    await client.join(room)
    session, offset = await client.session()
    dead.kill()
    redis = redis_server.client
    key = f"{prefix}:{{0}}:session:{session['client_id']}"
    await eventually(lambda: redis.hget(key, "away") == "1")
    publisher = await raw(other.url)
    for number in range(100):
        await publisher.publish(room, number)
    # Bounded while nobody is there (PROTOCOL §5).
    (inbox,) = redis.scan_iter(f"{prefix}:*:inbox:{session['client_id']}:*")
    assert redis.llen(inbox) <= 20 + 1
    (log,) = redis.scan_iter(f"{prefix}:*:room:{room}:log")
    assert redis.xlen(log) == 50
    again = await raw(other.url, auth={"pid": client.reply["pid"], "offset": offset})
    await exactly(again, list(range(50, 100)))
    assert [args[0]["dropped"] for args in again.named("hub:gap")] == [50]


async def test_a_named_session_expires(own_hub, raw, redis_server, room, name):
    """After its life (24 hours; here less) a name starts anew: no rooms, nothing recovered."""
    hub = await own_hub(named_life=300 * MS)
    client = await raw(hub.url, auth={"client_id": name})
    await client.join(room)
    await client.send("1")
    key = f"{hub.prefix}:{{0}}:session:{name}"
    await eventually(lambda: not redis_server.client.exists(key))
    again = await raw(hub.url, auth={"client_id": name})
    session, _ = await again.session()
    assert (session["resumed"], session["rooms"]) == (None, ["@" + name])
    pid = await raw(hub.url, auth={"pid": client.reply["pid"]})
    assert (await pid.session())[0]["client_id"] != name


async def test_an_older_offset_is_believed(hub, raw, room):
    """A client that returns an offset from before what it was sent gets it all again."""
    client = await raw(hub.url)
    await client.join(room)
    publisher = await raw(hub.url)
    offsets = [await publisher.publish(room, number) for number in range(10)]
    await exactly(client, list(range(10)))
    for mark in (6, 2, 8):
        auth = {"pid": client.reply["pid"], "offset": offsets[mark]}
        again = await raw(hub.url, auth=auth)
        await exactly(again, list(range(mark + 1, 10)))
        session, position = await again.session()
        assert (position, session["missed"]) == (offsets[mark], 9 - mark)


async def test_unrelated_traffic_moves_nothing(hub, js, proxy, raw, room):
    """Messages of other rooms, a restart of the clock's worth of them, do not cost recovery."""
    client = await js(proxy.url, transports=["websocket"])
    await client.join(room)
    publisher = await raw(hub.url)
    await asyncio.gather(*(publisher.publish(room + "x", number) for number in range(300)))
    proxy.refuse = True
    proxy.cut()
    await eventually(lambda: client.disconnects)
    await asyncio.gather(*(publisher.publish(room + "x", number) for number in range(300)))
    await publisher.publish(room, "mine")
    proxy.refuse = False
    assert (await client.back())["recovered"] is True
    await exactly(client, ["mine"])
    assert client.sessions[1]["missed"] == 1
    assert client.named("hub:gap") == []
