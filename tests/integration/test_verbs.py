"""What the verbs of PROTOCOL §4 do, one by one, seen from outside."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.conftest import upgrade_request
from tests.support.expect import exactly, flow
from tests.support.socketio_wire import EVENT, encode
from tests.support.times import MS, UNIT, eventually
from tests.unit.engineio.core.test_ws_parser import masked

both = pytest.mark.parametrize("transport", ["websocket", "polling"])


@pytest.fixture
async def publisher(hub, raw):
    return await raw(hub.url)


async def ask(client, verb, **fields):
    """Ask a verb that must succeed."""
    answer = await client.ask(verb, fields)
    assert answer.pop("ok") is True, answer
    return answer


async def refused(client, verb, **fields):
    """Ask a verb that must fail; return the error's code."""
    answer = await client.ask(verb, fields)
    assert answer["ok"] is False, answer
    assert set(answer["error"]) == {"code", "message", "retryable"}
    return answer["error"]["code"]


def data(answer):
    return [message["data"] for message in answer["messages"]]


# -- publish


@both
async def test_publishes_of_one_connection_keep_their_order(hub, raw, room, transport):
    """With and without acknowledgements, binary among them, as fast as they can be sent."""
    client = await raw(hub.url, transport)
    await client.join(room)
    sent = [b"x" if number % 10 == 5 else number for number in range(300)]
    packets = []
    for number, item in enumerate(sent):
        event = ["publish", {"room": room, "event": "m", "data": item}]
        packets += encode(EVENT, event, 1000 + number if number % 2 else None)
    await client.send(*packets)
    await exactly(client, sent)
    await eventually(lambda: all(1000 + n in client.answers for n in range(1, 300, 2)))
    offsets = [int(client.answers[1000 + n]["offset"]) for n in range(300) if n % 2]
    assert offsets == sorted(offsets)
    assert offsets == [int(args[-1]) for args in client.named("m")[1::2]]


async def test_a_flushed_script_cache_reorders_nothing(hub, raw, redis_server, room):
    """Redis forgetting its scripts in the middle costs neither a message nor the order."""
    client = await raw(hub.url)
    await client.join(room)
    for start in range(0, 500, 50):
        redis_server.client.script_flush()
        for number in range(start, start + 50):
            await client.send(
                *encode(
                    EVENT, ["publish", {"room": room, "event": "m", "data": number}], 1000 + number
                )
            )
    await exactly(client, list(range(500)))
    await eventually(lambda: all(1000 + number in client.answers for number in range(500)))
    assert all(client.answers[1000 + number]["ok"] for number in range(500))


async def test_verbs_take_effect_in_the_order_sent(hub, raw, room):
    """What is published before the first join, or while the room is left, is not heard.

    What was published just before the room was left may be on its way, and is dropped then.
    """
    client = await raw(hub.url)
    publish = ["publish", {"room": room, "event": "m", "data": 0}]
    packets = []
    for number, event in enumerate([
        publish, ["subscribe", {"room": room}], publish, ["unsubscribe", {"room": room}], publish,
        ["subscribe", {"room": room}], publish,
    ]):  # fmt: skip
        verb, fields = event
        more = {"data": number} if verb == "publish" else {}
        packets += encode(EVENT, [verb, fields | more], 100 + number)
    await client.send(*packets)
    await eventually(lambda: client.data()[-1:] == [6])
    assert client.data() in ([2, 6], [6])
    assert all(client.answers[100 + number]["ok"] for number in range(7))


@both
async def test_a_seen_id_is_a_duplicate(hub, raw, room, transport):
    """The same id again, of the same publisher in the same room, changes nothing and says so."""
    client, other = await raw(hub.url, transport), await raw(hub.url)
    await client.join(room)
    first = await ask(client, "publish", room=room, event="m", data=1, id="k")
    again = await ask(client, "publish", room=room, event="m", data=2, id="k")
    assert again == {"offset": first["offset"], "duplicate": True}
    assert first == {"offset": first["offset"]}
    for sender, where, key in ((other, room, "k"), (client, room + "b", "k"), (client, room, "l")):
        answer = await ask(sender, "publish", room=where, event="m", data=3, id=key)
        assert "duplicate" not in answer
    await exactly(client, [1, 3, 3])


