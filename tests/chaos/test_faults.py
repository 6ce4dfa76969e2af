"""What users see while something is broken: a clear refusal, nothing half done, and a recovery by itself."""

from __future__ import annotations

import asyncio
import itertools
import time

import aiohttp
import pytest

from tests.support.expect import exactly
from tests.support.raw import Raw
from tests.support.socketio_wire import CONNECT, decode, encode, join_payload, split_payload
from tests.support.times import SOON, UNIT, eventually, eventually_true

# Seconds that Redis cannot be reached: four times what a command may take, a lease lasts, a ping is waited for, and long
# enough for the hubs to try at their slowest pace. `make chaos` has half a minute.
AWAY = 12 * UNIT


async def refused(client, room, key):
    """Publish once; the answer is the refusal that says: outcome unknown, try again."""
    answer = await client.ask("publish", {"room": room, "event": "m", "data": key, "id": key})
    assert answer["ok"] is False, answer
    assert answer["error"]["code"] == "unavailable"
    assert answer["error"]["retryable"] is True


async def insist(client, room, key):
    """Publish until it is acknowledged, as PROTOCOL §4 asks."""

    async def once():
        answer = await client.ask("publish", {"room": room, "event": "m", "data": key, "id": key})
        return answer["ok"]

    await eventually_true(once)


async def test_a_full_redis_refuses_and_does_nothing_by_halves(cluster, raw):
    """A refused publish is in no log, in no inbox and on no bus; those who are connected stay, others may return."""
    redis = cluster.redis.client
    present = await raw(cluster.hubs[0].url)
    absent = await raw(cluster.hubs[1].url, client_id="absent")
    producer = await raw(cluster.hubs[0].url, client_id="producer")
    await present.join("r")
    await absent.join("r")
    await absent.drop()
    session = "chaos:{0}:session:absent"
    await eventually(lambda: redis.hget(session, "away") == "1")
    await producer.publish("r", "before")
    inbox = f"chaos:{{0}}:inbox:absent:{redis.hget(session, 'gen')}"
    before = redis.xlen("chaos:{0}:room:r:log"), redis.llen(inbox), redis.get("chaos:{0}:clock")

    redis.config_set("maxmemory", "1")
    for number in range(3):
        await refused(producer, "r", f"refused {number}")
    after = redis.xlen("chaos:{0}:room:r:log"), redis.llen(inbox), redis.get("chaos:{0}:clock")
    assert before == after
    back = await raw(cluster.hubs[0].url, client_id="absent")
    await exactly(back, ["before"])
    assert not present.closed

    redis.config_set("maxmemory", "0")
    await insist(producer, "r", "refused 0")
    for client in (present, back):
        await exactly(client, ["before", "refused 0"])


@pytest.mark.slow
async def test_redis_is_away_and_clients_stay(cluster, raw):
    """No connection ends, /readyz tells, publishes are refused whole, and all goes on by itself.

    The hubs try again after 50 ms, doubled up to 2 s and jittered down to a half, for each of two connections.
    """
    subscriber = await raw(cluster.hubs[0].url)
    polling = Raw(cluster.hubs[1].url, "polling")
    await polling.open()
    await polling.connect()
    producer = await raw(cluster.hubs[1].url, client_id="producer")
    for client in (subscriber, polling):
        await client.join("r")
    await producer.publish("r", "before")
    began = time.monotonic()
    for wire in cluster.wires:
        wire.refuse = True
        wire.blackhole()
    # The first one is on its way when the silence is noticed; the next ones are refused at once.
    await refused(producer, "r", "meanwhile 0")
    for number in (0, 1):
        await eventually_true(lambda number=number: unready(cluster, number))
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{cluster.hubs[number].url}/healthz") as answer,
        ):
            assert answer.status == 200
    asked = time.monotonic()
    await refused(producer, "r", "meanwhile 1")
    assert time.monotonic() - asked < UNIT
    # A client that comes now is told to come back, and not for good.
    newcomer = await Raw(cluster.hubs[0].url).open()
    await newcomer.send("40")
    await eventually(lambda: newcomer.closed)
    assert newcomer.reply is None
    assert newcomer.close_code in (1001, 1012, 1013)
    await newcomer.drop()
    noticed = time.monotonic()
    await asyncio.sleep(began + AWAY - noticed)
    ended = time.monotonic()
    away = ended - noticed
    for wire in cluster.wires:
        tried = [at for at in wire.tried if noticed <= at <= ended]
        pauses = [later - earlier for earlier, later in itertools.pairwise(tried)]
        assert 0.9 * away <= len(tried) <= 2 * away + 12
        assert max(pauses) < 2 + UNIT  # 2 s is the product's own
        assert len({round(pause, 2) for pause in pauses}) > len(pauses) / 2, "not jittered"
    for wire in cluster.wires:
        wire.refuse = False
    await cluster.ready(4 * UNIT)
    for number in range(3):
        await insist(producer, "r", f"meanwhile {number}")
    for client in (subscriber, polling):
        await exactly(client, ["before", "meanwhile 0", "meanwhile 1", "meanwhile 2"])
        assert len(client.named("hub:session")) == 1
        assert not client.closed
    assert not producer.closed
    await polling.drop()


