"""Every kind of Redis URL leads to a working hub: TCP with password and database, TLS, a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from tests.support.expect import exactly
from tests.support.hubs import Hub
from tests.support.redis import RedisServer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def tcp_redis():
    """A server on a TCP port, behind a password; yields it and its port."""
    port = free_port()
    server = RedisServer("--port", str(port), "--bind", "127.0.0.1")
    server.client.config_set("requirepass", "open sesame")
    yield server, port
    server.stop()


@contextlib.asynccontextmanager
async def tls_in_front_of(port: int, tmp_path) -> AsyncIterator[tuple[int, str]]:
    """Speak TLS in front of a port; yields the port that does and the authority's certificate."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    certificate = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(certificate))

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], str(certificate)
    finally:
        server.close()


async def works(hub: Hub, raw, room: str) -> None:
    """A message goes through, and a missed one is there at the return."""
    publisher, client = await raw(hub.url), await raw(hub.url)
    await client.join(room)
    await publisher.publish(room, 1)
    await exactly(client, [1])
    auth = {"pid": client.reply["pid"], "offset": client.events[-1][1][-1]}
    await client.drop()
    await publisher.publish(room, 2)
    await exactly(await raw(hub.url, auth=auth), [2])


async def test_tcp_with_password_and_database(tcp_redis, raw, room):
    """redis:// with a password and a database number."""
    _, port = tcp_redis
    hub = Hub(f"redis://:open%20sesame@127.0.0.1:{port}/3")
    await asyncio.to_thread(hub.start)
    try:
        await works(hub, raw, room)
        assert "sesame" not in hub.log.read_text()
    finally:
        await asyncio.to_thread(hub.close)


async def test_tls(tcp_redis, raw, room, tmp_path):
    """rediss:// with an authority of one's own."""
    _, port = tcp_redis
    async with tls_in_front_of(port, tmp_path) as (tls_port, certificate):
        url = f"rediss://:open%20sesame@127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate}"
        hub = Hub(url)
        await asyncio.to_thread(hub.start)
        try:
            await works(hub, raw, room)
        finally:
            await asyncio.to_thread(hub.close)


@pytest.mark.parametrize("spoilt", ["", "?ssl_check_hostname=false"])
async def test_tls_with_an_unknown_authority_is_refused(tcp_redis, tmp_path, spoilt):
    """A certificate that nobody vouches for ends the start with a sentence."""
    _, port = tcp_redis
    async with tls_in_front_of(port, tmp_path) as (tls_port, _):
        hub = Hub(f"rediss://:open%20sesame@127.0.0.1:{tls_port}/0{spoilt}")
        with pytest.raises(AssertionError, match=r"Redis is away: .*certificate verify failed"):
            await asyncio.to_thread(hub.start)


async def test_a_wrong_password_is_told(tcp_redis):
    """The start ends with the server's own sentence, without the password."""
    _, port = tcp_redis
    hub = Hub(f"redis://:wrong@127.0.0.1:{port}/0")
    with pytest.raises(AssertionError, match=r"WRONGPASS|invalid") as said:
        await asyncio.to_thread(hub.start)
    assert ":wrong" not in str(said.value)


async def test_a_user_without_channels_is_told(tcp_redis):
    """A user of Redis 7 may hear no channel unless told so: the start ends with the server's own sentence."""
    server, port = tcp_redis
    server.client.execute_command(
        "ACL", "SETUSER", "hub", "on", ">open", "~hub:*", "resetchannels", "+@all"
    )
    hub = Hub(f"redis://hub:open@127.0.0.1:{port}/0")
    with pytest.raises(
        AssertionError, match=r"hub: Redis refuses a subscription: NOPERM .*channel"
    ):
        await asyncio.to_thread(hub.start)
    hub.check()