async def test_an_id_outlives_the_connection(hub, raw, room):
    """A publisher that lost its connection before the answer may ask again."""
    client = await raw(hub.url)
    await client.session()
    first = await ask(client, "publish", room=room, event="m", data=1, id="k")
    await client.drop()
    again = await raw(hub.url, auth={"pid": client.reply["pid"]})
    answer = await ask(again, "publish", room=room, event="m", data=1, id="k")
    assert answer == {"offset": first["offset"], "duplicate": True}


async def test_an_id_is_forgotten(own_hub, raw, room):
    """After its time (2 minutes; here less) the same id is a new message."""
    hub = await own_hub(dedupe_life=300 * MS)
    client = await raw(hub.url)

    async def is_new():
        return "duplicate" not in await ask(client, "publish", room=room, event="m", data=1, id="k")

    assert await is_new()
    assert not await is_new()
    await asyncio.sleep(400 * MS)
    assert await is_new()


@both
async def test_echo_off(hub, raw, room, transport):
    """Its publisher does not get it, live or replayed, and no gap is told; everybody else does."""
    client, other = await raw(hub.url, transport), await raw(hub.url)
    await client.join(room)
    await other.join(room)
    for number in range(6):
        await client.publish(room, number, echo=number % 2 == 1)
    await exactly(client, [1, 3, 5])
    await exactly(other, list(range(6)))
    auth = {"pid": client.reply["pid"], "offset": client.events[0][1][-1]}
    await client.drop()
    again = await raw(hub.url, transport, auth)
    await exactly(again, [1, 3, 5])
    assert again.named("hub:gap") == []
    assert (await again.session())[0]["missed"] == 3


@both
async def test_volatile(hub, raw, publisher, room, transport):
    """Live only: no log, no replay, no gap; its offset is no position ahead of what was sent."""
    client = await raw(hub.url, transport)
    await client.join(room)
    await publisher.publish(room, 1)
    answer = await ask(publisher, "publish", room=room, event="m", data=2, volatile=True)
    assert int(answer["offset"]) > 0
    await publisher.publish(room, 3)
    await exactly(client, [1, 2, 3])
    assert data(await ask(client, "history", room=room)) == [1, 3]
    auth = {"pid": client.reply["pid"], "offset": client.named("m")[-1][-1]}
    await client.drop()
    await ask(publisher, "publish", room=room, event="m", data=4, volatile=True)
    await publisher.publish(room, 5)
    again = await raw(hub.url, transport, auth)
    await exactly(again, [5])
    assert again.named("hub:gap") == []


@both
async def test_ttl(hub, raw, publisher, room, transport):
    """Past its time a message is neither replayed nor a gap nor history; in time it is all that."""
    client = await raw(hub.url, transport)
    await client.join(room)
    await ask(publisher, "publish", room=room, event="m", data="live", ttl=200 * MS)
    await exactly(client, ["live"])
    auth = {"pid": client.reply["pid"], "offset": client.named("m")[-1][-1]}
    await client.drop()
    await ask(publisher, "publish", room=room, event="m", data="short", ttl=200 * MS)
    await ask(publisher, "publish", room=room, event="m", data="long", ttl=100 * UNIT)
    await publisher.publish(room, "plain")
    await asyncio.sleep(300 * MS)
    again = await raw(hub.url, transport, auth)
    await exactly(again, ["long", "plain"])
    assert again.named("hub:gap") == []
    assert (await again.session())[0]["missed"] == 2
    assert data(await ask(again, "history", room=room)) == ["long", "plain"]


