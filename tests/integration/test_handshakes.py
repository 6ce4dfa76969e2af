"""Handshakes in every form in which clients and proxies send them, and heads of every size."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.handshakes import (
    HANDSHAKE,
    HOST,
    POLLING,
    POLLING_HANDSHAKES,
    WEBSOCKET,
    WEBSOCKET_HANDSHAKES,
    http_request,
)  # fmt: skip
from tests.support.times import SOON, eventually

KIB = 1024
TRANSPORTS = [["polling"], ["websocket"], ["polling", "websocket"]]
every_transport = pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)


async def exchange(hub, *pieces: bytes, until: bytes) -> bytes:
    """Send pieces of a request, with a pause after each; return what comes up to `until`, or to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        async with asyncio.timeout(SOON):
            return await reader.readuntil(until)
    except asyncio.IncompleteReadError as error:
        return error.partial
    finally:
        writer.close()


def sized(line: str, size: int, *headers: str) -> bytes:
    """Return a request whose head has so many bytes, most of them a cookie."""
    bare = len(http_request(line, *headers, "Cookie: "))
    return http_request(line, *headers, f"Cookie: {'c' * (size - bare)}")


@pytest.mark.parametrize("name", POLLING_HANDSHAKES)
async def test_a_polling_handshake_that_the_reference_server_accepts(hub, name):
    answer = await exchange(hub, POLLING_HANDSHAKES[name], until=b'"sid"')
    assert b" 200 OK\r\n" in answer
    assert answer.endswith(b'"sid"')


@pytest.mark.parametrize("name", WEBSOCKET_HANDSHAKES)
async def test_a_websocket_handshake_that_the_reference_server_accepts(hub, name):
    answer = await exchange(hub, WEBSOCKET_HANDSHAKES[name], until=b'"sid"')
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.endswith(b'"sid"')


async def test_the_stock_client_with_subprotocols(hub, js):
    """It ends a connection for which the server has chosen none of them."""
    client = await js(hub.url, transports=["websocket"], protocols=["mine", "other"])
    assert client.errors == []


@every_transport
async def test_the_stock_client_with_30_kib_of_cookies(hub, js, transports, room):
    """As a browser sends them under a company's single sign-on, over each transport and the upgrade."""
    cookies = "; ".join(f"cookie{number}={'c' * 2000}" for number in range(15))
    client = await js(hub.url, transports=transports, extraHeaders={"Cookie": cookies})
    await client.join(room)
    wanted = transports[-1]

    async def transport():
        return (await client.state())["transport"]

    while await transport() != wanted:
        await asyncio.sleep(0.02)
    await client.ask("publish", {"room": room, "event": "m", "data": 1})
    await eventually(lambda: client.data() == [1])


@pytest.mark.parametrize("size", [9 * KIB, 32 * KIB])
@pytest.mark.parametrize("pieces", [1, 9])
async def test_a_head_of_32_kib_is_read(hub, size, pieces):
    """In one piece or in several, with each transport."""
    for line, headers, status in ((POLLING, [HOST], b"200"), (WEBSOCKET, HANDSHAKE, b"101")):
        data = sized(line, size, *headers)
        step = -(-len(data) // pieces)
        parts = [data[begin : begin + step] for begin in range(0, len(data), step)]
        assert (await exchange(hub, *parts, until=b"\r\n")).split()[1] == status


async def test_a_longer_head_is_refused_in_a_sentence(hub):
    """431 where one line of it is longer, and where it does not end."""
    endless = [b"".join(b"X-%d: %b\r\n" % (n, b"x" * 1000) for n in range(10))] * 5
    for pieces in (
        [sized(POLLING, 34 * KIB, HOST)],
        [f"{POLLING} HTTP/1.1\r\n{HOST}\r\n".encode(), *endless],
    ):
        answer = await exchange(hub, *pieces, until=b"\0")
        assert answer.split()[1] == b"431"
        assert b"32 KiB" in answer


async def test_a_long_body_is_no_head(hub, raw):
    """A POST whose body comes in many pieces is read whole, and requests after it too."""
    client = await raw(hub.url, "polling")
    data = "x" * 500_000
    for _ in range(3):
        await client.join("long-bodies")
        await client.publish("long-bodies", data)
    await eventually(lambda: client.data() == [data] * 3)
