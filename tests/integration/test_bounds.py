"""Bounds and gaps: what a bound costs is told exactly, and nothing is left behind."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from tests.support.expect import exactly
from tests.support.narrow import BUFFER, Narrow
from tests.support.proxy import Proxy
from tests.support.socketio_wire import CONNECT, EVENT, encode, join_payload, split_payload
from tests.support.times import MS, SOON, UNIT, eventually, eventually_true

LOG, INBOX = 20, 10
both = pytest.mark.parametrize("transport", ["websocket", "polling"])


@pytest.fixture(scope="module")
def hub(start_hub):
    """A hub that keeps 20 messages of a room, and 10 references in an inbox."""
    return start_hub(log_length=LOG, inbox_length=INBOX)


@pytest.fixture(scope="module")
def forgetful(start_hub):
    """A hub whose messages are forgotten while the sessions that miss them live on."""
    return start_hub(log_age=500 * MS, anonymous_life=20 * UNIT)


@pytest.fixture
async def publisher(hub, raw):
    return await raw(hub.url)


async def leave(client):
    """Cut a bare connection; return what resumes its session."""
    last = [args[-1] for _, args, _ in client.events if args and isinstance(args[-1], str)][-1]
    auth = {"pid": client.reply["pid"], "offset": last}
    await client.drop()
    return auth


def accounts_for(client, published):
    """Every message published is received, or in exactly one gap that tells how many it has."""
    received = {int(args[-1]) for args in client.named("m")}
    gaps = [args[0] for args in client.named("hub:gap")]
    for gap in gaps:
        lost = [o for o in published if int(gap["after"]) < o < int(gap["before"])]
        assert gap["dropped"] in (len(lost), None)
        assert not received & set(lost)
        received |= set(lost)
    assert received >= set(published)


@both
async def test_an_overflowing_inbox_is_no_gap(hub, raw, publisher, room, transport):
    """References beyond the inbox are read from the log: all that the log has arrives."""
    client = await raw(hub.url, transport)
    await client.join(room)
    auth = await leave(client)
    for number in range(LOG):
        await publisher.publish(room, number)
    again = await raw(hub.url, transport, auth)
    await exactly(again, list(range(LOG)))
    assert again.named("hub:gap") == []


@both
async def test_log_overflow_is_a_gap(hub, raw, publisher, room, transport, parked):
    """What the log no longer has is told first, exactly, with the position before it."""
    client = await raw(hub.url, transport)
    await client.join(room)
    await publisher.publish(room, "heard")
    await exactly(client, ["heard"])
    await client.send("1")
    auth = await leave(client)
    await parked(hub, client)
    offsets = [int(await publisher.publish(room, number)) for number in range(50)]
    again = await raw(hub.url, transport, auth)
    await exactly(again, list(range(50 - LOG, 50)))
    (gap, told_at), = again.named("hub:gap")  # fmt: skip
    assert gap["room"] == room
    assert gap["reason"] == "overflow"
    assert int(auth["offset"]) <= int(gap["after"]) < offsets[0]
    assert offsets[50 - LOG - 1] < int(gap["before"]) <= offsets[50 - LOG]
    assert gap["dropped"] == 50 - LOG
    assert told_at == auth["offset"]
    assert [name for name, _, _ in again.events[:3]] == ["hub:session", "hub:gap", "m"]
    assert again.named("hub:session")[0][0]["missed"] == LOG
    accounts_for(again, offsets)


async def test_a_gap_comes_before_newer_messages_of_other_rooms(hub, raw, publisher, room):
    """No message of any room newer than the first lost one comes before the gap."""
    other = room + "b"
    client = await raw(hub.url)
    await client.join(room, other)
    auth = await leave(client)
    await publisher.publish(other, "older")
    offsets = []
    for number in range(LOG + 5):
        offsets.append(int(await publisher.publish(room, number)))
        if number == 2:
            await publisher.publish(other, "newer")
    again = await raw(hub.url, auth=auth)
    await eventually(lambda: again.data()[-1:] == [LOG + 4])
    story = [args[0] if name == "m" else name for name, args, _ in again.events[1:]]
    assert story.index("hub:gap") < story.index("newer")
    story.remove("hub:gap")
    assert story == ["older", "newer", *range(5, LOG + 5)]
    assert again.named("hub:gap")[0][0]["dropped"] == 5
    # Its offset lies before everything that is lost.
    assert int(again.named("hub:gap")[0][-1]) < offsets[0]
    accounts_for(again, offsets)


async def test_two_gaps(hub, raw, publisher, room):
    """Each room's gap is told by itself."""
    rooms = (room, room + "b")
    client = await raw(hub.url)
    await client.join(*rooms)
    auth = await leave(client)
    for number in range(2 * (LOG + 3)):
        await publisher.publish(rooms[number % 2], number)
    again = await raw(hub.url, auth=auth)
    await exactly(again, list(range(6, 2 * (LOG + 3))))
    gaps = {args[0]["room"]: args[0]["dropped"] for args in again.named("hub:gap")}
    assert gaps == dict.fromkeys(rooms, 3)