async def test_a_verb_without_acknowledgement_is_carried_out(hub, raw, room):
    """Nobody asks for an answer, none is sent, and it takes effect."""
    client = await raw(hub.url)
    await client.emit("subscribe", {"room": room})
    await client.emit("publish", {"room": room, "event": "m", "data": 1})
    await client.emit("publish", {"room": room, "event": "m", "data": b"\x01"})
    await exactly(client, [1, b"\x01"])
    await client.emit("unsubscribe", {"room": room})
    await client.emit("publish", {"room": room, "event": "m", "data": 2})
    await ask(client, "history", room=room)
    assert client.data() == [1, b"\x01"]
    assert not any(str(packet).startswith(("3[", "61-[")) for packet in client.packets)


async def test_what_was_sent_before_the_end_is_carried_out(own_hub, raw, room):
    """Also where the hub had too much under way to read it: the end is told behind it."""
    hub = await own_hub(pending_verbs=2)
    listener = await raw(hub.url)
    await listener.join(room)
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    writer.write(upgrade_request("socket.io"))
    await reader.readuntil(b"\r\n\r\n")
    writer.write(masked(0x81, b"40"))
    while b"hub:session" not in await reader.read(1000):
        pass
    text = '42["publish",{"room":"%s","event":"m","data":%d}]'
    writer.write(b"".join(masked(0x81, (text % (room, n)).encode()) for n in range(12)))
    writer.write_eof()
    await exactly(listener, list(range(12)))
    writer.close()


@both
async def test_the_main_namespace_may_be_named(hub, raw, room, transport):
    """And JSON may begin with a blank, a packet say that it has no attachments: other clients than the stock ones do."""
    client = await raw(hub.url, transport)
    await client.join(room)
    fields = '["publish",{"room":"%s","event":"m","data":%d}]'
    for number, head in enumerate(("42/,901", "42902 ", "450-903", "450-/,904")):
        await client.send(head + fields % (room, number))
        assert (await client.answer(901 + number))["ok"] is True
    await client.send(
        "451-/,905" + fields.replace("%d", '{"_placeholder":true,"num":0}') % room, b"x"
    )
    assert (await client.answer(905))["ok"] is True
    await exactly(client, [0, 1, 2, 3, b"x"])


async def test_leaving_and_coming_back_renews_no_limit(own_hub, raw):
    """Limits are a connection's, however many sessions it takes one after the other."""
    hub = await own_hub(verbs_per_second=10)
    client = await raw(hub.url)

    async def allowed(count: int) -> int:
        answers = [await client.ask("history", {"room": "r"}) for _ in range(count)]
        return sum(answer["ok"] for answer in answers)

    assert await allowed(45) == 45
    await client.send("41")
    client.reply = None
    await client.connect()
    assert await allowed(60) < 30


async def test_names_at_their_bounds(hub, raw):
    """Rooms of 255 and events of 128 characters, any script, case-sensitive."""
    client = await raw(hub.url)
    long = "😀" * 255
    await client.join(long, "Straße ☃", "straße ☃")
    await client.publish(long, 1, event="é" * 128)
    await eventually(lambda: client.named("é" * 128))
    assert client.named("é" * 128)[0][1]["room"] == long
    await client.publish("STRASSE ☃", 2)
    await client.publish("Straße ☃", 3)
    await exactly(client, [3])
    assert client.named("m")[0][1]["room"] == "Straße ☃"


@both
async def test_odd_names(hub, raw, publisher, room, transport):
    """Names that look like keys, patterns, lists or JSON mean nothing but themselves."""
    names = ["a:b", "{x}", "*", "a b", "r:r", "away", "[]", '"', "\\", "x@y", "0", "hub", "🙂",
             "clock", ":log", "<b>", "%s", "a,b", "x@"]  # fmt: skip
    names = [f"{room}{name}" for name in names]
    client = await raw(hub.url, transport)
    await client.join(*names)
    for live in (True, False):
        if not live:
            auth = {"pid": client.reply["pid"], "offset": client.events[-1][1][-1]}
            await client.drop()
        for name in names:
            await publisher.publish(name, name, event=name)
        if not live:
            client = await raw(hub.url, transport, auth)
        await eventually(lambda: len(client.events) == len(names) + 1)  # noqa: B023
        got = [(event, args[0], args[1]["room"]) for event, args, _ in client.events[1:]]
        assert got == [(name, name, name) for name in names]


