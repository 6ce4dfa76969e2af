"""Many rooms at once: subscribes that wait together are carried out together, and nobody sees a difference."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.support.expect import exactly
from tests.support.socketio_wire import EVENT, encode
from tests.support.times import eventually

both = pytest.mark.parametrize("transport", ["websocket", "polling"])


def subscribe(number, room, **fields):
    """Return the packet of a subscribe."""
    return encode(EVENT, ["subscribe", {"room": room, **fields}], number)[0]


@both
async def test_a_client_joins_many_rooms_at_once(hub, js, raw, redis_server, room, transport):
    """Few scripts for many rooms; each has its own answer, and each message arrives once."""
    client = await js(hub.url, transports=[transport])
    rooms = [f"{room}-{number}" for number in range(300)]

    def scripts():
        return redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"]

    before = scripts()
    answers = await asyncio.gather(*(client.ask("subscribe", {"room": each}) for each in rooms))
    assert scripts() - before < 100
    assert [(answer["ok"], answer["room"]) for answer in answers] == [
        (True, each) for each in rooms
    ]
    publisher = await raw(hub.url)
    for number in range(0, 300, 7):
        await publisher.publish(rooms[number], number)
    await exactly(client, list(range(0, 300, 7)))


@both
async def test_each_room_has_its_own_answer(own_hub, raw, room, name, transport):
    """Errors too, in the order in which they were asked; what asks for history is answered with it."""
    hub = await own_hub(rooms_per_session=6)
    client = await raw(hub.url, transport, {"client_id": name})
    old = await client.publish(room + "b", "old")
    rooms = {
        10: "a", 11: "b", 12: "a", 13: "c", 14: "d", 15: "e", 16: "f", 17: "a",
    }  # fmt: skip
    packets = [subscribe(number, room + letter) for number, letter in rooms.items()]
    packets.insert(2, subscribe(20, "@somebody-else"))
    packets.insert(2, subscribe(21, room + "b", history=5))
    packets.append(subscribe(22, "@" + name))
    packets.append(subscribe(23, ""))
    await client.send(*packets)
    await eventually(lambda: len(client.answers) == 12)
    answers = dict(client.answers)
    assert [number for number in answers if number != 23] == [10, 11, 21, 20, *range(12, 18), 22]
    fine = {number for number, answer in answers.items() if answer["ok"]}
    assert fine == {10, 11, 21, 12, 13, 14, 15, 17, 22}
    assert answers[20]["error"]["code"] == "forbidden"
    assert "at most 6 rooms" in answers[16]["error"]["message"]
    assert answers[23]["error"]["code"] == "bad_request"
    assert [message["data"] for message in answers[21]["messages"]] == ["old"]
    assert answers[10]["offset"] == answers[12]["offset"] == answers[17]["offset"] == old


async def test_subscribes_overtake_no_other_verb(hub, raw, room):
    """And none overtakes them: what is sent in a row takes effect in this order."""
    client = await raw(hub.url)

    def publish(number, data):
        fields = {"room": room, "event": "m", "data": data}
        return encode(EVENT, ["publish", fields], number)[0]

    await client.send(
        subscribe(1, room + "x"), subscribe(2, room), publish(3, "in"),
        encode(EVENT, ["unsubscribe", {"room": room}], 4)[0], publish(5, "out"),
        subscribe(6, room + "y"), subscribe(7, room), publish(8, "in again"),
    )  # fmt: skip
    await eventually(lambda: len(client.answers) == 8)
    offsets = {n: int(answer.get("offset", 0)) for n, answer in client.answers.items()}
    assert offsets[2] < offsets[3] < offsets[5] <= offsets[7] < offsets[8]
    await eventually(lambda: client.data()[-1:] == ["in again"])
    assert "out" not in client.data()


async def test_nothing_is_lost_between_joins_and_messages(hub, raw, room):
    """Every message after a room's join arrives, in order, while others publish all the time."""
    rooms = [f"{room}-{number}" for number in range(60)]
    publishers = [await raw(hub.url) for _ in range(2)]
    client = await raw(hub.url)
    published: list[tuple[int, str]] = []
    stop = False

    async def publish(publisher, mine):
        for each in itertools.cycle(mine):
            if stop:
                return
            published.append((int(await publisher.publish(each, 1)), each))

    publishing = [
        asyncio.create_task(publish(publisher, rooms[at::2]))
        for at, publisher in enumerate(publishers)
    ]
    await asyncio.sleep(0)
    await client.send(*(subscribe(number, each) for number, each in enumerate(rooms)))
    await eventually(lambda: len(client.answers) == len(rooms))
    joins = {answer["room"]: int(answer["offset"]) for answer in client.answers.values()}
    await eventually(lambda: len(client.data()) > 200)
    stop = True
    await asyncio.gather(*publishing)
    due = sorted(offset for offset, each in published if offset > joins[each])
    await eventually(lambda: len(client.data()) == len(due))
    assert [int(args[-1]) for args in client.named("m")] == due
