"""Every kind of Redis URL leads to a working hub: TCP with password and database, TLS, a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from hub.store.scripts import read_all
from hub.store.server_check import COMMANDS, OPTIONAL_COMMANDS, SCRIPT_COMMANDS
from tests.support.expect import exactly
from tests.support.hubs import Hub
from tests.support.ports import free_port
from tests.support.redis import RedisServer
from tests.support.tools import ROOT


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
        with pytest.raises(
            AssertionError, match=r"TLS certificate of Redis is not .*verify failed"
        ):
            await asyncio.to_thread(hub.start)


async def test_a_wrong_password_is_told(tcp_redis):
    """The start ends with the server's own sentence, without the password."""
    _, port = tcp_redis
    hub = Hub(f"redis://:wrong@127.0.0.1:{port}/0")
    with pytest.raises(AssertionError, match=r"hub: Redis refuses the login: WRONGPASS") as said:
        await asyncio.to_thread(hub.start)
    assert ":wrong" not in str(said.value)
    assert "away" not in str(said.value)


async def test_a_missing_password_is_told(tcp_redis):
    _, port = tcp_redis
    await refuses(f"redis://127.0.0.1:{port}", "hub: Redis wants a password, .*: NOAUTH")


async def test_a_database_that_is_not_there_is_told(tcp_redis):
    _, port = tcp_redis
    url = f"redis://:open%20sesame@127.0.0.1:{port}/99"
    await refuses(url, "hub: Redis refuses the database 99: ERR DB index is out of range")


async def test_a_server_without_tls_is_told(tcp_redis):
    """A URL with rediss:// for a port that speaks none."""
    _, port = tcp_redis
    url = f"rediss://:open%20sesame@127.0.0.1:{port}/0"
    await refuses(url, "hub: the TLS handshake with Redis has failed: .*begins with redis://")


async def test_a_server_with_tls_is_told(tcp_redis, tmp_path):
    """A URL without TLS for a port that expects it."""
    _, port = tcp_redis
    async with tls_in_front_of(port, tmp_path) as (tls_port, _):
        url = f"redis://:open%20sesame@127.0.0.1:{tls_port}/0"
        await refuses(url, "hub: .* if it expects TLS, the URL begins with rediss://")


async def test_a_server_that_is_no_redis_is_told():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await refuses(url, "hub: the server at the URL of Redis speaks another protocol")
    server.close()


async def refuses(url: str, sentence: str) -> Hub:
    """A hub does not start on this Redis, says why, and does not say that Redis is away."""
    hub = Hub(url)
    with pytest.raises(AssertionError, match=sentence) as told:
        await asyncio.to_thread(hub.start)
    assert "Redis is away" not in str(told.value)
    hub.check()
    hub.close()
    return hub


# -- users of Redis with few rights


def documented_user() -> list[str]:
    """Return the rights that the docs give the hub's user, the password left out."""
    (words,) = re.findall(
        r"^ACL SETUSER hub (.+)$", (ROOT / "docs/operate.md").read_text(), re.MULTILINE
    )
    return [word for word in words.split() if not word.startswith(">")]


@pytest.fixture
def user(tcp_redis):
    """Make the user that the docs describe, changed; yield its URL: `user("-info")`."""
    server, port = tcp_redis

    def make(*changes: str) -> str:
        server.client.execute_command(
            "ACL", "SETUSER", "hub", *documented_user(), ">open", *changes
        )
        return f"redis://hub:open@127.0.0.1:{port}/0"

    return make


def test_the_documented_user_has_what_the_hub_needs():
    """Neither more nor less: the same list as in the code, and as in the scripts."""
    allowed = {word[1:] for word in documented_user() if word.startswith("+")}
    assert allowed == {*COMMANDS, *SCRIPT_COMMANDS, *OPTIONAL_COMMANDS}
    called = {
        name.lower()
        for script in read_all().values()
        for name in re.findall(r"\bcall\('(\w+)'", script.text)
    }
    assert called == set(SCRIPT_COMMANDS)


async def test_the_documented_user_is_enough(user, raw, room):
    """Nothing is warned of but the append-only file that this server does not write."""
    hub = Hub(user())
    await asyncio.to_thread(hub.start)
    try:
        await works(hub, raw, room)
        (warning,) = [line for line in hub.log.read_text().splitlines() if " info " not in line]
        assert "append-only file" in warning
    finally:
        await asyncio.to_thread(hub.close)


@pytest.mark.parametrize("command", ["info", "script|load", "evalsha", "xadd", "subscribe"])
async def test_a_command_that_is_not_allowed_is_named(user, command):
    """At the start, and not when it is needed first."""
    await refuses(
        user(f"-{command}"), rf"(?i)hub: Redis does not allow the hub's user .*{re.escape(command)}"
    )


async def test_keys_that_are_not_allowed_are_told(user):
    await refuses(user("resetkeys", "~other:*"), "hub: Redis does not allow the hub's user ")


async def test_channels_that_are_not_allowed_are_told(user):
    """As for each user of Redis 7 that was given none."""
    url = user("resetchannels")
    await refuses(url, "hub: Redis does not allow the hub's user .*PUBLISH")


async def test_what_is_lost_without_a_command_is_told(user, raw, room):
    """CLIENT ID, CLIENT KILL and CONFIG GET: the hub goes on without them."""
    hub = Hub(user("-client|id", "-client|kill", "-config|get"))
    await asyncio.to_thread(hub.start)
    try:
        await works(hub, raw, room)
        log = hub.log.read_text()
        assert "Redis does not allow CLIENT KILL or CLIENT ID: when" in log
    finally:
        await asyncio.to_thread(hub.close)