async def test_a_live_session_has_no_gap(hub, raw, publisher, room):
    """A log shorter than what passes through costs nobody who is there anything."""
    client = await raw(hub.url)
    await client.join(room)
    await asyncio.gather(*(publisher.publish(room, number) for number in range(200)))
    await exactly(client, list(range(200)))
    assert client.named("hub:gap") == []


async def test_expired_messages_are_a_gap_told_until_something_newer_came(forgetful, raw, room):
    """Nothing is left to replay: the gap is told at each return until a newer message came."""
    publisher = await raw(forgetful.url)
    client = await raw(forgetful.url)
    await client.join(room)
    auth = await leave(client)
    offsets = [int(await publisher.publish(room, number)) for number in range(5)]
    await asyncio.sleep(1200 * MS)  # messages age by nothing but time
    for _ in range(2):
        again = await raw(forgetful.url, auth=auth)
        await eventually(lambda again=again: again.named("hub:gap"))
        gap, told_at = again.named("hub:gap")[0]
        assert gap["room"] == room
        assert gap["reason"] == "expired"
        assert int(gap["after"]) < offsets[0]
        assert int(gap["before"]) > offsets[-1]
        assert gap["dropped"] in (5, None)
        assert told_at == auth["offset"]
        auth = await leave(again)
        assert auth["offset"] == told_at
    again = await raw(forgetful.url, auth=auth)
    await publisher.publish(room, "newer")
    await exactly(again, ["newer"])
    last = await raw(forgetful.url, auth=await leave(again))
    await publisher.publish(room, "end")
    await exactly(last, ["end"])
    assert last.named("hub:gap") == []


async def test_a_gap_reaches_a_javascript_client(hub, js, publisher, room):
    """The stock client recovers and is told; its position does not run ahead of the gap."""
    async with Proxy(hub.port) as proxy:
        client = await js(proxy.url, transports=["websocket"])
        await client.join(room)
        proxy.refuse = True
        proxy.cut()
        await eventually(lambda: client.disconnects)
        for number in range(LOG + 7):
            await publisher.publish(room, number)
        proxy.refuse = False
        assert (await client.back())["recovered"] is True
        await exactly(client, list(range(7, LOG + 7)))
        assert [args[0]["dropped"] for args in client.named("hub:gap")] == [7]


async def test_history_says_when_the_log_does_not_reach_back(hub, raw, publisher, room):
    """`subscribe` with a `since` that the log no longer reaches answers `gap: true`."""
    offsets = [await publisher.publish(room, number) for number in range(LOG + 5)]
    client = await raw(hub.url)
    answer = await client.ask("subscribe", {"room": room, "since": offsets[0]})
    assert answer["gap"] is True
    assert [message["data"] for message in answer["messages"]] == list(range(5, LOG + 5))
    other = await raw(hub.url)
    answer = await other.ask("subscribe", {"room": room, "since": offsets[-3]})
    assert answer["gap"] is False
    assert [message["data"] for message in answer["messages"]] == [LOG + 3, LOG + 4]


async def test_a_position_beyond_the_clock_is_a_reset(hub, raw, publisher, room):
    """A client from the future is told `reset` for its rooms and goes on from now."""
    client = await raw(hub.url)
    await client.join(room)
    auth = await leave(client)
    again = await raw(hub.url, auth={**auth, "offset": "9999999999999999"})
    await eventually(lambda: again.named("hub:gap"))
    gap, _ = again.named("hub:gap")[0]
    assert (gap["room"], gap["reason"], gap["dropped"]) == (room, "reset", None)
    session, offset = await again.session()
    assert int(offset) <= int(session["head"]) < 9999999999999999
    await publisher.publish(room, 1)
    await exactly(again, [1])


