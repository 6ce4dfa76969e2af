"""No silence in a handshake keeps a Python client away."""

from __future__ import annotations

import asyncio
import gc

import pytest

from hub.client import connection, reconnecting
from tests.support.proxy import Proxy, _Pair
from tests.support.times import UNIT, eventually

TIMES = {"ping_interval": 0.3 * UNIT, "ping_timeout": 0.5 * UNIT}


@pytest.fixture(scope="module")
def hub(start_hub):
    """A hub whose clients notice a silence soon."""
    return start_hub(**TIMES)


class Mute(Proxy):
    """While `mute`, WebSockets begin with silence, or with silence after the 101; nothing is closed."""

    def __init__(self, port: int, *, answers: bool) -> None:
        super().__init__(port)
        self.mute = False
        # WebSockets that went silent so far.
        self.muted = 0
        self._answers = answers

    def _through(self, pair: _Pair, way: str, data: bytes) -> bytes:
        if not self.mute or way != "down" or not data.startswith(b"HTTP/1.1 101"):
            return data
        self.muted += 1
        self._lost.add(pair)
        return data[: data.index(b"\r\n\r\n") + 4] if self._answers else b""


both = pytest.mark.parametrize("transports", [["websocket"], ["polling", "websocket"]])
at_any_time = pytest.mark.parametrize("answers", [False, True], ids=["silence", "101 and silence"])


@both
@at_any_time
async def test_the_stock_client_with_the_advised_timeouts(
    hub, stock, raw, room, name, transports, answers
):
    """By itself it waits behind a 101 for ever, and before it for five minutes, after which it is dead."""
    async with Mute(hub.port, answers=answers) as network:
        client = await stock(network.url, *transports, silence=sum(TIMES.values()), client_id=name)
        assert (await client.sio.call("subscribe", {"room": room}))["ok"] is True
        network.mute = True
        network.cut()
        await eventually(lambda: network.muted)
        await (await raw(hub.url)).publish(room, "meanwhile")
        network.mute = False
        await eventually(lambda: client.data() == ["meanwhile"])
        await client.sio.shutdown()


@both
@at_any_time
async def test_the_hubs_own_client(hub, client, raw, room, monkeypatch, transports, answers):
    """It bounds the whole of a connection's beginning."""
    monkeypatch.setattr(reconnecting, "OPEN_TIMEOUT", 1.0 * UNIT)
    heard = []
    async with Mute(hub.port, answers=answers) as network:
        listener = await client(network.url, transports=transports)
        listener.on("m")(lambda data, meta: heard.append(data))
        await listener.subscribe(room)
        network.mute = True
        network.cut()
        await eventually(lambda: network.muted)
        await (await raw(hub.url)).publish(room, "meanwhile")
        network.mute = False
        await eventually(lambda: heard == ["meanwhile"])
        await listener.close()
        opened = [ws for ws in gc.get_objects() if type(ws) is connection._ClientWebSocket]
        assert all(ws.closed for ws in opened if ws._response.url.port == network.port)


class Deaf(Proxy):
    """Lets WebSocket handshakes through, and nothing that clients send on WebSockets afterwards."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._opened: set[_Pair] = set()

    def _through(self, pair: _Pair, way: str, data: bytes) -> bytes:
        if way == "down":
            return data
        if pair in self._opened:
            return b""
        if b"transport=websocket" in data.partition(b"\r\n")[0]:
            self._opened.add(pair)
        return data


async def test_an_upgrade_that_is_given_up_does_not_end_the_stock_client(
    start_hub, stock, raw, room, name
):
    """It goes on with polling. A close code in the place of an answer to its probe would end it for good."""
    hub = start_hub(upgrade_timeout=0.5 * UNIT)
    async with Deaf(hub.port) as network:
        client = await stock(network.url, "polling", "websocket", client_id=name)
        assert (await client.sio.call("subscribe", {"room": room}))["ok"] is True
        assert client.sio.transport() == "polling"
        await (await raw(hub.url)).publish(room, "over polling")
        await eventually(lambda: client.data() == ["over polling"])
        await client.sio.shutdown()


class Forgetful(Proxy):
    """Cuts the client off from the first upgrade before it is answered, while the hub's side stays open."""

    cuts = 1

    def _through(self, pair: _Pair, way: str, data: bytes) -> bytes:
        if way == "down" and data.startswith(b"HTTP/1.1 101") and self.cuts:
            self.cuts -= 1
            asyncio.get_running_loop().call_soon(self.cut_client_side)
            return b""
        return data


async def test_an_upgrade_that_is_asked_for_again_does_not_end_the_stock_client(
    hub, stock, raw, room, name
):
    """aiohttp asks again by itself; to the hub the first WebSocket is being probed still."""
    async with Forgetful(hub.port) as network:
        client = await stock(network.url, "polling", "websocket", client_id=name)
        assert network.cuts == 0
        assert (await client.sio.call("subscribe", {"room": room}))["ok"] is True
        assert client.sio.transport() == "websocket"
        await (await raw(hub.url)).publish(room, "over the second")
        await eventually(lambda: client.data() == ["over the second"])
        await client.sio.shutdown()
