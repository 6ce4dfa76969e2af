"""A hub under a path prefix: everything is there and nothing elsewhere, for every kind of client."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from hub.client import Publisher
from tests.integration.test_hosts import status_of
from tests.support.stock import Stock
from tests.support.times import UNIT, eventually

TRANSPORTS = [["polling"], ["websocket"], ["polling", "websocket"]]
every_transport = pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)
BASE = "/tools/hub"


@pytest.fixture(scope="module")
def based(start_hub):
    return start_hub(base_path=BASE)


async def test_everything_is_under_the_base_path_alone(based):
    assert f"http://127.0.0.1:{based.port}{BASE}/\n" in based.stdout
    polling = "/socket.io/?EIO=4&transport=polling"
    paths = ("/", "/healthz", "/readyz", "/static/app.js", "/socket.io/socket.io.min.js", polling)
    async with aiohttp.ClientSession() as http:
        for path in paths:
            assert await status_of(http, based.url + BASE + path) == 200
            assert await status_of(http, based.url + path) == 404
        assert await status_of(http, f"{based.url}{BASE}x/") == 404


async def test_the_page_without_its_last_slash_is_found(based):
    """The answer leads to the page by its path alone: a proxy's host name is not the hub's to know."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(based.url + BASE, allow_redirects=False) as answer,
    ):
        assert (answer.status, answer.headers["Location"]) == (308, f"{BASE}/")


@every_transport
async def test_stock_clients_connect_with_their_path_option(based, js, room, transports):
    page = await js(based.url, transports=transports, path=f"{BASE}/socket.io")
    await page.join(room)
    stock = Stock()
    await stock.sio.connect(
        based.url, transports=transports, socketio_path=f"{BASE}/socket.io", wait_timeout=5 * UNIT
    )
    try:
        await stock.sio.call("subscribe", {"room": room})
        await page.ask("publish", {"room": room, "event": "m", "data": 1})
        await eventually(lambda: page.data() == [1] and stock.data() == [1])
    finally:
        await stock.sio.shutdown()


@every_transport
@pytest.mark.parametrize("end", ["", "/"])
async def test_the_hubs_clients_take_it_from_their_url(based, client, room, transports, end):
    url = based.url + BASE + end
    reader = await client(url, transports=transports)
    got = []
    reader.on("m")(lambda data, meta: got.append(data))
    await reader.subscribe(room)

    def publish() -> None:
        with Publisher(url, transports=transports) as publisher:
            publisher.publish(room, "m", "hello")

    await asyncio.to_thread(publish)
    await eventually(lambda: got == ["hello"])