async def test_odd_client_ids(hub, raw):
    """Names with dots and digits, up to 128 characters, continue by pid and by name."""
    for name in ("a.1.2.abcdefghijklmnopqrstuvwxyz", "..", "-", "0", "x." * 64, "_" * 128):
        first = await raw(hub.url, auth={"client_id": name})
        for auth in ({"pid": first.reply["pid"]}, {"client_id": name}):
            again = await raw(hub.url, auth=auth)
            session, _ = await again.session()
            assert (session["client_id"], session["resumed"]) == (
                name,
                "pid" if "pid" in auth else "name",
            )
            await again.publish("@" + name, 1)
            await eventually(lambda again=again: again.data()[-1:] == [1])


async def test_an_anonymous_clients_id_is_not_for_the_taking(hub, raw, room):
    """Knowing the name that the hub made for somebody (it is in `meta`) opens nothing."""
    victim = await raw(hub.url)
    await victim.join(room)
    session, _ = await victim.session()
    thief = await raw(hub.url, auth=False)
    await thief.connect({"client_id": session["client_id"]})
    assert thief.packets[0].startswith("4")
    await victim.publish(room, 1)
    await exactly(victim, [1])
    assert victim.named("41") == []


# -- subscribe, unsubscribe


async def test_subscribe_with_history(hub, raw, publisher, room):
    """The answer has the last n messages and an offset; what comes as events is newer."""
    offsets = [await publisher.publish(room, number) for number in range(5)]
    client = await raw(hub.url)
    answer = await ask(client, "subscribe", room=room, history=3)
    assert set(answer) == {"room", "offset", "messages", "more", "gap"}
    assert data(answer) == [2, 3, 4]
    assert (answer["room"], answer["more"], answer["gap"]) == (room, True, False)
    assert int(answer["offset"]) >= int(offsets[-1])
    assert answer["messages"][0] | {"meta": None} == {
        "event": "m", "data": 2, "meta": None, "offset": offsets[2],
    }  # fmt: skip
    assert answer["messages"][0]["meta"]["room"] == room
    other = await raw(hub.url)
    answer = await ask(other, "subscribe", room=room, since=offsets[1])
    assert (data(answer), answer["more"], answer["gap"]) == ([2, 3, 4], False, False)
    plain = await raw(hub.url)
    assert set(await ask(plain, "subscribe", room=room)) == {"room", "offset"}
    await publisher.publish(room, 5)
    for each in (client, other, plain):
        await exactly(each, [5])


async def test_subscribe_is_idempotent(hub, raw, publisher, room):
    """A second `subscribe` succeeds and disturbs nothing."""
    client = await raw(hub.url)
    first = await ask(client, "subscribe", room=room)
    await publisher.publish(room, 1)
    second = await ask(client, "subscribe", room=room)
    assert second["room"] == first["room"]
    await publisher.publish(room, 2)
    await exactly(client, [1, 2])


@both
async def test_history_reaches_as_far_as_the_connection_was_sent(
    hub, raw, publisher, room, name, transport
):
    """A page was reloaded under its name: history ends where the events after the answer begin, not at the first join."""
    first = await raw(hub.url, transport, auth={"client_id": name})
    await first.join(room)
    for number in range(5):
        await publisher.publish(room, number)
    await exactly(first, [0, 1, 2, 3, 4])
    await first.drop()
    again = await raw(hub.url, transport, auth={"client_id": name})
    last = await publisher.publish(room, 5)
    await eventually(lambda: again.data()[-1:] == [5])
    answer = await ask(again, "subscribe", room=room, history=50)
    assert (data(answer), answer["more"]) == ([0, 1, 2, 3, 4, 5], False)
    assert int(answer["offset"]) >= int(last)
    events = len(again.data())
    await publisher.publish(room, 6)
    await eventually(lambda: len(again.data()) > events)
    assert again.data()[events:] == [6]


