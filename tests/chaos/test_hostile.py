"""Clients that mean ill, at the level of the verbs: they are refused, slowed down or cut, and others do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json

import pytest

from hub.api.limits import BURST, SHARE, TOLERATED
from tests.chaos.leaks import resident
from tests.support.expect import exactly
from tests.support.hubs import Hub
from tests.support.light import Light, Refused
from tests.support.raw import Raw
from tests.support.redis import RedisServer
from tests.support.times import MS, SOON, UNIT, eventually

VERBS, PUBLISHES = 40, 100
# What is asked, and how often a second it may be.
FLOODS = {
    "subscribe": ('42%d["subscribe",{"room":"r"}]', VERBS),
    "unsubscribe": ('42%d["unsubscribe",{"room":"r"}]', VERBS),
    "history": ('42%d["history",{"room":"r"}]', VERBS),
    "publish": ('42%d["publish",{"room":"flood","event":"m","data":1}]', PUBLISHES),
    "ack": ('42%d["ack",{"offset":"1"}]', PUBLISHES),
    "malformed": ('42%d["publish",{"room":5}]', VERBS),
    "reserved": ('42%d["publish",{"room":"r","event":"disconnect","data":1}]', VERBS),
    "unknown": ('42%d["rob",{}]', VERBS),
}  # fmt: skip
# Above those that the drivers count for themselves.
_numbers = itertools.count(10_000_000)
floods = pytest.mark.parametrize(("packet", "rate"), FLOODS.values(), ids=FLOODS)


@pytest.fixture
async def hub(redis_server):
    """Start hubs under a prefix of the test's own: `await hub(**settings)`; `redis`: on another server."""
    started: list[Hub] = []
    prefix = f"hostile{next(_numbers)}"

    async def start(redis: RedisServer = redis_server, **settings: object) -> Hub:
        started.append(Hub(redis.url, prefix, **settings))
        return await asyncio.to_thread(started[-1].start)

    yield start
    for each in started:
        each.check()
        await asyncio.to_thread(each.close)


@pytest.fixture(scope="module")
def strict(redis_server):
    """One hub for the tests of this module that allows little."""
    hub = Hub(
        redis_server.url, "strict", verbs_per_second=VERBS, publishes_per_second=PUBLISHES
    ).start()
    yield hub
    hub.check()
    hub.close()


@pytest.fixture
async def others(raw):
    """Watch two bystanders over an attack: `async with others(hub): …`; every message between them arrives at once."""

    @contextlib.asynccontextmanager
    async def watch(hub: Hub):
        listener, talker = await raw(hub.url), await raw(hub.url)
        await listener.join("others")
        sent: list[int] = []
        over = asyncio.Event()

        async def talk() -> None:
            while not over.is_set():
                await asyncio.wait_for(talker.publish("others", len(sent)), SOON)
                sent.append(len(sent))
                await asyncio.sleep(20 * MS)

        talking = asyncio.create_task(talk())
        try:
            yield sent
        finally:
            over.set()
            await talking
        await exactly(listener, sent)
        assert not listener.closed
        assert not talker.closed
        await listener.drop()
        await talker.drop()

    return watch


def count(packet: str) -> str:
    return packet.replace("%d", str(next(_numbers)))


async def answers_to(client: Raw, packet: str, number: int) -> list[dict]:
    """Send a packet so often without waiting, and return what each was answered."""
    ids = [next(_numbers) for _ in range(number)]
    for each in ids:
        await client.send(packet.replace("%d", str(each)))
    return [await client.answer(each) for each in ids]


