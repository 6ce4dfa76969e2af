"""HubClient and Publisher against a real hub, over both transports."""

from __future__ import annotations

import asyncio
import sys

import pytest

from hub import errors
from hub.client import HubClient, Publisher, Replaced
from tests.support.proxy import Proxy
from tests.support.times import MS, SOON, UNIT, eventually
from tests.support.tools import ROOT

both = pytest.mark.parametrize("transports", [["websocket"], ["polling"], None], ids=str)


def keep(client):
    """Keep data and offsets of all `m`."""
    got = []
    client.on("m")(lambda data, meta: got.append((data, int(meta.offset))))
    return got


def values(got):
    return [data for data, _ in got]


@both
async def test_what_was_missed_arrives_once(hub, proxy, client, transports):
    """Cuts of every kind while messages flow: each once, in order, each time by the pid."""
    room = f"live-{transports}"
    reader = await client(proxy.url, transports=transports)
    got = keep(reader)
    await reader.subscribe(room)
    writer = await client(hub.url)
    for turn in range(5):
        getattr(proxy, ("cut", "cut_client_side")[turn % 2])()
        for number in range(40):
            await writer.publish(room, "m", turn * 40 + number)
    await eventually(lambda: len(got) == 200, within=2 * SOON, what=lambda: values(got)[-5:])
    assert values(got) == list(range(200))
    assert [offset for _, offset in got] == sorted({offset for _, offset in got})
    assert reader.resumed == "pid"
    assert reader.gaps == []


async def test_a_publisher_whose_connection_is_cut(hub, client):
    """Cut after every few messages, the publisher repeats itself under its ids: none twice."""
    async with Proxy(hub.port) as proxy:
        writer = await client(proxy.url, answer_timeout=UNIT)
        reader = await client(hub.url)
        got = keep(reader)
        await reader.subscribe("cut-publisher")

        async def trouble():
            for turn in range(8):
                await eventually(lambda turn=turn: len(got) > turn * 10)
                (proxy.cut if turn % 2 else proxy.cut_client_side)()

        troubling = asyncio.create_task(trouble())
        for number in range(100):
            await writer.publish("cut-publisher", "m", number)
        await troubling
        await eventually(lambda: len(got) >= 100)
        assert values(got) == list(range(100))


async def test_hub_restart(own_hub, client, room):
    """`kill -9`, restart, and a drain: the client comes back each time and misses nothing."""
    hub = await own_hub()
    reader = await client(hub.url)
    writer = await client(hub.url, answer_timeout=2 * UNIT)
    got = keep(reader)
    await reader.subscribe(room)
    for turn in range(3):
        for number in range(10):
            await writer.publish(room, "m", turn * 10 + number)
        if turn == 1:
            assert await asyncio.to_thread(hub.terminate) == 0
            await asyncio.to_thread(hub.start)
        else:
            await hub.restart()
    await eventually(lambda: len(got) == 30, within=2 * SOON)
    assert values(got) == list(range(30))


@both
async def test_typed_answers(hub, client, room, transports):
    """Verbs answer with types, and errors come as exceptions."""
    one = await client(hub.url, transports=transports)
    first = await one.publish(room, "m", {"n": 1}, id="k")
    assert (await one.publish(room, "m", 0, id="k")).duplicate
    second = await one.publish(room, "m", b"\x00")
    joined = await one.subscribe(room, history=10)
    assert [message.data for message in joined.messages] == [{"n": 1}, b"\x00"]
    assert joined.messages[0].meta.room == room
    assert joined.messages[0].meta.offset == joined.messages[0].offset == first.offset
    page = await one.history(room, limit=1, after=first.offset)
    assert ([message.offset for message in page.messages], page.more) == ([second.offset], False)
    await one.unsubscribe(room)
    with pytest.raises(errors.BadRequest, match="room"):
        await one.subscribe("")
    with pytest.raises(errors.Forbidden):
        await one.subscribe("@somebody-else")
    with pytest.raises(errors.BadRequest, match="event"):
        await one.publish(room, "hub:session", 1)


