"""Named clients: `client_id` continues rooms and inbox across processes; the newest connection wins."""

from __future__ import annotations

import asyncio

import pytest
import socketio

from tests.support.expect import at_least_once, exactly
from tests.support.socketio_wire import EVENT, encode
from tests.support.times import UNIT, eventually

both_transports = pytest.mark.parametrize("transport", ["websocket", "polling"])


@both_transports
async def test_javascript_across_page_loads(hub, js, raw, room, name, transport):
    """A new page with the same name gets the rooms and what was missed, once."""
    publisher = await raw(hub.url)
    for turn in range(3):
        page = await js(hub.url, transports=[transport], auth={"client_id": name})
        await page.back(1)
        assert page.sessions[0]["client_id"] == name
        assert page.sessions[0]["resumed"] == ("name" if turn else None)
        if turn:
            assert page.sessions[0]["rooms"] == ["@" + name, room]
            assert page.sessions[0]["missed"] >= 3
            await eventually(lambda page=page, turn=turn: set(page.data()) >= {turn * 10 - 1})
            expected = list(range(turn * 10 - 3, turn * 10))
            # No offset came with the name: what had arrived unproven may come again before it.
            assert page.data()[-3:] == expected
        else:
            await page.join(room)
        await page.close()
        for number in range(turn * 10 + 7, turn * 10 + 10):
            await publisher.publish(room, number)


@both_transports
async def test_stock_python_across_restarts(hub, stock, raw, room, name, transport):
    """A new process with the same name gets at least what was missed, in order."""
    publisher = await raw(hub.url)
    client = await stock(hub.url, transport, client_id=name)
    assert client.sessions[0]["resumed"] is None
    assert (await client.sio.call("subscribe", {"room": room}))["ok"] is True
    await publisher.publish(room, 0)
    await eventually(lambda: client.data() == [0])
    await client.sio.disconnect()
    for number in range(1, 40):
        await publisher.publish(room, number)
    again = await stock(hub.url, transport, client_id=name)
    await eventually(lambda: again.data()[-1:] == [39])
    expected = list(range(again.data()[0], 40))
    assert again.data() == expected
    assert expected[0] <= 1
    assert again.sessions[0]["resumed"] == "name"
    assert again.sessions[0]["rooms"] == ["@" + name, room]


@both_transports
async def test_stock_python_after_a_cut(hub, proxy, stock, raw, room, name, transport):
    """The stock Python client returns by itself and gets at least what it missed."""
    publisher = await raw(hub.url)
    client = await stock(proxy.url, transport, client_id=name)
    await client.sio.call("subscribe", {"room": room})
    for turn in range(3):
        proxy.refuse = True
        (proxy.cut_client_side if turn == 1 else proxy.cut)()
        await eventually(lambda turn=turn: len(client.disconnects) == turn + 1)
        for number in range(turn * 20, turn * 20 + 20):
            await publisher.publish(room, number)
        proxy.refuse = False
        await eventually(lambda turn=turn: client.data()[-1:] == [turn * 20 + 19])
        assert at_least_once(client.data(), list(range(turn * 20 + 20)))


def test_stock_synchronous_python(hub, room, name):
    """The synchronous stock client, its threads and all."""
    heard, sessions = [], []

    def connect():
        sio = socketio.Client(handle_sigint=False, reconnection=False)
        sio.on("m", lambda data, meta, offset: heard.append(data))
        sio.on("hub:session", lambda info, offset: sessions.append(info))
        sio.connect(
            hub.url, auth={"client_id": name}, transports=["websocket"], wait_timeout=5 * UNIT
        )
        return sio

    sio = connect()
    assert sio.call("subscribe", {"room": room})["ok"] is True
    sio.disconnect()
    publisher = socketio.Client(handle_sigint=False)
    publisher.connect(hub.url, transports=["websocket"], wait_timeout=5 * UNIT)
    for number in range(30):
        answer = publisher.call("publish", {"room": room, "event": "m", "data": number})
        assert answer["ok"] is True
    sio = connect()
    asyncio.run(eventually(lambda: sorted(set(heard)) == list(range(30))))
    assert sessions[1]["resumed"] is not None
    sio.disconnect()
    publisher.disconnect()


