"""The README's first page: the hub on its own embedded server, stock clients, a cut, and what was missed."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.expect import at_least_once, exactly
from tests.support.hubs import Hub
from tests.support.proxy import Proxy
from tests.support.times import UNIT, eventually

PAIRS = [("websocket", "websocket"), ("polling", "polling")]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub started by its command, with nothing but a directory."""
    hub = Hub(data_dir=tmp_path_factory.mktemp("data"))
    yield hub.start()
    hub.check()
    hub.close()


@pytest.mark.parametrize(("node", "python"), PAIRS)
async def test_both_clients_get_what_they_missed(hub, js, stock, client, node, python):
    """Both lose the connection, messages are published meanwhile, both return and get them.

    The JavaScript client gets exactly those, the stock Python client at least those.
    """
    room = f"news-{node}"
    async with Proxy(hub.port) as network:
        page = await js(network.url, transports=[node])
        await page.join(room)
        script = await stock(network.url, python, client_id=f"reader-{node}")
        answer = await script.sio.call("subscribe", {"room": room})
        assert answer["ok"] is True
        producer = await client(hub.url)

        await producer.publish(room, "m", "one")
        await exactly(page, ["one"])
        await eventually(lambda: script.data() == ["one"])

        network.refuse = True
        network.cut()
        await eventually(lambda: page.disconnects and script.disconnects)
        for missed in ("two", "three", "four"):
            await producer.publish(room, "m", missed)
        network.refuse = False

        assert (await page.back())["recovered"] is True
        await exactly(page, ["one", "two", "three", "four"])
        await eventually(lambda: script.data()[-1:] == ["four"])
        assert at_least_once(script.data(), ["one", "two", "three", "four"])
        assert script.sessions[1]["resumed"] is not None

        await producer.publish(room, "m", "five")
        await exactly(page, ["one", "two", "three", "four", "five"])
        await eventually(lambda: script.data()[-1:] == ["five"])


async def test_the_embedded_server_keeps_it_all(hub, js, client):
    """The same across a `kill -9` of the hub and its restart on the same directory."""
    page = await js(hub.url, transports=["websocket"])
    await page.join("kept")
    producer = await client(hub.url, answer_timeout=2 * UNIT)
    for number in range(10):
        await producer.publish("kept", "m", number)
    await hub.restart()
    for number in range(10, 15):
        await producer.publish("kept", "m", number)
    assert (await page.back())["recovered"] is True
    await exactly(page, list(range(15)))


async def test_two_hubs_on_one_directory(hub):
    """The second says so and stops."""
    second = Hub(data_dir=hub.settings["data_dir"])
    with pytest.raises(AssertionError, match="data"):
        await asyncio.to_thread(second.start)
    second.close()