async def test_no_seam_where_the_room_was_joined_before(hub, raw, publisher, room, name):
    """The same while messages pour in: the answer and the events after it have neither hole nor repeat."""
    async with flow(publisher, room) as sent:
        client = await raw(hub.url, auth={"client_id": name})
        await client.join(room)
        for _ in range(5):
            await client.drop()
            mark = len(sent)
            await eventually(lambda mark=mark: len(sent) > mark + 20)
            client = await raw(hub.url, auth={"client_id": name})
            answer = await ask(client, "subscribe", room=room, history=1000)
            came = [int(args[-1]) for args in client.named("m")]
            before = [offset for offset in came if offset <= int(answer["offset"])]
            assert came[: len(before)] == before, "an event after the offset came before the answer"
            mark = len(sent)
            await eventually(lambda client=client, mark=mark: client.data()[-1] >= mark)
            got = data(answer) + client.data()[len(before) :]
            assert got == list(range(got[0], got[0] + len(got)))


@both
async def test_no_seam_between_history_and_events(hub, raw, publisher, room, transport):
    """While messages pour in: history up to the offset, events after it, nothing twice or lost."""
    async with flow(publisher, room) as sent:
        await eventually(lambda: len(sent) > 20)
        for _ in range(5):
            client = await raw(hub.url, transport)
            answer = await ask(client, "subscribe", room=room, history=1000)
            seen = len(client.data())
            assert seen == 0 or int(client.named("m")[0][-1]) > int(answer["offset"])
            mark = len(sent)
            await eventually(lambda mark=mark: len(sent) > mark + 10)
            await eventually(lambda client=client, mark=mark: client.data()[-1] >= mark)
            assert all(int(m["offset"]) <= int(answer["offset"]) for m in answer["messages"])
            got = data(answer) + client.data()
            assert got == list(range(got[0], got[0] + len(got)))
            await client.drop()


async def test_no_event_before_the_subscribe_answer(hub, raw, publisher, room):
    """None of the room's messages comes before the answer, however busy the room is."""
    async with flow(publisher, room) as sent:
        await eventually(lambda: len(sent) > 5)
        client = await raw(hub.url)
        for turn in range(20):
            before = len(client.packets)
            await client.send(*encode(EVENT, ["subscribe", {"room": room}], 500 + turn))
            await client.answer(500 + turn)
            await eventually(lambda before=before: len(client.packets) > before + 3)
            assert client.packets[before].startswith(f"3{500 + turn}[")
            mark = len(client.packets)
            await ask(client, "unsubscribe", room=room)
            after = [p for p in client.packets[mark:] if str(p).startswith("3")]
            last = client.packets.index(after[0])
            quiet = len(sent)
            await eventually(lambda quiet=quiet: len(sent) > quiet + 5)
            assert client.packets[last + 1 :] == []


async def test_unsubscribe_holds_while_away(hub, raw, publisher, room):
    """What was left before the connection was lost is not replayed."""
    client = await raw(hub.url)
    await client.join(room, room + "b")
    await ask(client, "unsubscribe", room=room)
    auth = {"pid": client.reply["pid"], "offset": client.events[0][1][-1]}
    await client.drop()
    await publisher.publish(room, "left")
    await publisher.publish(room + "b", "stayed")
    again = await raw(hub.url, auth=auth)
    await exactly(again, ["stayed"])
    assert (await again.session())[0]["rooms"] == [room + "b"]


async def test_a_join_does_not_reach_back(hub, raw, publisher, room):
    """Never before a room was joined: an old offset brings nothing older than the join."""
    client = await raw(hub.url)
    _, start = await client.session()
    await publisher.publish(room, "before")
    await client.join(room)
    await client.drop()
    await publisher.publish(room, "after")
    again = await raw(hub.url, auth={"pid": client.reply["pid"], "offset": start})
    await exactly(again, ["after"])
    await ask(again, "unsubscribe", room=room)
    await publisher.publish(room, "between")
    await again.join(room)
    await again.drop()
    last = await raw(hub.url, auth={"pid": client.reply["pid"], "offset": start})
    await publisher.publish(room, "end")
    await exactly(last, ["end"])