async def test_binary_and_volatile(hub, client, room):
    """Binary data comes as bytes; volatile, ttl and echo do what they say."""
    one, two = await client(hub.url), await client(hub.url)
    mine, theirs = keep(one), keep(two)
    await one.subscribe(room)
    await two.subscribe(room)
    await one.publish(room, "m", {"a": [b"x", b""]}, echo=False)
    await one.publish(room, "m", "v", volatile=True)
    await one.publish(room, "m", "t", ttl=100 * UNIT)
    await eventually(lambda: len(theirs) == 3 and len(mine) == 2)
    assert values(theirs) == [{"a": [b"x", b""]}, "v", "t"]
    assert values(mine) == ["v", "t"]


@pytest.mark.parametrize("transports", [["websocket"], ["polling"]], ids=str)
async def test_large_messages(own_hub, client, room, transports):
    """What the hub's own bound lets through arrives, live and as replay, beyond 4 MiB too."""
    hub = await own_hub(max_message=8_000_000)
    async with Proxy(hub.port) as proxy:
        reader = await client(proxy.url, transports=transports)
        got = keep(reader)
        await reader.subscribe(room)
        writer = await client(hub.url, transports=["websocket"])
        await writer.publish(room, "m", "x" * 5_000_000)
        await eventually(lambda: len(got) == 1)
        proxy.refuse = True
        proxy.cut()
        await writer.publish(room, "m", b"y" * 5_000_000)
        proxy.refuse = False
        await eventually(lambda: len(got) == 2)
        assert values(got) == ["x" * 5_000_000, b"y" * 5_000_000]


@both
@pytest.mark.parametrize("unit", ["x", b"x"], ids=str)
async def test_the_largest_message(own_hub, client, room, transports, unit):
    """The client refuses for its size just what the hub would refuse, and the connection stays."""
    hub = await own_hub(max_message=2000)
    writer = await client(hub.url, transports=transports)
    connection = writer._connection.current
    size = 2001
    while True:
        try:
            await writer.publish(room, "m", unit * size, volatile=True)
            break
        except errors.TooLarge:
            size -= 1
    assert writer._connection.current is connection
    connection.eio.max_payload += 1
    with pytest.raises(errors.TooLarge, match="2001 bytes: a message may have 2000"):
        await writer.publish(room, "m", unit * (size + 1), volatile=True)
    assert writer._connection.current is connection


async def test_names_and_replacement(hub, client, name, room):
    """The newest connection of a name has the session; the older is told, and stays away."""
    old = await client(hub.url, client_id=name)
    await old.subscribe(room)
    new = await client(hub.url, client_id=name)
    with pytest.raises(Replaced, match=f"a newer connection of client_id '{name}'"):
        await asyncio.wait_for(old.wait(), SOON)
    assert new.resumed == "name"
    assert new.session.rooms == ["@" + name, room]
    assert new.client_id == name


async def test_position_file_across_processes(hub, client, room, tmp_path, name):
    """A process that resumes from its file gets what it has not handled, and nothing twice."""
    path = tmp_path / "position"
    writer = await client(hub.url)
    heard = []
    for turn in range(3):
        async with HubClient(hub.url, client_id=name, position_file=path) as reader:
            got = keep(reader)
            if not turn:
                await reader.subscribe(room)
            await writer.publish(room, "m", 2 * turn)
            await eventually(lambda got=got, turn=turn: 2 * turn in values(got))
            heard += values(got)
        await writer.publish(room, "m", 2 * turn + 1)
    assert heard == [0, 1, 2, 3, 4]


async def test_an_anonymous_position_file(hub, client, room, tmp_path):
    """Without a name the pid in the file continues the session all the same."""
    path = tmp_path / "position"
    async with HubClient(hub.url, position_file=path) as reader:
        await reader.subscribe(room)
    await (await client(hub.url)).publish(room, "m", 1)
    reader = HubClient(hub.url, position_file=path)
    got = keep(reader)
    async with reader:
        await eventually(lambda: values(got) == [1])
        assert reader.resumed == "pid"


async def test_manual_acks(hub, client, room, name):
    """What was not acknowledged comes again, to this process or to the next."""
    writer = await client(hub.url)
    async with HubClient(hub.url, client_id=name, acks="manual") as reader:
        got = keep(reader)
        await reader.subscribe(room)
        for number in range(4):
            await writer.publish(room, "m", number)
        await eventually(lambda: len(got) == 4)
        await reader.ack(str(got[1][1]))
    again = HubClient(hub.url, client_id=name, acks="manual")
    got = keep(again)
    async with again:
        await eventually(lambda: values(got) == [2, 3])


