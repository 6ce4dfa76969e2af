"""The stock JavaScript client, unmodified, gets what it missed: once, in order, `recovered` true."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.support.expect import exactly, flow, in_order
from tests.support.proxy import Proxy
from tests.support.times import MS, SOON, UNIT, eventually, eventually_true

TRANSPORTS = [["websocket"], ["polling"], ["polling", "websocket"]]
every_transport = pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)


@pytest.fixture
async def publisher(hub, raw):
    return await raw(hub.url)


async def away(js, proxy, how="cut"):
    """Take the connection away and keep it away; return when the client knows."""
    before = len(js.disconnects)
    proxy.refuse = True
    getattr(proxy, how)()
    await eventually(lambda: len(js.disconnects) > before)


async def cut_until_noticed(js, proxy, how):
    """Cut; a polling client has moments without any connection, in which it would not notice."""
    noticed = len(js.disconnects) + (len(js.connects) > len(js.disconnects))
    async with asyncio.timeout(SOON):
        while len(js.disconnects) < noticed:
            getattr(proxy, how)()
            await asyncio.sleep(20 * MS)


async def settled(js, transports):
    """Wait until the transport that the client prefers is in use."""

    async def in_use():
        return (await js.state())["transport"] == transports[-1]

    await eventually_true(in_use)


@every_transport
@pytest.mark.parametrize("how", ["cut", "cut_client_side"])
async def test_cut(hub, proxy, js, publisher, room, transports, how):
    """A cut connection, noticed by the hub (RST on both sides) or not (half-open)."""
    client = await js(proxy.url, transports=transports)
    await client.join(room)
    await settled(client, transports)
    for number in range(3):
        await publisher.publish(room, number)
    await exactly(client, list(range(3)))
    before = await client.state()
    await away(client, proxy, how)
    for number in range(3, 8):
        await publisher.publish(room, number)
    proxy.refuse = False
    after = await client.back()
    await publisher.publish(room, 8)
    await exactly(client, list(range(9)))
    assert after["recovered"] is True
    assert (after["sid"], after["pid"]) == (before["sid"], before["pid"])
    assert client.sessions[1]["resumed"] is not None
    assert client.sessions[1]["missed"] == 5
    assert client.sessions[1]["rooms"] == [room]


@every_transport
async def test_nothing_received_before_the_cut(hub, proxy, js, publisher, room, transports):
    """No message has to have arrived before the connection is lost."""
    client = await js(proxy.url, transports=transports)
    await client.join(room)
    await away(client, proxy)
    for number in range(3):
        await publisher.publish(room, number)
    proxy.refuse = False
    assert (await client.back())["recovered"] is True
    await exactly(client, [0, 1, 2])


@every_transport
async def test_cut_before_any_room(hub, proxy, js, publisher, room, transports):
    """A session with no room continues too, and nothing is replayed to it."""
    client = await js(proxy.url, transports=transports)
    await publisher.publish(room, "before")
    await away(client, proxy)
    proxy.refuse = False
    assert (await client.back())["recovered"] is True
    await client.join(room)
    await publisher.publish(room, "after")
    await exactly(client, ["after"])


@every_transport
async def test_engine_closed_by_the_page(hub, js, publisher, room, transports):
    """`socket.io.engine.close()` says goodbye to Engine.IO only: the session goes on."""
    client = await js(hub.url, transports=transports)
    await client.join(room)
    await publisher.publish(room, 0)
    await exactly(client, [0])
    await client.do("closeEngine")
    await publisher.publish(room, 1)
    assert (await client.back())["recovered"] is True
    await exactly(client, [0, 1])


@every_transport
async def test_hub_killed_and_restarted(own_hub, js, raw, room, transports):
    """`kill -9` of the hub process: what was acknowledged before arrives from the one after."""
    hub = await own_hub()
    client = await js(hub.url, transports=transports)
    await client.join(room)
    publisher = await raw(hub.url)
    # The answers come before the hub dies, the events need not.
    sent = [publisher.publish(room, number) for number in range(20)]
    await asyncio.gather(*sent)
    await hub.restart()
    publisher = await raw(hub.url)
    for number in range(20, 25):
        await publisher.publish(room, number)
    assert (await client.back())["recovered"] is True
    await exactly(client, list(range(25)))


@every_transport
async def test_another_hub(hub, own_hub, js, raw, room, transports):
    """A client that comes back to another process on the same Redis misses nothing."""
    other = await own_hub()
    async with Proxy(hub.port) as proxy:
        client = await js(proxy.url, transports=transports)
        await client.join(room)
        publisher = await raw(other.url)
        await publisher.publish(room, 0)
        await exactly(client, [0])
        for turn in range(1, 4):
            await away(client, proxy, "cut_client_side" if turn % 2 else "cut")
            await publisher.publish(room, 2 * turn - 1)
            proxy.target = other.port if turn % 2 else hub.port
            proxy.refuse = False
            assert (await client.back(turn + 1))["recovered"] is True
            await publisher.publish(room, 2 * turn)
            await exactly(client, list(range(2 * turn + 1)))


@every_transport
async def test_two_rooms_have_one_order(hub, proxy, js, raw, publisher, room, transports):
    """Messages of two rooms, from two publishers, are replayed in the order of their offsets."""
    client = await js(proxy.url, transports=transports)
    await client.join(room, room + "b")
    second = await raw(hub.url)
    await away(client, proxy)
    offsets = {}
    for number in range(40):
        sender = (publisher, second)[number % 3 % 2]
        offsets[int(await sender.publish((room, room + "b")[number % 2], number))] = number
    proxy.refuse = False
    assert (await client.back())["recovered"] is True
    await exactly(client, [offsets[offset] for offset in sorted(offsets)])
    assert {args[1]["room"] for args in client.named("m")} == {room, room + "b"}


@every_transport
async def test_binary(hub, proxy, js, publisher, room, transports):
    """Binary data, alone and inside other data, live and replayed, between text messages."""
    sent = [b"\x00\x01", {"a": [b"", b"\xff" * 2000], "n": 1}, "text", [os.urandom(50_000)], 5]
    client = await js(proxy.url, transports=transports)
    await client.join(room)
    for data in sent:
        await publisher.publish(room, data)
    await exactly(client, sent)
    await away(client, proxy)
    for data in sent:
        await publisher.publish(room, data)
    proxy.refuse = False
    assert (await client.back())["recovered"] is True
    await exactly(client, sent * 2)
    assert (await client.state())["offset"] == client.named("m")[-1][-1]


@every_transport
async def test_a_thousand_missed(hub, proxy, js, publisher, room, transports):
    """A thousand messages wait, come in order, and live ones follow without a seam."""
    client = await js(proxy.url, transports=transports)
    await client.join(room)
    await away(client, proxy)
    await asyncio.gather(*(publisher.publish(room, number) for number in range(1000)))
    proxy.refuse = False

    async def go_on() -> None:
        for number in range(1000, 1050):
            await publisher.publish(room, number)

    more = asyncio.create_task(go_on())
    assert (await client.back())["recovered"] is True
    await more
    await exactly(client, list(range(1050)), within=2 * SOON)
    assert client.sessions[1]["missed"] >= 1000
    assert client.named("hub:gap") == []


@every_transport
async def test_ten_cuts_in_quick_succession(hub, proxy, js, publisher, room, transports):
    """Ten cuts while messages flow, each as soon as the client is back or even before."""
    client = await js(proxy.url, transports=transports)
    await client.join(room)
    async with flow(publisher, room) as sent:
        await cuts(client, proxy)
    await exactly(client, sent, within=2 * SOON)
    assert len(client.connects) >= 7
    assert all(state["recovered"] for state in client.connects[1:])
    assert {state["pid"] for state in client.connects} == {client.connects[0]["pid"]}


async def cuts(client, proxy):
    for turn in range(10):
        made = proxy.count
        await cut_until_noticed(client, proxy, "cut" if turn % 2 else "cut_client_side")
        if turn % 3:
            back, heard = len(client.disconnects) + 1, len(client.data())
            await eventually(
                lambda back=back, heard=heard: (
                    len(client.connects) >= back and len(client.data()) > heard
                ),
                what=lambda back=back: (back, client.connects, client.disconnects, client.errors),
            )
        else:  # the next cut comes in the middle of the client's return
            await eventually(lambda made=made: proxy.count > made)


@pytest.mark.parametrize("transports", [["websocket"], ["polling"]], ids="+".join)
async def test_black_hole(own_hub, js, raw, room, transports):
    """A connection that swallows everything and never closes is given up and recovered from."""
    hub = await own_hub(ping_interval=500 * MS, ping_timeout=500 * MS)
    async with Proxy(hub.port) as proxy:
        client = await js(proxy.url, transports=transports)
        await client.join(room)
        publisher = await raw(hub.url)
        await publisher.publish(room, 0)
        await exactly(client, [0])
        proxy.blackhole()
        await publisher.publish(room, 1)
        assert (await client.back())["recovered"] is True
        await publisher.publish(room, 2)
        await exactly(client, [0, 1, 2])


async def test_idling(own_hub, js, raw, room):
    """Recovered after most of a session's life away, and after more than one life connected, over every transport."""
    life = 2 * UNIT
    hub = await own_hub(anonymous_life=life)
    async with Proxy(hub.port) as proxy:
        clients = [await js(proxy.url, transports=transports) for transports in TRANSPORTS]
        for client in clients:
            await client.join(room)
        # The very thing under test is that this time passes and nothing happens.
        await asyncio.sleep(life * 1.3)
        before = [len(client.disconnects) for client in clients]
        assert before == [0, 0, 0]
        proxy.refuse = True
        proxy.cut()
        await eventually(lambda: all(client.disconnects for client in clients))
        await asyncio.sleep(life * 0.7)
        publisher = await raw(hub.url)
        await publisher.publish(room, 0)
        proxy.refuse = False
        for client in clients:
            assert (await client.back())["recovered"] is True
            await exactly(client, [0])