async def test_every_key_expires(own_hub, raw, redis_server, room, name):
    """Every key but the clock has an expiry, and none is left when all of them have passed."""
    prefix = f"bare{name[-6:]}"
    life = 500 * MS
    hub = await own_hub(
        prefix=prefix, anonymous_life=life, named_life=life, log_age=life,
        dedupe_life=life, lease=UNIT, log_length=5, inbox_length=3,
    )  # fmt: skip
    redis = redis_server.client
    bad: set[str] = set()
    seen: set[str] = set()

    def look() -> set[str]:
        keys = {key for key in redis.scan_iter(f"{prefix}*", count=1000)}  # noqa: C416
        for key in keys:
            if redis.ttl(key) == -1 and not key.endswith("clock"):
                bad.add(key)
        seen.update(keys)
        return keys

    publisher = await raw(hub.url)
    for auth in ({}, {"client_id": name}):
        client = await raw(hub.url, auth=auth)
        await client.join(room, room + "b")
        look()
        for number in range(8):
            await publisher.publish(room, number, id=f"id-{number}-{auth}")
            await publisher.publish(room, number, ttl=UNIT)
        await publisher.publish(room + "b", b"binary", echo=False)
        await publisher.publish(room, "gone", volatile=True)
        look()
        await leave(client)
        for number in range(8):
            await publisher.publish(room, number)
        look()
        pid = client.reply["pid"]
        again = await raw(hub.url, auth={"pid": pid})
        await again.session()
        await again.ask("ack", {"offset": "1"})
        look()
        await again.ask("unsubscribe", {"room": room + "b"})
        look()
        await leave(again)
        await publisher.publish(room, "missed")
        look()
    await publisher.drop()
    look()
    await asyncio.to_thread(hub.terminate)
    assert len(seen) > 5
    # Rooms' sets of absent clients outlive them, by a minute and two lives at most.
    late = 60_000 + 2000 * life

    def nothing_but_sets() -> bool:
        kept = {key for key in look() if not key.endswith("clock")}
        return all(key.endswith(":away") and redis.pttl(key) < late for key in kept)

    await eventually(nothing_but_sets, within=10 * UNIT, what=look)
    assert bad == set()


async def test_a_live_session_outlives_its_life(own_hub, raw, redis_server, room):
    """The life counts from the end of a connection: who stays connected keeps everything."""
    life = 500 * MS
    hub = await own_hub(anonymous_life=life, lease=500 * MS)
    client = await raw(hub.url)
    await client.join(room)
    await asyncio.sleep(4 * life)
    publisher = await raw(hub.url)
    await publisher.publish(room, 1)
    await exactly(client, [1])
    again = await raw(hub.url, auth=await leave(client))
    session, _ = await again.session()
    assert session["resumed"] is not None


async def test_settings_out_of_bounds_are_refused_at_start(own_hub):
    """A hub with a setting that makes no sense does not start, and says which."""
    with pytest.raises(AssertionError, match="LOG_LENGTH"):
        await own_hub(log_length=0)


async def test_a_history_answer_is_bounded(start_hub, raw, room):
    """No answer holds more messages than the setting says, whatever was asked for; `more` tells."""
    hub = await asyncio.to_thread(start_hub, history_limit=3)
    client = await raw(hub.url)
    offsets = [await client.publish(room, number) for number in range(5)]
    answer = await client.ask("history", {"room": room, "limit": 5})
    assert ([m["offset"] for m in answer["messages"]], answer["more"]) == (offsets[2:], True)
    for fields in ({"history": 5}, {"since": "0"}):
        other = await raw(hub.url)
        answer = await other.ask("subscribe", {"room": room, **fields})
        assert (len(answer["messages"]), answer["more"]) == (3, True)
    await asyncio.to_thread(hub.close)


