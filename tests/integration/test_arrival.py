"""Clients that return no offset: repeats are about the last second's, and nobody else is pinged for it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time

import pytest

from tests.support.expect import at_least_once
from tests.support.raw import Raw
from tests.support.times import UNIT, eventually

both_transports = pytest.mark.parametrize("transport", ["websocket", "polling"])


@pytest.mark.slow
@both_transports
async def test_repeats_are_the_last_seconds(hub, proxy, stock, raw, room, name, transport):
    """The stock Python client is cut every two seconds: what is older than about a second does not come again."""
    publisher = await raw(hub.url)
    client = await stock(proxy.url, transport, client_id=name)
    await client.sio.call("subscribe", {"room": room})
    sent: list[int] = []
    over = asyncio.Event()

    async def publish():
        while not over.is_set():
            await publisher.publish(room, len(sent))
            sent.append(len(sent))
            await asyncio.sleep(0.05)  # the pings come by the second

    publishing = asyncio.create_task(publish())
    for turn in range(1, 5):
        await asyncio.sleep(2)
        # Where the answer to a poll had not begun, aiohttp sends the poll once more, and the client notices nothing.
        while len(client.sessions) == turn:
            proxy.cut()
            with contextlib.suppress(AssertionError):
                await eventually(lambda turn=turn: len(client.sessions) > turn, within=UNIT)
        assert len(client.sessions) == turn + 1
    over.set()
    await publishing
    await eventually(lambda: client.data()[-1:] == sent[-1:])
    assert at_least_once(client.data(), sent)
    often = collections.Counter(client.data())
    # Twenty messages a second; each loss brings those of the last second again, or not much more.
    repeated = sum(often.values()) - len(often)
    assert repeated <= 4 * 35
    assert max(often.values()) <= 3


async def pings(client, publisher, room, seconds):
    """Return how often a client is pinged while a message comes every now and then."""
    before = client.control.count("2")
    for _ in range(10 * seconds):
        await publisher.publish(room, 0)
        await asyncio.sleep(0.1)
    return client.control.count("2") - before


@both_transports
async def test_who_is_pinged(hub, raw, room, name, transport):
    """At most once a second, and neither who returns its pid, nor who acknowledges by hand, nor who has no name."""
    publisher = await raw(hub.url)
    pid = (await raw(hub.url, transport, auth={"client_id": f"p{name}"})).reply["pid"]
    kinds = {
        "name alone": {"client_id": f"a{name}"},
        "data only": {"client_id": f"b{name}", "args": "data"},
        "another's pid": {"client_id": f"d{name}", "pid": pid, "offset": "1"},
        "pid": {"client_id": f"p{name}", "pid": pid},
        "manual": {"client_id": f"c{name}", "acks": "manual"},
        "anonymous": {},
    }
    clients = {kind: await raw(hub.url, transport, auth=auth) for kind, auth in kinds.items()}
    for client in clients.values():
        await client.join(room)
    counts = await asyncio.gather(
        *(pings(client, publisher, room, 3) for client in clients.values())
    )
    found = dict(zip(clients, counts, strict=True))
    assert 2 <= found.pop("name alone") <= 4
    assert 2 <= found.pop("data only") <= 4
    assert 2 <= found.pop("another's pid") <= 4
    assert set(found.values()) == {0}
    # Once all has arrived there is nothing to ask for.
    await asyncio.sleep(1.5)
    assert await pings(clients["name alone"], publisher, room + "x", 2) == 0


class Stamped(Raw):
    """A polling client that marks each of its requests, as the stock clients do."""

    @property
    def session_url(self) -> str:
        return f"{super().session_url}&t=n{time.monotonic_ns()}"


async def test_a_poll_proves_the_answer_before_it(hub, raw, redis_server, room, name):
    """A polling client that never answers a ping: what it has got does not come again."""
    publisher = await raw(hub.url)
    client = await Stamped(hub.url, "polling", pong=False).open()
    await client.connect({"client_id": name})
    await client.join(room)
    last = await publisher.publish(room, 1)
    await eventually(lambda: client.data() == [1])
    key = f"{hub.prefix}:{{0}}:session:{name}"
    await eventually(
        lambda: int(redis_server.client.hget(key, "pos")) >= int(last), within=8 * UNIT
    )
    await client.drop()