async def test_a_session_that_was_lost(own_hub, client, room, redis_server):
    """A new session gets the rooms back, and the application is told of the gap."""
    hub = await own_hub(anonymous_life=300 * MS)
    async with Proxy(hub.port) as proxy:
        reader = await client(proxy.url, transports=["websocket"])
        got, told = keep(reader), []
        reader.on_gap(told.append)
        await reader.subscribe(room)
        key = f"{hub.prefix}:{{0}}:session:{reader.client_id}"
        proxy.refuse = True
        proxy.cut()
        await eventually(lambda: not redis_server.client.exists(key))
        writer = await client(hub.url)
        lost = await writer.publish(room, "m", "lost")
        proxy.refuse = False
        await eventually(lambda: told)
        assert told[0].room == room
        assert int(told[0].after) < int(lost.offset) < int(told[0].before)
        await writer.publish(room, "m", "after")
        await eventually(lambda: values(got) == ["after"])


async def test_a_slow_handler_is_not_overrun(hub, client, room):
    """A handler slower than its messages: the client stops reading, the hub keeps the rest."""
    reader = await client(hub.url, queue=20)
    seen, gate = [], asyncio.Event()

    @reader.on("m")
    async def handle(data, meta):
        await gate.wait()
        seen.append(data)

    await reader.subscribe(room)
    writer = await client(hub.url)
    await asyncio.gather(*(writer.publish(room, "m", number) for number in range(500)))
    assert len(reader._delivery._queue) <= 21
    gate.set()
    await eventually(lambda: len(seen) == 500, within=2 * SOON)
    assert sorted(seen) == list(range(500))


async def test_publisher(hub, client, room):
    """Threads publish side by side through one Publisher; each message arrives once."""
    reader = await client(hub.url)
    got = keep(reader)
    await reader.subscribe(room)

    def work():
        with Publisher(hub.url) as publisher:
            publisher.publish(room, "m", 0)
            assert publisher.publish(room, "m", 1, id="x").duplicate is False
            assert publisher.publish(room, "m", 1, id="x").duplicate is True
            with pytest.raises(errors.BadRequest):
                publisher.publish("", "m", 1)

    await asyncio.gather(*(asyncio.to_thread(work) for _ in range(3)))
    await eventually(lambda: len(got) == 6)
    assert sorted(values(got)) == [0, 0, 0, 1, 1, 1]


async def test_publisher_in_a_script(hub, client, room):
    """A script that publishes and ends leaves nothing open and says nothing."""
    reader = await client(hub.url)
    got = keep(reader)
    await reader.subscribe(room)
    script = (
        "import sys; from hub.client import Publisher\n"
        "with Publisher(sys.argv[1]) as hub: print(hub.publish(sys.argv[2], 'm', 5).offset)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-X", "dev", "-c", script, hub.url, room,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    await eventually(lambda: got == [(5, int(out))])


async def test_the_position_file_of_another_name_counts_as_none(
    hub, client, name, tmp_path, caplog
):
    """It is not this client's session, so this client begins with its own."""
    async with HubClient(hub.url, client_id=name, position_file=tmp_path / "p"):
        pass
    other = await client(hub.url, client_id=f"{name}-2", position_file=tmp_path / "p")
    assert (other.client_id, other.session.rooms) == (f"{name}-2", [f"@{name}-2"])
    assert "belongs to another client_id" in caplog.text


async def test_a_refusal_is_raised(hub, client):
    """Somebody's anonymous session is nobody's name: `connect` says so, and nothing is tried again."""
    anonymous = await client(hub.url)
    with pytest.raises(errors.Forbidden):
        await HubClient(hub.url, client_id=anonymous.client_id).connect()


async def test_another_ones_pid_counts_as_none(hub, client, name, room, tmp_path):
    """A position file of another client's session continues nothing of it."""
    async with HubClient(hub.url, client_id=name, position_file=tmp_path / "p") as owner:
        await owner.subscribe(room)
    text = (tmp_path / "p").read_text()
    other = f"other-{name}"
    (tmp_path / "p").write_text(text.replace(f'"client_id":"{name}"', f'"client_id":"{other}"'))
    async with HubClient(hub.url, client_id=other, position_file=tmp_path / "p") as thief:
        assert (thief.resumed, thief.session.rooms) == (None, [f"@{other}"])