async def test_unsubscribing_from_what_was_never_joined(hub, raw, room):
    """It is done already: the answer is ok."""
    client = await raw(hub.url)
    await ask(client, "unsubscribe", room=room)


# -- history


@both
async def test_history(hub, raw, publisher, room, transport):
    """Ascending pages from either end, with `more` while there is more."""
    offsets = [await publisher.publish(room, number) for number in range(10)]
    client = await raw(hub.url, transport)
    for fields, expected, more in (
        ({}, list(range(10)), False),
        ({"limit": 3}, [7, 8, 9], True),
        ({"limit": 10}, list(range(10)), False),
        ({"limit": 3, "before": offsets[7]}, [4, 5, 6], True),
        ({"limit": 3, "before": offsets[2]}, [0, 1], False),
        ({"limit": 3, "after": offsets[2]}, [3, 4, 5], True),
        ({"limit": 3, "after": offsets[7]}, [8, 9], False),
        ({"after": offsets[9]}, [], False),
        ({"before": offsets[0]}, [], False),
        ({"after": "0"}, list(range(10)), False),
    ):
        answer = await ask(client, "history", room=room, **fields)
        assert set(answer) == {"messages", "more", "gap"}
        assert (data(answer), answer["more"], answer["gap"]) == (expected, more, False), fields
    assert [m["offset"] for m in (await ask(client, "history", room=room))["messages"]] == offsets
    assert await ask(client, "history", room=room + "x") == {
        "messages": [], "more": False, "gap": False,
    }  # fmt: skip
    assert client.data() == []


async def test_history_tells_where_the_log_no_longer_reaches_back(own_hub, raw, room):
    """`gap` with `after` an offset from which on messages were cut off; without `after` nothing was promised."""
    hub = await own_hub(log_length=3, prefix="short")
    client = await raw(hub.url)
    offsets = [await client.publish(room, number) for number in range(6)]
    for after, expected, gap in ((1, [3, 4, 5], True), (2, [3, 4, 5], False), (3, [4, 5], False)):
        answer = await ask(client, "history", room=room, after=offsets[after])
        assert (data(answer), answer["gap"]) == (expected, gap)
    assert (await ask(client, "history", room=room))["gap"] is False


@both
async def test_history_with_binary(hub, raw, publisher, room, transport):
    """At most 10 attachments in an answer; `more` leads to the rest, and nothing is skipped."""
    sent = [[b"%d" % number, b"x", number] for number in range(8)] + ["text", b"end"]
    for item in sent:
        await publisher.publish(room, item)
    client = await raw(hub.url, transport)
    got, after, pages = [], "0", 0
    while True:
        answer = await ask(client, "history", room=room, limit=1000, after=after)
        got += data(answer)
        pages += 1
        if not answer["more"]:
            break
        after = answer["messages"][-1]["offset"]
    assert got == sent
    assert pages == 2
    backwards, before = [], "9999999999999999"
    while True:
        answer = await ask(client, "history", room=room, limit=1000, before=before)
        backwards = data(answer) + backwards
        if not answer["more"]:
            break
        before = answer["messages"][0]["offset"]
    assert backwards == sent


async def test_history_is_bounded_in_bytes(hub, raw, publisher, room):
    """Large messages come in several answers, each of which leads on to the next."""
    sent = [f"{number}" * 90_000 for number in range(10)]
    for item in sent:
        await publisher.publish(room, item)
    client = await raw(hub.url)
    got, after = [], "0"
    while True:
        answer = await ask(client, "history", room=room, after=after)
        assert len(data(answer)) < 10
        got += data(answer)
        if not answer["more"]:
            break
        after = answer["messages"][-1]["offset"]
    assert got == sent


async def test_unknown_verbs(hub, raw):
    """What the hub does not know is answered as an error, and ignored where nobody asks."""
    client = await raw(hub.url)
    answer = await client.ask("no-such-verb", {})
    assert answer["ok"] is False
    assert answer["error"]["code"] in ("not_found", "bad_request")
    await client.emit("no-such-verb", 1, 2)
    assert await refused(client, "subscribe") == "bad_request"
