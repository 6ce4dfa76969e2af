"""The bytes of PROTOCOL §3, as a client sees them on the wire."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.expect import exactly, in_order
from tests.support.socketio_wire import CONNECT, encode
from tests.support.times import MS, UNIT, eventually

both = pytest.mark.parametrize("transport", ["websocket", "polling"])
OFFSET = re.compile(r"^[1-9][0-9]{0,15}\Z")


@pytest.fixture
async def publisher(hub, raw):
    return await raw(hub.url)


async def resume(raw, hub, client, transport="websocket", **more):
    """Cut a session and continue it with what the stock client would send."""
    last = [args[-1] for _, args, _ in client.events if args][-1]
    await client.drop()
    return await raw(hub.url, transport, {"pid": client.reply["pid"], "offset": last, **more})


@both
async def test_connect_then_session(hub, raw, transport):
    """CONNECT is answered first, with sid and pid; then comes `hub:session`; nothing else."""
    client = await raw(hub.url, transport)
    session, offset = await client.session()
    reply, told = client.packets
    assert re.fullmatch(r'0\{"sid":"[^"]+","pid":"[^"]+"\}', reply)
    assert re.fullmatch(r'2\["hub:session",\{.*\},"[0-9]{1,16}"\]', told)
    assert set(session) == {"protocol", "client_id", "resumed", "missed", "rooms", "head"}
    assert session["protocol"] == 1
    assert session["resumed"] is None
    assert (session["missed"], session["rooms"]) == (0, [])
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", session["client_id"])
    assert re.fullmatch("[0-9]{1,16}", session["head"])
    assert int(offset) <= int(session["head"])


async def test_a_pid_is_a_session_and_a_secret(hub, raw):
    """A pid is `<session>.<at least 128 random bits>` and no two are alike."""
    pids = [(await raw(hub.url)).reply["pid"] for _ in range(20)]
    secrets = {pid.rpartition(".")[2] for pid in pids}
    assert len(secrets) == 20
    assert all(len(secret) >= 22 for secret in secrets)
    assert len({pid.rpartition(".")[0] for pid in pids}) == 20


@both
async def test_a_message(hub, raw, publisher, room, name, transport):
    """A message is its event with data, meta and offset."""
    client = await raw(hub.url, transport)
    await client.join(room)
    sender = await raw(hub.url, auth={"client_id": name})
    offset = await sender.publish(room, {"a": [1, None, 'é\u2028"', 1.5]}, event="über alles")
    assert OFFSET.match(offset)
    await eventually(lambda: client.named("über alles"))
    assert client.named("über alles") == [
        [{"a": [1, None, 'é\u2028"', 1.5]}, {"room": room, "from": name}, offset]
    ]
    text = client.packets[-1]
    assert text.startswith("2[")
    assert text.endswith(f',"{offset}"]')


@both
@pytest.mark.parametrize(
    "text", ["null", "0", "-0.0", '""', "[]", "{}", "true", "9007199254740993", "1e300", '"\\u0000"',
             '{"a":{"a":{"a":[[[]]]}}}', '{"a":1,"a":2}', '"\\ud83d\\ude00"', '"\\ud83d"', '"2[\\"x\\"]"'],
)  # fmt: skip
async def test_any_json_value_is_data(hub, raw, room, transport, text):
    """Data comes out as the value that went in, whatever it looks like."""
    client = await raw(hub.url, transport)
    await client.join(room)
    fields = f'{{"room":{json.dumps(room)},"event":"m","data":{text}}}'
    answer = await client.ask_text(f'["publish",{fields}]')
    assert answer["ok"] is True
    await exactly(client, [json.loads(text)])


@both
async def test_a_binary_message(hub, raw, publisher, room, transport):
    """A binary event has its placeholders counted, and its attachments follow at once."""
    client = await raw(hub.url, transport)
    await client.join(room)
    sent = [b"one", {"x": b"two", "y": [b""]}]
    await publisher.publish(room, sent)
    await exactly(client, [sent])
    index = next(i for i, packet in enumerate(client.packets) if str(packet)[0] == "5")
    assert client.packets[index].startswith('53-["m",')
    assert [bytes(packet) for packet in client.packets[index + 1 : index + 4]] == [
        b"one", b"two", b"",
    ]  # fmt: skip
    assert OFFSET.match(client.events[-1][1][-1])


@both
async def test_every_event_ends_with_the_position(hub, raw, publisher, room, transport):
    """Offsets of events never fall, and answers to verbs are no positions."""
    client = await raw(hub.url, transport)
    await client.join(room)
    for number in range(30):
        await publisher.publish(room, b"x" if number % 7 == 3 else number)
        await client.ask("history", {"room": room, "limit": 2})
    await eventually(lambda: len(client.data()) == 30)
    offsets = [int(args[-1]) for _, args, _ in client.events]
    assert offsets == sorted(offsets)
    assert all(number is None for _, _, number in client.events)
    in_order(client)


@both
async def test_a_resumed_session(hub, raw, publisher, room, transport):
    """CONNECT reply, `hub:session`, what was missed, live messages: in this order."""
    client = await raw(hub.url, transport)
    await client.join(room)
    first = await publisher.publish(room, 0)
    await exactly(client, [0])
    again_auth = {"pid": client.reply["pid"], "offset": first}
    await client.drop()
    offsets = [await publisher.publish(room, number) for number in range(1, 41)]
    again = await raw(hub.url, transport, again_auth)
    await publisher.publish(room, 41)
    await exactly(again, list(range(1, 42)))
    assert again.reply == client.reply
    assert again.packets[0].startswith("0{")
    session, position = await again.session()
    assert position == first
    assert session["resumed"] is not None
    assert session["rooms"] == [room]
    missed = sum(int(offset) <= int(session["head"]) for offset in offsets)
    assert session["missed"] in (missed, missed + (int(session["head"]) > int(offsets[-1])))
    assert [args[-1] for args in again.named("m")][:40] == offsets


async def test_polling_answers_hold_at_most_16_packets(hub, raw, publisher, room):
    """Stock Python clients drop a longer one, whole; a replay of hundreds stays within."""
    client = await raw(hub.url, "polling")
    await client.join(room)
    auth = {"pid": client.reply["pid"], "offset": client.events[-1][1][-1]}
    await client.drop()
    data = [b"x" if number % 5 == 0 else number for number in range(200)]
    for item in data:
        await publisher.publish(room, item)
    again = await raw(hub.url, "polling", auth)
    await exactly(again, data)
    assert max(again.payloads) <= 16


@both
async def test_args_data(hub, raw, publisher, room, name, transport):
    """With `args: "data"` events are `(data)` alone, and the CONNECT reply has no pid."""
    client = await raw(hub.url, transport, {"args": "data", "client_id": name})
    assert set(client.reply) == {"sid"}
    await eventually(lambda: client.named("hub:session"))
    (session,), = client.named("hub:session")  # fmt: skip
    assert session["client_id"] == name
    await client.join(room)
    await publisher.publish(room, {"n": 1})
    await publisher.publish(room, b"two")
    await eventually(lambda: len(client.named("m")) == 2)
    assert client.named("m") == [[{"n": 1}], [b"two"]]
    await client.drop()
    await publisher.publish(room, 3)
    again = await raw(hub.url, transport, {"args": "data", "client_id": name})
    await eventually(lambda: again.named("m")[-1:] == [[3]])


@both
async def test_bad_connect_auth_is_refused(hub, raw, transport):
    """Auth that no retry can mend is a CONNECT_ERROR with a message."""
    for auth in ({"args": "x"}, {"acks": "x"}, {"acks": 1}, {"client_id": 1}):
        client = await raw(hub.url, transport, auth=False)
        await client.connect(auth)
        assert client.packets[0].startswith("4{"), auth
        assert next(iter(auth)) in client.reply["message"]


@both
async def test_refused_connects_are_bounded(hub, raw, transport):
    """The fifth refusal ends the connection: none after it costs Redis anything."""
    somebody = await raw(hub.url)
    taken = (await somebody.session())[0]["client_id"]
    client = await raw(hub.url, transport, auth=False)
    await client.send(*encode(CONNECT, {"client_id": taken}) * 50)
    await eventually(lambda: client.closed)
    assert [packet[:1] for packet in client.packets] == ["4"] * 5
    assert not somebody.closed
    # A client that was refused can ask again, on another connection.
    again = await raw(hub.url, transport)
    assert (await again.session())[0]["client_id"] != taken


@both
@pytest.mark.parametrize("text", ["[]", "5", '"x"', "[1]"])
async def test_an_auth_that_is_no_object(hub, raw, transport, text):
    """Whatever CONNECT carries, the hub answers or closes, and lives on."""
    client = await raw(hub.url, transport, auth=False)
    await client.send("40" + text)
    await eventually(lambda: client.packets or client.closed)
    assert (await raw(hub.url)).reply


@both
@pytest.mark.parametrize(
    "resume", [{"pid": 5}, {"pid": ["x"]}, {"pid": "x" * 100_000}, {"pid": "a.b", "offset": 5},
               {"pid": "a.b", "offset": "x"}, {"pid": "a.b", "offset": "-1"}, {"offset": "5"},
               {"pid": None, "offset": None}, {"pid": "\x00.\x00"}],
    ids=lambda value: json.dumps(value)[:20],
)  # fmt: skip
async def test_a_mangled_resume(hub, raw, transport, resume):
    """Nonsense in pid or offset never continues anything: a new session or a refusal."""
    client = await raw(hub.url, transport, resume)
    if client.packets[0].startswith("0"):
        session, _ = await client.session()
        assert session["resumed"] is None
    else:
        assert client.reply["message"]


async def test_manual_acks(hub, raw, publisher, room, name):
    """Only `ack` moves the position: what was not acknowledged comes again."""
    auth = {"client_id": name, "acks": "manual"}
    client = await raw(hub.url, auth=auth)
    await client.join(room)
    offsets = [await publisher.publish(room, number) for number in range(5)]
    await exactly(client, list(range(5)))
    answer = await client.ask("ack", {"offset": offsets[2]})
    assert answer["ok"] is True
    await client.drop()
    await publisher.publish(room, 5)
    again = await raw(hub.url, auth=auth)
    await exactly(again, [3, 4, 5])
    _, position = await again.session()
    assert position == offsets[2]


async def test_an_ack_is_clamped(hub, raw, publisher, room, name):
    """Acknowledging what was never sent moves the position to what was, not beyond."""
    auth = {"client_id": name, "acks": "manual"}
    client = await raw(hub.url, auth=auth)
    await client.join(room)
    await publisher.publish(room, 0)
    await exactly(client, [0])
    assert (await client.ask("ack", {"offset": "9999999999999999"}))["ok"] is True
    await client.drop()
    await publisher.publish(room, 1)
    again = await raw(hub.url, auth=auth)
    await exactly(again, [1])
    assert again.named("hub:gap") == []


async def test_an_ack_never_moves_back(hub, raw, publisher, room, name):
    """An older `ack` after a newer one changes nothing."""
    auth = {"client_id": name, "acks": "manual"}
    client = await raw(hub.url, auth=auth)
    await client.join(room)
    offsets = [await publisher.publish(room, number) for number in range(3)]
    await exactly(client, [0, 1, 2])
    await client.ask("ack", {"offset": offsets[2]})
    assert (await client.ask("ack", {"offset": offsets[0]}))["ok"] is True
    await client.drop()
    await publisher.publish(room, 3)
    again = await raw(hub.url, auth=auth)
    await exactly(again, [3])


@both
async def test_an_answered_ping_is_proof(own_hub, raw, room, name, transport, parked):
    """Written back at once at a park: what came before an answered ping does not come again."""
    hub = await own_hub(ping_interval=300 * MS, ping_timeout=5 * UNIT)
    publisher = await raw(hub.url)
    client = await raw(hub.url, transport, {"client_id": name})
    await client.join(room)
    for number in range(5):
        await publisher.publish(room, number)
    await exactly(client, list(range(5)))
    seen = client.control.count("2")
    # The ping after next: the one on its way may be older than the messages.
    await eventually(lambda: client.control.count("2") >= seen + 3)
    await client.drop()
    # Not before: a name that comes again while its connection still counts is replayed from what was written back last. A
    # client that went between two polls is missed when its pong is overdue.
    await parked(hub, client)
    await publisher.publish(room, 5)
    again = await raw(hub.url, transport, {"client_id": name})
    await exactly(again, [5])


async def test_what_no_ping_proved_comes_again(hub, raw, publisher, room, name):
    """Without an offset and without proof, what was sent last is sent again: at least once."""
    client = await raw(hub.url, auth={"client_id": name})
    await client.join(room)
    await publisher.publish(room, 0)
    await exactly(client, [0])
    await client.drop()
    again = await raw(hub.url, auth={"client_id": name})
    await exactly(again, [0])


async def test_proof_survives_a_killed_hub(own_hub, raw, redis_server, room, name):
    """A proven position is written back within 5 s: a hub killed later repeats nothing."""
    hub = await own_hub(ping_interval=500 * MS)
    publisher = await raw(hub.url)
    client = await raw(hub.url, auth={"client_id": name})
    await client.join(room)
    for number in range(5):
        await publisher.publish(room, number)
    await exactly(client, list(range(5)))
    session, last = f"{hub.prefix}:{{0}}:session:{name}", client.events[-1][1][-1]
    # The bound itself, and a ping.
    await eventually(
        lambda: redis_server.client.hget(session, "pos") == last, 5 + 2 * UNIT
    )  # 5 s: PROTOCOL
    await hub.restart()
    publisher = await raw(hub.url)
    await publisher.publish(room, 5)
    again = await raw(hub.url, auth={"client_id": name})
    await exactly(again, [5])


async def test_41_ends_an_anonymous_session(hub, raw, publisher, room):
    """After a `41` its pid is unknown."""
    client = await raw(hub.url)
    await client.join(room)
    await client.send("41")
    again = await resume(raw, hub, client)
    session, _ = await again.session()
    assert session["resumed"] is None
    assert session["rooms"] == []


@both
async def test_engine_close_parks(hub, raw, publisher, room, transport):
    """An Engine.IO close leaves the session to come back to."""
    client = await raw(hub.url, transport)
    await client.join(room)
    await client.send("1")
    await publisher.publish(room, 1)
    again = await resume(raw, hub, client, transport)
    session, _ = await again.session()
    assert session["resumed"] is not None
    await exactly(again, [1])