async def test_a_listener_that_throws_sees_the_message_again(hub, proxy, js, publisher, room):
    """The client's offset overrules what is known to have arrived, downwards too."""
    client = await js(proxy.url, transports=["websocket"])
    await client.join(room)
    await publisher.publish(room, 0)
    await exactly(client, [0])
    await client.do("throwOn", name="m", on=True)
    await publisher.publish(room, 1)
    await eventually(lambda: client.uncaught)
    await client.do("throwOn", name="m", on=False)
    await away(client, proxy)
    proxy.refuse = False
    assert (await client.back())["recovered"] is True
    await exactly(client, [0, 1])


@pytest.mark.parametrize(
    "pid", ["nonsense", "a.b", "." * 50, "0123456789abcdef.0123456789abcdef0123456789abcdef", "é"]
)
async def test_an_unknown_pid_gets_a_new_session(hub, js, publisher, room, pid):
    """The client is let in, told that nothing was recovered, and given another pid."""
    client = await js(hub.url, auth={"pid": pid, "offset": "1"}, transports=["websocket"])
    await client.back(1)
    assert client.connects[0]["recovered"] is False
    assert client.connects[0]["pid"] != pid
    assert client.sessions[0] | {"head": ""} == {
        "protocol": 1, "client_id": client.sessions[0]["client_id"], "resumed": None,
        "missed": 0, "rooms": [], "head": "",
    }  # fmt: skip
    await client.join(room)
    await publisher.publish(room, 0)
    await exactly(client, [0])