async def unready(cluster, number):
    return await cluster.readiness(number) == 503


async def test_a_redis_that_takes_connections_and_ends_them(cluster):
    """A balancer takes every connection though no Redis is behind it: attempts are paced all the same."""
    wire = cluster.wires[0]
    wire.refuse = True
    wire.cut()
    count = wire.count
    await asyncio.sleep(3 * UNIT)
    # 50 ms, doubled up to 2 s, jittered down to a half; for each of two connections.
    assert 4 <= wire.count - count <= 20
    wire.refuse = False
    await cluster.ready()


async def test_a_connection_that_is_lost_again_and_again_is_made_again_as_soon(cluster):
    """Only attempts that fail slow down the next: here each loss would cost twice as much as the one before."""
    wire, redis = cluster.wires[0], cluster.redis.client
    for _ in range(7):
        killed = time.monotonic()
        redis.execute_command("CLIENT", "KILL", "TYPE", "normal")
        await eventually(lambda killed=killed: wire.tried[-1] > killed, UNIT)
        await cluster.ready()


async def test_a_connect_that_comes_too_late_puts_nobody_out(cluster, raw):
    """A stopped node reads, when it goes on, the CONNECT of a connection that its client has long given up.

    The client is connected elsewhere by then. Its newest connection may be ended by this, but not for good.
    """
    stopped, other = cluster.hubs
    first = await raw(other.url)
    await first.join("r")
    pid = first.reply["pid"]
    await first.drop()
    late = await Raw(stopped.url).open()
    stopped.freeze()
    await late.send(*encode(CONNECT, {"pid": pid}))
    await late.drop()
    second = await raw(other.url, pid=pid)
    assert second.reply["pid"] == pid
    stopped.thaw()
    owner = cluster.redis.client.hget
    session = f"chaos:{{0}}:session:{pid.split('.')[0]}"
    await eventually(lambda: second.closed or second.named("41"), SOON)
    assert not second.named("41")
    assert second.close_code in (1001, 1012, 1013)
    third = await raw(other.url, pid=pid)
    assert third.reply["pid"] == pid
    assert owner(session, "owner")


async def test_a_newer_connection_elsewhere_puts_the_older_out(cluster, raw):
    """The older one is told 41, and for good: two clients of one name do not take turns for ever."""
    older = await raw(cluster.hubs[0].url, client_id="twin")
    newer = await raw(cluster.hubs[1].url, client_id="twin")
    await eventually(lambda: older.named("41"))
    assert not newer.closed


async def test_an_ack_of_a_replaced_connection_is_not_stored_and_not_answered(cluster, raw):
    """Its node is deaf, and does not know yet that a newer one took the session over; Redis does."""
    older = await raw(cluster.hubs[0].url, client_id="ada", acks="manual")
    await older.join("r")
    producer = await raw(cluster.hubs[1].url)
    offset = await producer.publish("r", "one")
    await exactly(older, ["one"])
    listed = cluster.redis.client.client_list("pubsub")
    cluster.wires[0].swallow({int(entry["addr"].rpartition(":")[2]) for entry in listed})
    newer = await raw(cluster.hubs[1].url, client_id="ada", acks="manual")
    with pytest.raises(AssertionError, match="closed instead of an answer"):
        await older.ask("ack", {"offset": offset})
    await exactly(newer, ["one"])


async def test_a_poll_that_is_sent_again_loses_nothing(cluster, raw):
    """HTTP clients repeat a GET whose connection broke; the answer to the first may be lost, and nobody knows.

    The session ends, its client comes back with the offset that it has, and gets what was in that answer.
    """
    client = await raw(cluster.hubs[0].url)
    await client.join("r")
    auth = {"pid": client.reply["pid"], "offset": client.named("hub:session")[0][-1]}
    await client.drop()
    producer = await raw(cluster.hubs[0].url)
    async with aiohttp.ClientSession() as http:
        await producer.publish("r", "one")
        url = f"{cluster.hubs[0].url}/socket.io/?EIO=4&transport=polling"
        async with http.get(f"{url}&t=a") as answer:
            sid = decode(split_payload(await answer.text())[0]).data["sid"]
        connect = join_payload(encode(CONNECT, auth))
        async with http.post(f"{url}&sid={sid}", data=connect) as answer:
            assert answer.status == 200
        heard, last = "", url
        while '"one"' not in heard:
            async with http.get(f"{url}&sid={sid}&t={len(heard)}-") as answer:
                assert answer.status == 200
                heard += await answer.text()
                last = answer.url
        async with http.get(last) as answer:
            assert answer.status == 400
        again = await raw(cluster.hubs[0].url, **auth)
        await exactly(again, ["one"])