async def test_rooms_of_a_session_are_bounded(own_hub, raw, room):
    """One room too many is refused; the session goes on."""
    hub = await own_hub(rooms_per_session=3)
    client = await raw(hub.url)
    await client.join(*(f"{room}{number}" for number in range(3)))
    answer = await client.ask("subscribe", {"room": room + "x"})
    assert answer["ok"] is False
    assert "3" in answer["error"]["message"]
    assert (await client.ask("unsubscribe", {"room": room + "0"}))["ok"] is True
    await client.join(room + "x")


async def test_a_slow_reader_is_parked_and_misses_nothing(own_hub, raw, room, js):
    """A client that does not read costs the hub a buffer; the rest waits in Redis, and comes."""
    hub = await own_hub(buffer_high=65536, buffer_low=16384, inbox_length=50)
    async with Proxy(hub.port) as proxy:
        slow = await js(proxy.url, transports=["websocket"])
        quick = await raw(hub.url)
        await slow.join(room)
        await quick.join(room)
        proxy.stall("down")
        publisher = await raw(hub.url)
        pad = "x" * 20_000
        # More than every buffer on the way together: the kernel's are megabytes.
        for start in range(0, 600, 20):
            await asyncio.gather(
                *(publisher.publish(room, [number, pad]) for number in range(start, start + 20))
            )
        await eventually(lambda: len(quick.data()) == 600)
        proxy.flow("down")
        await exactly(slow, [[number, pad] for number in range(600)], within=20 * UNIT)
        assert slow.disconnects == []


async def is_upgraded(client):
    return (await client.state())["transport"] == "websocket"


@pytest.fixture
async def narrow():
    """Connect clients that read only when told, closed after the test: `await narrow(port)`."""
    clients: list[Narrow] = []

    async def connect(port: int) -> Narrow:
        clients.append(Narrow())
        return await clients[-1].open(port)

    yield connect
    for client in clients:
        client.close()


async def still(count):
    """Wait until `count` returns the same number for a while; return that."""
    before = -1
    while (now := count()) != before:
        before = now
        await asyncio.sleep(300 * MS)
    return now


@both
async def test_answers_that_nobody_reads_are_bounded(
    own_hub, raw, narrow, redis_server, room, transport
):
    """No verb is carried out while too many answers are unread; afterwards all are, and all are answered in order."""
    hub = await own_hub(buffer_high=16384, buffer_low=4096)
    fields, most = {"room": room, "event": "m", "data": 1}, 9000
    log = f"{hub.prefix}:{{0}}:room:{room}:log"

    def carried_out():
        return redis_server.client.xlen(log)

    if transport == "websocket":
        client = await narrow(hub.port)
        sending = asyncio.create_task(client.ask(0, most, "publish", fields))
        # The kernel holds some 200 KB of them.
        assert 100 < await still(carried_out) < 0.8 * most
        while len(client.answers) < most:
            assert await client.read(65536)
        answers = client.answers
    else:
        client = await raw(hub.url, transport)
        client.hold()
        numbered = [encode(EVENT, ["publish", fields], number)[0] for number in range(most)]
        # The poll that is waiting may still be answered, with 16 packets.
        sending = asyncio.create_task(client.send(*numbered))
        assert 100 < await still(carried_out) < most / 2
        assert not sending.done()
        client.go_on()
        await eventually(lambda: len(client.answers) == most)
        answers = client.answers
    await sending
    assert list(answers) == list(range(most))
    offsets = [int(answer["offset"]) for answer in answers.values()]
    assert offsets == sorted(offsets)
    assert carried_out() == most


async def test_a_slow_reader_can_publish(own_hub, raw, narrow, room):
    """Messages that wait for a client keep none of its own verbs waiting."""
    hub = await own_hub(buffer_high=16384, buffer_low=4096, replay_bytes=16384)
    slow = await narrow(hub.port)
    publisher, other = await raw(hub.url), await raw(hub.url)
    await other.join(room + "b")
    await slow.ask(1, 1, "subscribe", {"room": room})
    while 1 not in slow.answers:
        await slow.read()
    for number in range(50):
        await publisher.publish(room, str(number) + "x" * 8000)
    await slow.ask(2, 100, "publish", {"room": room + "b", "event": "m", "data": 1})
    await eventually(lambda: len(other.data()) == 100)