async def test_a_forged_pid_gets_nothing_of_its_victim(hub, js, raw, publisher, room):
    """The session's part of a pid without its secret opens nothing and disturbs nobody."""
    victim = await js(hub.url, transports=["websocket"])
    await victim.join(room)
    pid = victim.connects[0]["pid"]
    for forged in (pid[:-1] + ("0" if pid[-1] != "0" else "1"), pid.rpartition(".")[0] + "."):
        thief = await raw(hub.url, auth={"pid": forged, "offset": "1"})
        session, _ = await thief.session()
        assert session["resumed"] is None
        assert session["rooms"] == []
        assert session["client_id"] != victim.sessions[0]["client_id"]
    await publisher.publish(room, 0)
    await exactly(victim, [0])
    assert victim.disconnects == []


@every_transport
async def test_an_expired_session_is_a_new_one(own_hub, js, raw, room, transports, redis_server):
    """Once its life is over the session is gone: `recovered` false, no rooms, another pid."""
    hub = await own_hub(anonymous_life=300 * MS, ping_interval=400 * MS, ping_timeout=400 * MS)
    async with Proxy(hub.port) as proxy:
        client = await js(proxy.url, transports=transports)
        await client.join(room)
        await away(client, proxy)
        key = f"{hub.prefix}:{{0}}:session:{client.sessions[0]['client_id']}"
        await eventually(lambda: not redis_server.client.exists(key))
        proxy.refuse = False
        after = await client.back()
        assert after["recovered"] is False
        assert after["pid"] != client.connects[0]["pid"]
        assert client.sessions[1]["rooms"] == []
        await client.join(room)
        await (await raw(hub.url)).publish(room, 1)
        await exactly(client, [1])
        in_order(client)


async def test_a_deliberate_disconnect_ends_an_anonymous_session(hub, js, publisher, room):
    """`socket.disconnect()` ends it for good: connecting again starts another."""
    client = await js(hub.url, transports=["websocket"])
    await client.join(room)
    await client.do("disconnect")
    await eventually(lambda: client.disconnects == ["io client disconnect"])
    await publisher.publish(room, 0)
    await client.do("reconnect")
    after = await client.back()
    assert after["recovered"] is False
    assert client.sessions[1]["rooms"] == []
    assert client.data() == []