@pytest.mark.parametrize("transports", [["websocket"], ["polling"]], ids="+".join)
async def test_the_newest_connection_wins(hub, js, raw, room, name, transports):
    """The older gets `41` and stays away; only the newer hears the room from then on."""
    publisher = await raw(hub.url)
    old = await js(hub.url, transports=transports, auth={"client_id": name})
    await old.join(room)
    await publisher.publish(room, 0)
    await exactly(old, [0])
    new = await js(hub.url, transports=transports, auth={"client_id": name})
    await eventually(lambda: old.disconnects == ["io server disconnect"])
    assert [args[0]["reason"] for args in old.named("hub:closing")] == ["replaced"]
    assert (await old.state())["active"] is False
    await publisher.publish(room, 1)
    await eventually(lambda: new.data()[-1:] == [1])
    assert new.sessions[0]["rooms"] == ["@" + name, room]
    assert old.data() == [0]
    assert len(old.connects) == 1


@both_transports
@pytest.mark.parametrize("args", ["full", "data"])
async def test_a_replaced_connection_is_told_why(hub, raw, room, name, transport, args):
    """`hub:closing` right before the `41`, with a sentence that names the client_id, and the position."""
    publisher = await raw(hub.url)
    old = await raw(hub.url, transport, auth={"client_id": name, "args": args})
    await old.join(room)
    offset = await publisher.publish(room, 0)
    await exactly(old, [0]) if args == "full" else await eventually(lambda: old.data() == [0])
    await raw(hub.url, auth={"client_id": name})
    await eventually(lambda: old.named("41"))
    assert [event for event, _, _ in old.events[-2:]] == ["hub:closing", "41"]
    [[closing, *position]] = old.named("hub:closing")
    assert position == ([offset] if args == "full" else [])
    assert closing["reason"] == "replaced"
    assert repr(name) in closing["message"]


async def test_the_newest_wins_on_another_hub(hub, own_hub, raw, room, name):
    """A connection at another process is fenced off and disconnected too."""
    other = await own_hub()
    publisher = await raw(hub.url)
    old = await raw(hub.url, auth={"client_id": name})
    await old.join(room)
    new = await raw(other.url, auth={"client_id": name})
    await eventually(lambda: old.named("41"))
    await publisher.publish(room, 1)
    await exactly(new, [1])
    assert old.data() == []


async def test_a_replaced_connection_goes_on_with_another_session(hub, raw, redis_server, name):
    """What was due to the session that it had before, late as it may come, does not end the one that it has now."""
    redis, other = redis_server.client, name + "-2"
    client = await raw(hub.url, auth={"client_id": name})
    node, _, owner = redis.hget(f"{hub.prefix}:{{0}}:session:{name}", "owner").partition("/")
    await raw(hub.url, auth={"client_id": name})
    client.reply = None
    await client.send("41")
    await client.connect({"client_id": other})
    await asyncio.sleep(1.5)  # a replaced connection is disconnected after a second
    redis.publish(f"{hub.prefix}:{{0}}:bus:node:{node}", f"fence {owner}")
    await client.publish("@" + other, "still here")
    await exactly(client, ["still here"])
    assert client.named("41") == []


async def test_a_replaced_connection_moves_nothing(hub, proxy, raw, room, name):
    """What a replaced connection still sends neither ends nor parks nor moves the session."""
    publisher = await raw(hub.url)
    old = await raw(proxy.url, auth={"client_id": name})
    await old.join(room)
    proxy.stall("down")
    new = await raw(hub.url, auth={"client_id": name})
    await new.session()
    await old.send(*encode(EVENT, ["unsubscribe", {"room": room}]), "41", "1")
    await publisher.publish(room, 1)
    await exactly(new, [1])
    answer = await new.ask("subscribe", {"room": room + "b"})
    assert answer["ok"] is True
    await publisher.publish(room, 2)
    await exactly(new, [1, 2])
    proxy.flow("down")