async def test_a_client_that_takes_nothing_is_ended_and_a_slow_one_is_not(own_hub, narrow, room):
    """Both leave answers unread; the first is disconnected, the second is served to the end."""
    hub = await own_hub(
        buffer_high=16384, buffer_low=4096, ping_interval=500 * MS, ping_timeout=UNIT
    )
    # The kernel holds some 200 KB of answers to each: less than half of them.
    fields, most = {"room": room, "event": "m", "data": 1}, 12_000
    deaf, slow = await narrow(hub.port), await narrow(hub.port)
    lost = asyncio.create_task(deaf.ask(0, most, "publish", fields))
    served = asyncio.create_task(slow.ask(0, most, "publish", fields))
    # At this pace, reading takes several times as long as a ping may take.
    while len(slow.answers) < most:
        assert await slow.read(10_000)
        await asyncio.sleep(50 * MS)
    await served
    async with asyncio.timeout(2 * UNIT):
        while await deaf.read(65536):
            pass
    assert len(deaf.answers) < most
    await asyncio.wait([lost])
    lost.exception()  # where not all of it was taken in


async def test_a_flood_from_a_client_that_upgrades_is_answered(own_hub, js, room):
    """The stock client stops polling for the upgrade, and waits until all that it has posted is handled."""
    hub = await own_hub(buffer_high=16384, buffer_low=4096)
    client = await js(hub.url, wait=False)
    # Sent over polling as soon as it is connected, while it upgrades.
    fields = {"room": room, "event": "m", "data": 1}
    answers = await asyncio.gather(*(client.ask("publish", fields) for _ in range(3000)))
    assert all(answer["ok"] for answer in answers)
    assert client.disconnects == []
    await eventually_true(lambda: is_upgraded(client))


async def test_an_upgrade_ends_although_answers_are_unread(own_hub, raw, room):
    """From the answer to its probe on, a client polls no more, and waits for its POST before it upgrades."""
    hub = await own_hub(buffer_high=16384, buffer_low=4096)
    client, most = await raw(hub.url, "polling"), 3000
    client.hold()
    fields = {"room": room, "event": "m", "data": 1}
    numbered = [encode(EVENT, ["publish", fields], number)[0] for number in range(most)]
    posting = asyncio.create_task(client.send(*numbered))
    url = client.session_url.replace("polling", "websocket")
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as ws:
        await asyncio.wait([posting], timeout=300 * MS)
        assert not posting.done()
        await ws.send_str("2probe")
        assert await ws.receive_str() == "3probe"
        async with asyncio.timeout(SOON):
            await posting
        await ws.send_str("5")
        answered = sum(str(packet).startswith("3") for packet in client.packets)
        while answered < most:
            answered += (await ws.receive_str()).startswith("43")


async def test_a_poll_whose_response_is_read_slowly_does_not_end_the_session(start_hub, raw, room):
    """The ping cannot arrive before the rest of the response has, which takes longer than the ping timeout."""
    hub = start_hub(ping_interval=0.3 * UNIT, ping_timeout=1.0 * UNIT)
    narrow_socket = socket.socket()
    narrow_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    narrow_socket.connect(("127.0.0.1", hub.port))
    reader, writer = await asyncio.open_connection(sock=narrow_socket, limit=BUFFER)
    path = "/socket.io/?EIO=4&transport=polling"

    async def poll(pause: float = 0.0) -> list[str | bytes]:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = b""
        while len(body) < size:
            body += await reader.read(min(size - len(body), BUFFER // 2))
            await asyncio.sleep(pause)
        return split_payload(body.decode())

    async def post(*packets: str | bytes) -> None:
        async with http.post(f"{hub.url}{path}", data=join_payload(packets)) as response:
            assert response.status == 200

    async with aiohttp.ClientSession() as http:
        (handshake,) = await poll()
        path += f"&sid={str(handshake).split(chr(34))[3]}"
        await post(*encode(CONNECT), *encode(EVENT, ["subscribe", {"room": room}], 1))
        while not any(packet.startswith('431[{"ok":true') for packet in await poll()):
            pass
        await (await raw(hub.url)).publish(room, "x" * 900_000)
        began = asyncio.get_running_loop().time()
        while max(map(len, await poll(0.01 * UNIT))) < 900_000:
            await post("3")
        assert asyncio.get_running_loop().time() - began > 1.3 * UNIT
        await post("3")
        assert await poll()
    writer.close()
