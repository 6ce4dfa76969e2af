"""Deploys and full hubs: clients come back as a ramp, nothing is lost, and nobody waits for those who are gone."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.deploy import deploy
from tests.support.hubs import Hub
from tests.support.light import Light, Refused
from tests.support.raw import Raw
from tests.support.socketio_wire import CONNECT, decode, split_payload
from tests.support.times import MS, UNIT, eventually, eventually_true

CLIENTS = 400
DRAIN = 4 * UNIT


@pytest.fixture
async def hub(redis_server):
    """Start hubs one after the other on one Redis: `await hub(**settings)`."""
    started: list[Hub] = []

    async def start(**settings: object) -> Hub:
        started.append(Hub(redis_server.url, "deploy", **settings))
        return await asyncio.to_thread(started[-1].start)

    yield start
    for each in started:
        await asyncio.to_thread(each.close)
        each.check()


@pytest.mark.slow
async def test_a_deploy_is_a_ramp_and_loses_nothing():
    """Everybody comes back by the same session and has heard everything; nobody is away longer than promised."""
    async with Cluster(hubs=2, doors=0, drain=DRAIN) as cluster:
        result = await deploy(*cluster.hubs, CLIENTS)
        cluster.check()
    assert result.wrong() == []
    assert set(result.codes) <= {1001, 1012, 1013}
    assert result.longest < DRAIN + 2 * UNIT
    # Evenly, though a busy machine may see what happened in some of the 20 spells at once.
    assert result.most_within(DRAIN / 8) < 0.4 * CLIENTS
    assert len({round(20 * when / DRAIN) for when in result.let_go}) > 10


async def test_a_few_clients_are_not_kept_waiting(hub, raw):
    """The time is for crowds: a hub with two clients ends soon."""
    old = await hub(drain=30 * UNIT)
    for _ in range(2):
        await raw(old.url)
    began = time.monotonic()
    assert await asyncio.to_thread(old.terminate) == 0
    assert time.monotonic() - began < 10 * UNIT


async def test_vanished_clients_do_not_hold_up_the_end(hub):
    """Polling clients for whom something is left and who will never fetch it."""
    old = await hub(drain=100 * MS, ping_interval=60 * UNIT, ping_timeout=60 * UNIT)
    async with aiohttp.ClientSession() as http:
        for _ in range(20):
            url = f"{old.url}/socket.io/?EIO=4&transport=polling"
            async with http.get(url) as answer:
                sid = decode(split_payload(await answer.text())[0]).data["sid"]
            async with http.post(f"{url}&sid={sid}", data=CONNECT) as answer:
                assert answer.status == 200
    began = time.monotonic()
    assert await asyncio.to_thread(old.terminate) == 0
    assert time.monotonic() - began < 4 * UNIT


async def test_polling_goes_on_until_a_client_is_let_go(hub, raw):
    """A hub that drains takes no newcomers; those who are inside send and receive over new TCP connections too."""
    old = await hub(drain=4 * UNIT)
    others = [await raw(old.url) for _ in range(30)]
    client = await Raw(old.url, "polling").open()
    await client.connect()
    await client.join("r")
    ending = asyncio.create_task(asyncio.to_thread(old.terminate))
    try:
        await eventually(lambda: others[0].closed)
        with pytest.raises(Refused) as refused:
            await Light.open("127.0.0.1", old.port)
        assert refused.value.status == 503
        assert refused.value.retry_after
        async with aiohttp.ClientSession() as http:
            url = f"{client.session_url}"
            text = '42["publish",{"room":"r","event":"m","data":1}]'
            async with http.post(url, data=text) as answer:
                assert answer.status == 200
        await eventually(lambda: client.data() == [1])
        await eventually(lambda: client.closed)
        assert client.status == 400
    finally:
        assert await ending == 0
        await client.drop()


async def test_a_full_hub_sheds_load(hub, raw):
    """Newcomers hear 503 and when to come back; those who are inside notice nothing, and there is room again."""
    full = await hub(max_connections=20)
    inside = [await raw(full.url) for _ in range(20)]
    await inside[0].join("r")
    for _ in range(300):
        with pytest.raises(Refused) as refused:
            await Light.open("127.0.0.1", full.port)
        assert refused.value.status == 503
        assert refused.value.retry_after
    await inside[1].publish("r", 1)
    await eventually(lambda: inside[0].data() == [1])
    assert not any(each.closed for each in inside)
    await inside[-1].drop()

    async def let_in():
        try:
            (await Light.open("127.0.0.1", full.port)).cut()
        except Refused:
            return False
        return True

    await eventually_true(let_in)