async def test_personal_room(hub, raw, js, room, name):
    """`@client_id` is subscribed from the start, kept while away, and closed to others."""
    publisher = await raw(hub.url)
    client = await js(hub.url, transports=["websocket"], auth={"client_id": name})
    await client.back(1)
    assert client.sessions[0]["rooms"] == ["@" + name]
    await publisher.publish("@" + name, "live")
    await exactly(client, ["live"])
    assert client.named("m")[0][1]["room"] == "@" + name
    await client.close()
    await publisher.publish("@" + name, "away")
    again = await js(hub.url, transports=["websocket"], auth={"client_id": name})
    await eventually(lambda: again.data()[-1:] == ["away"])
    for verb, code in (("subscribe", "forbidden"), ("history", "forbidden")):
        answer = await publisher.ask(verb, {"room": "@" + name})
        assert answer["ok"] is False
        assert answer["error"]["code"] == code
    answer = await publisher.ask("subscribe", {"room": "@nobody-there"})
    assert answer["error"]["code"] == "forbidden"


async def test_the_personal_room_cannot_be_left(hub, raw, name):
    """It is always subscribed: `unsubscribe` of it is refused, and it goes on."""
    client = await raw(hub.url, auth={"client_id": name})
    answer = await client.ask("unsubscribe", {"room": "@" + name})
    assert answer["ok"] is False
    await client.publish("@" + name, 1)
    await exactly(client, [1])


async def test_a_deliberate_disconnect_parks_a_named_session(hub, js, raw, room, name):
    """`socket.disconnect()` of a named client leaves rooms and inbox to come back to."""
    publisher = await raw(hub.url)
    client = await js(hub.url, transports=["websocket"], auth={"client_id": name})
    await client.join(room)
    await client.do("disconnect")
    await eventually(lambda: client.disconnects)
    await publisher.publish(room, 1)
    await client.do("reconnect")
    await client.back()
    await exactly(client, [1])
    assert client.sessions[1]["resumed"] is not None


async def test_a_new_name_voids_the_old_pid(hub, raw, name):
    """Continued by name, a session gets a new pid; the old one alone opens nothing any more."""
    first = await raw(hub.url, auth={"client_id": name})
    second = await raw(hub.url, auth={"client_id": name})
    assert first.reply["pid"] != second.reply["pid"]
    await eventually(lambda: first.named("41"))
    alone = await raw(hub.url, auth={"pid": first.reply["pid"]})
    session, _ = await alone.session()
    assert session["resumed"] is None
    assert session["client_id"] != name
    # Together with the name it counts as none.
    both = await raw(hub.url, auth={"pid": first.reply["pid"], "client_id": name})
    session, _ = await both.session()
    assert (session["client_id"], session["resumed"]) == (name, "name")


async def test_a_pid_continues_a_named_session(hub, raw, room, name):
    """By its pid a named session keeps sid and pid, with or without the name beside it."""
    first = await raw(hub.url, auth={"client_id": name})
    await first.join(room)
    for auth in ({"client_id": name}, {}):
        again = await raw(hub.url, auth={"pid": first.reply["pid"], **auth})
        session, _ = await again.session()
        assert again.reply == first.reply
        assert session["resumed"] == "pid"
        assert session["client_id"] == name