@floods
async def test_a_flood_is_refused_by_name_and_number(strict, raw, others, packet, rate):
    """Up to the burst all is as ever; then each verb is refused until its time comes, and the connection lives."""
    client = await raw(strict.url)
    burst = round(BURST * rate)
    async with others(strict):
        answers = await answers_to(client, packet, burst + TOLERATED // 2)
        refused = [
            answer
            for answer in answers
            if (answer.get("error") or {}).get("code") == "rate_limited"
        ]
        assert refused
        assert answers[: burst // 2] == [a for a in answers[: burst // 2] if a not in refused]
        error = refused[-1]["error"]
        assert error["retryable"] is True
        assert f"at most {rate} " in error["message"]
        assert "again in" in error["message"]
        await asyncio.sleep(300 * MS)
        (later,) = await answers_to(client, packet, 1)
        assert later not in refused
        assert not client.closed


@pytest.mark.parametrize("flood", ["history", "publish", "malformed"])
async def test_whoever_does_not_care_is_not_read(strict, others, flood):
    """A refusal costs something too: after many of them the connection is left alone for a while."""
    packet, rate = FLOODS[flood]
    client = await (await Light.open("127.0.0.1", strict.port)).connect()
    total, within = 50_000, 2 * UNIT
    async with others(strict) as sent:
        began = len(sent)
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        answered: list[str] = []
        client._packet = answered.append  # type: ignore[method-assign]
        for start in range(0, total, 500):
            for _ in range(start, start + 500):
                client.send(count(packet))
            await asyncio.sleep(0)
        await asyncio.sleep(max(0.0, until - loop.time()))
        passed = loop.time() - until + within
        assert len(answered) <= BURST * rate + VERBS * (BURST + passed) + (rate + TOLERATED) * (
            passed + 1
        )
        assert len(sent) - began > 10
    assert not client.closed.done()
    client.cut()


@pytest.mark.parametrize("event", ["hub:session", "rob", "message"])
async def test_events_without_an_acknowledgement_are_no_way_around(strict, others, event):
    """What is no verb and asks for no answer goes python-socketio's way, which is the longest: it is counted first."""
    client = await (await Light.open("127.0.0.1", strict.port)).connect()
    async with others(strict):
        for _ in range(5000):
            client.send(f'42["{event}",{{}}]')
        behind = client.ask("history", room="r")
        await asyncio.sleep(2 * UNIT)
        assert not behind.done()
        assert not client.closed.done()
    client.cut()


async def test_what_is_no_event_is_read_more_slowly(hub, others):
    """Packets that only python-socketio understands cost more than verbs do, and count as ten of them."""
    victim = await hub(events_per_second=1000)
    client = await (await Light.open("127.0.0.1", victim.port)).connect()
    async with others(victim):
        for _ in range(1000):
            client.send("430[1]")  # an acknowledgement that nobody has asked for
        behind = client.ask("history", room="r")
        await asyncio.sleep(2 * UNIT)
        assert not behind.done()
        assert not client.closed.done()
    client.cut()


async def test_what_is_under_way_is_bounded_in_bytes(hub, own_redis, raw):
    """A client publishes 40 MB while Redis is silent: the hub takes in some of it, and all once Redis speaks."""
    victim = await hub(
        own_redis,
        pending_bytes=1024 * 1024,
        redis_timeout=60 * UNIT,
        bus_silence=60 * UNIT,
        lease=60 * UNIT,
    )
    client = await raw(victim.url)
    await client.publish("r", "before")
    before = resident(victim.pid)
    own_redis.pause()
    try:
        text = json.dumps(["publish", {"room": "r", "event": "m", "data": "x" * 100_000}])
        sending = asyncio.gather(
            *(client.send(f"42{number}{text}") for number in range(1000, 1400))
        )
        await asyncio.sleep(1500 * MS)
        assert resident(victim.pid) - before < 12 * 1024
    finally:
        own_redis.resume()
    await sending
    for number in range(1000, 1400):
        assert (await client.answer(number))["ok"] is True


async def test_others_wait_for_a_bounded_part_of_any_flood(hub, own_redis, raw):
    """However many connections flood: of their verbs few are ahead of a bystander's, and all are answered in the end."""
    together = 50
    victim = await hub(
        own_redis,
        pending_together=together,
        redis_timeout=60 * UNIT,
        bus_silence=60 * UNIT,
        lease=60 * UNIT,
    )
    bystander = await raw(victim.url)
    flooders = [await (await Light.open("127.0.0.1", victim.port)).connect() for _ in range(8)]
    own_redis.pause()
    try:
        flood = [
            client.ask("publish", room="r", event="m", data=1)
            for client in flooders
            for _ in range(300)
        ]
        await asyncio.sleep(500 * MS)
        asked = asyncio.create_task(bystander.publish("others", "meanwhile"))
        await asyncio.sleep(200 * MS)
    finally:
        own_redis.resume()
    offset = int(await asked)
    answers = await asyncio.gather(*flood)
    assert all(answer["ok"] for answer in answers)
    ahead = sum(int(answer["offset"]) < offset for answer in answers)
    assert together < ahead <= together + len(flooders) * (SHARE + 1)


async def test_long_answers_wait_for_their_reader(hub, raw, others):
    """A client asks for more and more and reads nothing: the hub holds an answer or two for it, not megabytes."""
    victim = await hub(verbs_per_second=100_000)
    writer = await raw(victim.url)
    for _ in range(40):
        await writer.publish("long", "x" * 10_000)
    greedy = await raw(victim.url)
    before = resident(victim.pid)
    greedy.hold()
    async with others(victim):
        ids = range(1000, 1200)
        for number in ids:
            await greedy.send(f'42{number}["history",{{"room":"long","limit":40}}]')
        await asyncio.sleep(UNIT)
        assert resident(victim.pid) - before < 12 * 1024
    greedy.go_on()
    for number in ids:
        assert len((await greedy.answer(number))["messages"]) == 40


async def test_long_answers_count_as_many(hub, raw):
    """Reading much is asking much: of long pages fewer are answered than of short ones."""
    victim = await hub(verbs_per_second=VERBS)
    client = await raw(victim.url)
    for _ in range(30):
        await client.publish("long", "x" * 16_384)
    writer = await (await Light.open("127.0.0.1", victim.port)).connect()
    for fields in ({"room": "busy"}, {"room": "gone", "ttl": 0.001}):
        asked = [writer.ask("publish", event="m", data=1, **fields) for _ in range(500)]
        assert all(answer["ok"] for answer in await asyncio.gather(*asked))
    for room in ("long", "busy", "gone"):
        reader = await raw(victim.url)
        answers = [await reader.ask("history", {"room": room, "limit": 1000}) for _ in range(60)]
        assert 5 <= sum(answer["ok"] for answer in answers) <= 30
        assert answers[-1]["error"]["code"] == "rate_limited"


async def test_guessed_pids_open_nothing(hub, raw, others):
    """Neither a right name, generation and serial with another secret, nor any mutilation of the pid."""
    victim = await hub()
    owner = await raw(victim.url, client_id="owner")
    await owner.join("secret")
    client_id, generation, serial, secret = owner.reply["pid"].split(".")
    async with others(victim):
        for number in range(200):
            guess = [
                f"{client_id}.{generation}.{serial}.{'A' * 20}{number:04}",
                f"{client_id}.{generation}.{int(serial) + number + 1}.{secret}",
                f"{client_id}.{int(generation) - number - 1}.{serial}.{secret}",
                f"{client_id}..{serial}.{secret}", f"{client_id}.{generation}", "." * number, secret,
            ][number % 7]  # fmt: skip
            stranger = await Light.open("127.0.0.1", victim.port)
            await stranger.connect(pid=guess)
            assert stranger.pid != owner.reply["pid"]
            assert stranger.pid is not None
            assert stranger.pid.split(".")[0] != "owner"
            stranger.leave()
            await stranger.closed
    await owner.publish("secret", "still here")
    await exactly(owner, ["still here"])
    assert not owner.named("41")


async def test_a_stolen_pid_is_void_once_its_owner_has_come_by_name(hub, raw):
    """Who holds the pid holds the session; its owner takes it back, and for good."""
    victim = await hub()
    owner = await raw(victim.url, client_id="owner")
    await owner.join("secret")
    stolen = owner.reply["pid"]
    thief = await raw(victim.url, pid=stolen)
    await eventually(lambda: owner.named("41"))
    owner = await raw(victim.url, client_id="owner")
    await eventually(lambda: thief.named("41"))
    thief = await raw(victim.url, pid=stolen)
    session, _ = await thief.session()
    assert (session["resumed"], session["rooms"]) == (None, [])
    await owner.publish("secret", 1)
    await exactly(owner, [1])
    assert thief.data() == []


LIES = [
    "9999999999999999",
    "9" * 30,
    "0",
    "1",
    "-1",
    "1.5",
    "x",
    "",
    "\u0661",
    " 1",
    5,
    1e300,
    None,
    True,
    [],
    {},
    ["1"],
]


async def test_lies_about_the_offset_change_nothing_for_others(hub, raw, others):
    """Ahead is told as a reset, behind ends at the join, garbage counts as none; each client goes on from there."""
    victim = await hub()
    publisher = await raw(victim.url)
    await publisher.publish("r", "before anybody joined")
    async with others(victim):
        for lie in LIES:
            liar = await raw(victim.url)
            await liar.join("r")
            await publisher.publish("r", "heard")
            await exactly(liar, ["heard"])
            auth = {"pid": liar.reply["pid"], "offset": lie}
            await liar.drop()
            await publisher.publish("r", "missed")
            again = await raw(victim.url, **auth)
            session, position = await again.session()
            assert session["resumed"] is not None
            assert int(position) <= int(session["head"])
            await publisher.publish("r", "end")
            await eventually(lambda again=again: again.data()[-1:] == ["end"])
            if lie == "9999999999999999":
                assert [gap[0]["reason"] for gap in again.named("hub:gap")] == ["reset"]
            else:
                assert again.data() in (["missed", "end"], ["heard", "missed", "end"])
                assert again.named("hub:gap") == []
            await again.drop()


async def test_lies_in_acknowledgements_change_nothing(hub, raw):
    """An ack ahead of what was sent is clamped to it, one behind is none, and what follows is not lost."""
    victim = await hub()
    publisher = await raw(victim.url)
    liar = await raw(victim.url, client_id="liar", acks="manual")
    await liar.join("r")
    first = await publisher.publish("r", 1)
    await exactly(liar, [1])
    answer = await liar.ask("ack", {"offset": "9999999999999999"})
    assert answer["offset"] == first
    assert (await liar.ask("ack", {"offset": "1"}))["offset"] == first
    await liar.drop()
    await publisher.publish("r", 2)
    again = await raw(victim.url, client_id="liar", acks="manual")
    await exactly(again, [2])


async def test_a_client_that_never_acknowledges_costs_its_bounds(hub, raw, redis_server, others):
    """It gets the same again at each return, as far as the log goes; nothing grows, and all of it runs out."""
    life = 500 * MS
    victim = await hub(
        log_length=50, inbox_length=20, named_life=life, anonymous_life=life, log_age=life, dedupe_life=life
    )  # fmt: skip
    redis = redis_server.client
    before = set(redis.scan_iter(f"{victim.prefix}:*"))
    publisher = await raw(victim.url)
    async with others(victim):
        for _ in range(5):
            mute = await raw(victim.url, client_id="mute", acks="manual")
            await mute.join("r")
            for number in range(60):
                await publisher.publish("r", number)
            await eventually(lambda mute=mute: mute.data()[-1:] == [59])
            gen = redis.hget(f"{victim.prefix}:{{0}}:session:mute", "gen")
            assert redis.llen(f"{victim.prefix}:{{0}}:inbox:mute:{gen}") <= 21
            assert redis.xlen(f"{victim.prefix}:{{0}}:room:r:log") <= 50
            await mute.drop()
    await publisher.drop()
    left = before | {f"{victim.prefix}:{{0}}:clock"}
    await eventually(lambda: set(redis.scan_iter(f"{victim.prefix}:*")) <= left, 20 * UNIT)


async def test_sessions_of_an_address_are_bounded(hub, raw):
    """One address opens so many connections, and so many a second; others come in all the while."""
    victim = await hub(
        trusted_proxies="127.0.0.1", connections_per_address=30, newcomers_per_address=10
    )

    async def come(address: str) -> Light:
        return await Light.open("127.0.0.1", victim.port, address)

    stay = [await come("192.0.2.1") for _ in range(30)]
    for _ in range(10):
        with pytest.raises(Refused) as refused:
            await come("192.0.2.1")
        assert refused.value.status == 503
        assert refused.value.retry_after
    stay.append(await come("198.51.100.1"))
    # Opened and dropped at once they are counted all the same, and whoever has a network is one customer.
    let_in = 0
    for number in range(200):
        try:
            client = await come(f"2001:db8::{number:x}")
        except Refused:
            continue
        let_in += 1
        client.cut()
        await client.closed
    assert 90 <= let_in < 200
    stay.append(await come("2001:db8:0:1::1"))
    await raw(victim.url)
    for client in stay:
        assert not client.closed.done()
        client.cut()
