"""Nothing stays behind of clients that have gone: not in the hub, and not in Redis once their lives have run out.

`make leaks` does so 100,000 times; what stays behind of each would show after fewer.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.chaos.leaks import LIFE, Held, cycles, held, resident, watched
from tests.support.hubs import Hub
from tests.support.light import Light
from tests.support.raw import Raw
from tests.support.times import MS, SOON, STEP, eventually_true

WARM_UP, CYCLES = 1500, 2000
# Libraries keep what they have seen, up to some hundreds.
CACHED = 1000


@pytest.fixture(scope="module")
def hub(redis_server):
    """One hub for the tests of this module that tells what it holds, and whose sessions live for a moment."""
    hub = watched(redis_server.url).start()
    yield hub
    hub.check()
    hub.close()


@pytest.fixture
async def impatient_hub(own_redis):
    """The same on a Redis of the test's own, for which it does not wait long."""
    hub = watched(own_redis.url, redis_timeout=200 * MS)
    await asyncio.to_thread(hub.start)
    yield hub
    hub.check()
    await asyncio.to_thread(hub.close)


def nothing_more(now: Held, before: Held) -> None:
    assert now.tasks == before.tasks
    assert now.files == before.files
    assert now.keys == before.keys
    assert now.objects - before.objects < CACHED, now.grown(before)
    assert now.memory - before.memory < 5 * 1024


@pytest.mark.slow
async def test_coming_and_going_leaves_nothing(hub, redis_server):
    """Over both transports, with and without a name, saying goodbye, cut off, and come back."""
    await cycles(hub, WARM_UP)
    before = await held(hub, redis_server.client)
    await cycles(hub, CYCLES)
    after = await held(hub, redis_server.client)
    nothing_more(after, before)
    # Nobody is left among those that the node serves either: that would be a fifth key.
    assert sorted(key.split(":")[2] for key in after.keys) == ["clock", "node", "nodes", "schema"]


async def polls_cut(hub: Hub, count: int) -> None:
    """Polling clients go while their poll waits."""
    for _ in range(count):
        client = await Raw(hub.url, "polling").open()
        await client.connect()
        await asyncio.sleep(3 * STEP)
        await client.drop()


async def posts_cut(hub: Hub, count: int) -> None:
    """Polling clients go in the middle of a body, or send one that is none."""
    for number in range(count):
        client = await Raw(hub.url, "polling").open()
        await client.connect()
        kind = "Content-Encoding: gzip\r\n" if number % 2 else ""
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        target = client.session_url.removeprefix(hub.url)
        writer.write(
            f"POST {target} HTTP/1.1\r\nHost: localhost\r\n{kind}Content-Length: 20\r\n\r\n42[".encode()
        )
        await writer.drain()
        if number % 2:
            await reader.read()
        else:
            await asyncio.sleep(STEP)
        writer.transport.abort()
        await client.drop()


async def probed(hub: Hub) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http, http.get(f"{hub.url}/held") as answer:
        return await answer.json()


@pytest.mark.parametrize("going", [cycles, polls_cut, posts_cut])
async def test_who_goes_is_let_go_of_at_once(hub, going):
    """Nothing of a connection waits for the garbage collector, which is seldom called for."""
    count = 50

    async def circles() -> int:
        """Return how many objects only the collector could find, once all are gone."""
        found, total = {"connections": 1}, 0
        while found["connections"]:
            found = await probed(hub)
            total += found["circles"]
        return total

    await going(hub, count)
    await circles()  # of what is made once
    await going(hub, count)
    assert await circles() < count / 10


async def test_who_waits_in_vain_leaves_nothing(impatient_hub, own_redis):
    """While Redis is away: nothing that gave up waiting for the channel of a room that others are in."""
    member = await (await Light.open("127.0.0.1", impatient_hub.port)).connect()
    asking = await (await Light.open("127.0.0.1", impatient_hub.port)).connect()
    await member.ask("subscribe", room="r")
    own_redis.kill()

    async def ask(times: int) -> dict[str, Any]:
        for _ in range(times):
            answer = await asking.ask("subscribe", room="r")
            assert answer["error"]["code"] == "unavailable"
        return await probed(impatient_hub)

    await ask(2)  # and what is made once
    before = await ask(2)
    after = await ask(8)
    more = {kind: count - before["kinds"].get(kind, 0) for kind, count in after["kinds"].items()}
    assert not {kind: count for kind, count in more.items() if count >= 8}
    assert after["circles"] < 8


FIELDS = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 8000) for number in range(100))
LONG = b"x" * 250_000
BAD = {
    "path": b"GET /nowhere HTTP/1.1\r\nHost: h\r\n" + FIELDS,
    "verb": b"PUT /healthz HTTP/1.1\r\nHost: h\r\n" + FIELDS,
    "expectation": b"GET /healthz HTTP/1.1\r\nHost: h\r\nExpect: x\r\n" + FIELDS,
    "method": b"G@T " + LONG,
    "TLS": b"\x16\x03\x01" + LONG,
    "field": b"GET / HTTP/1.1\r\nX: " + LONG,
    "chunk": b"POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + LONG,
}  # fmt: skip


@pytest.mark.parametrize("request_", BAD.values(), ids=BAD)
async def test_bad_requests_leave_nothing(hub, request_):
    """However long they are: nothing of them waits for the garbage collector."""

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        writer.write(request_ + b"\r\n")
        assert (await asyncio.wait_for(reader.readline(), SOON)).split()[1][:1] == b"4"
        writer.transport.abort()

    for _ in range(10):
        await ask()
    before = resident(hub.pid)
    for _ in range(100):
        await ask()
    assert resident(hub.pid) - before < 5 * 1024


@pytest.mark.slow
async def test_thousands_of_sessions_opened_and_dropped(hub, redis_server):
    """Two thousand at a time, each in a room of its own, all cut off at once: all of it runs out."""

    async def crowd(count: int) -> None:
        clients = []
        for start in range(0, count, 100):
            opened = await asyncio.gather(*(Light.open("127.0.0.1", hub.port) for _ in range(100)))
            await asyncio.gather(*(client.connect() for client in opened))
            for number, client in enumerate(opened):
                client.ask("subscribe", room=f"own-{start + number}")
                client.ask("publish", room=f"own-{start + number}", event="m", data="x" * 100)
            clients += opened
        await clients[-1].ask("history", room="r")
        for client in clients:
            client.cut()
        await asyncio.gather(*(client.closed for client in clients))

    await crowd(2000)
    before = await held(hub, redis_server.client)
    await crowd(2000)
    redis = redis_server.client
    endless = {
        key for key in redis.scan_iter(f"{hub.prefix}:*", count=1000) if redis.ttl(key) == -1
    }
    assert endless <= {f"{hub.prefix}:{{0}}:clock"}

    async def ran_out() -> bool:
        return len(redis.keys(f"{hub.prefix}:*")) == len(before.keys)

    await eventually_true(ran_out, within=60 * LIFE)
    nothing_more(await held(hub, redis), before)