@both_transports
async def test_another_clients_pid_counts_as_none(hub, raw, name, transport):
    """A pid of somebody else's session with a name of one's own opens nothing of that session, and keeps nobody out."""
    owner = await raw(hub.url, auth={"client_id": name})
    pid = owner.reply["pid"]
    for given, sent in (
        ("other-" + name, pid),
        (name + "-new", pid[:-4] + "AAAA"),
        ("third-" + name, "no pid"),
        ("fourth-" + name, 5),
    ):
        other = await raw(hub.url, transport, auth={"client_id": given, "pid": sent, "offset": "1"})
        session, _ = await other.session()
        assert (session["client_id"], session["resumed"]) == (given, None)
        assert session["rooms"] == ["@" + given]
        assert other.reply["pid"] != pid
    assert owner.closed is False
    assert owner.named("41") == []


async def log_in(page, client_id):
    """Log in as somebody else on the same socket, as the stock client's documentation says."""
    times = len(page.sessions)
    await page.do("auth", auth={"client_id": client_id} if client_id else {})
    await page.do("disconnect")
    await page.do("reconnect")
    await page.back(times + 1)
    return page.sessions[-1]


@both_transports
async def test_logging_in_as_somebody_else_on_one_socket(hub, js, raw, room, name, transport):
    """Guest, bob, alice, bob: each time the socket is in, and gets what that name has missed, not less."""
    publisher = await raw(hub.url)
    names = [f"{who}-{name}" for who in ("bob", "alice")]
    for each in names:
        client = await raw(hub.url, auth={"client_id": each})
        await client.join(room)
        await client.drop()
    page = await js(hub.url, transports=[transport])
    await page.back(1)
    await page.join(room)
    await publisher.publish(room, 1)
    await exactly(page, [1])
    for each in names:
        session = await log_in(page, each)
        assert (session["client_id"], session["resumed"], session["missed"]) == (each, "name", 1)
        assert page.connects[-1]["recovered"] is False
        await eventually(lambda: page.data() == [1] * len(page.sessions))
    await publisher.publish(room, 2)
    await eventually(lambda: page.data() == [1, 1, 1, 2])
    session = await log_in(page, names[0])
    assert session["resumed"] == "name"
    # What bob had received last may come again: his own offset was not returned.
    await eventually(lambda: page.data() in ([1, 1, 1, 2, 2], [1, 1, 1, 2, 1, 2]))
    assert page.errors == []


async def test_logging_in_again_as_oneself_brings_nothing_twice(hub, js, raw, room, name):
    """The pid is void, and the offset beside it is this session's own: it counts."""
    publisher = await raw(hub.url)
    page = await js(hub.url, transports=["websocket"], auth={"client_id": name})
    await page.back(1)
    await page.join(room)
    await publisher.publish(room, 1)
    await exactly(page, [1])
    session = await log_in(page, name)
    assert (session["resumed"], session["missed"]) == ("name", 0)
    await publisher.publish(room, 2)
    await exactly(page, [1, 2])


@both_transports
async def test_logging_out_makes_the_pid_void(hub, js, raw, room, name, transport):
    """After a deliberate disconnect a CONNECT without the name does not continue the named session, though it has the pid."""
    page = await js(hub.url, transports=[transport], auth={"client_id": name})
    await page.back(1)
    await page.join(room)
    session = await log_in(page, None)
    assert page.connects[1]["recovered"] is False
    assert session["client_id"] != name
    assert (session["resumed"], session["rooms"]) == (None, [])
    publisher = await raw(hub.url)
    await publisher.publish(room, 1)
    await publisher.publish("@" + name, 1)
    again = await js(hub.url, transports=[transport], auth={"client_id": name})
    await exactly(again, [1, 1])
    assert page.data() == []


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "é", "a/b", "a\n", 5, ["a"]])
async def test_bad_names_are_refused(hub, raw, bad):
    """A client_id out of bounds is a CONNECT_ERROR that says so: no retry can mend it."""
    client = await raw(hub.url, auth=False)
    await client.connect({"client_id": bad})
    assert client.packets[0][0] == "4"
    assert "client_id" in client.reply["message"]
