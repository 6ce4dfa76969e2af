"""The hub as a process: health, draining, refusals at start, and Redis coming and going."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time

import aiohttp
import pytest

from tests.support.expect import exactly, flow
from tests.support.hubs import MAIN, Hub
from tests.support.proxy import Proxy
from tests.support.redis import RedisServer
from tests.support.times import MS, SOON, UNIT, eventually, eventually_true
from tests.support.tools import ROOT

TRANSPORTS = [["websocket"], ["polling"], ["polling", "websocket"]]
every_transport = pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)


async def status(hub, path):
    async with aiohttp.ClientSession() as http, http.get(hub.url + path) as answer:
        await answer.read()
        return answer.status


async def test_it_says_once_where_it_listens(own_hub):
    """One line on standard output, and nothing more."""
    hub = await own_hub()
    assert hub.stdout.count("\n") == 1
    assert f"http://127.0.0.1:{hub.port}/" in hub.stdout


async def test_health_and_the_stock_client(hub):
    """`/healthz`, `/readyz`, the page and the stock client's script are served."""
    for path in ("/healthz", "/readyz", "/", "/socket.io/socket.io.min.js"):
        assert await status(hub, path) == 200


async def test_the_files_that_browsers_ask_for_have_their_types(hub):
    """Pages are refused to frames, icons are there, and source maps are JSON."""
    types = {
        "/": "text/html; charset=utf-8",
        "/static/app.js": "text/javascript; charset=utf-8",
        "/static/style.css": "text/css; charset=utf-8",
        "/favicon.ico": "image/svg+xml",
        "/socket.io/socket.io.js": "text/javascript; charset=utf-8",
        "/socket.io/socket.io.min.js.map": "application/json; charset=utf-8",
    }
    async with aiohttp.ClientSession() as http:
        for path, kind in types.items():
            async with http.get(hub.url + path) as answer:
                assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
                policy = answer.headers["Content-Security-Policy"]
                assert policy == "default-src 'self'; frame-ancestors 'none'"


async def test_no_answer_tells_versions(hub):
    """Of the page, the engine, refusals, and what is no HTTP."""
    handshake = "/socket.io/?EIO=4&transport=polling"
    requests = [
        *(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n" for path in ("/", "/nothing", handshake)),
        f"POST {handshake} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n",
        "GET / HTTP/1.1\r\nHost: evil.example\r\n",
        f"GET / HTTP/1.1\r\nHost: localhost\r\nX: {'x' * 40_000}\r\n",
        "NO HTTP\r\n",
    ]
    for request in requests:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        writer.write(request.encode() + b"\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        writer.close()
        assert head.startswith("http/1.")
        assert "server:" not in head
        assert "aiohttp" not in head
        assert "python" not in head


async def test_the_page_can_be_switched_off(own_hub, js):
    """Its files too; the stock client's files, health and Socket.IO stay."""
    hub = await own_hub(page="false")
    for path in ("/", "/static/app.js", "/favicon.ico"):
        assert await status(hub, path) == 404
    for path in ("/socket.io/socket.io.min.js", "/healthz", "/readyz"):
        assert await status(hub, path) == 200
    await js(hub.url)


@pytest.mark.parametrize("host", ["127.0.0.2,::1", "localhost,127.0.0.3", "::"])
async def test_it_listens_on_several_addresses(own_hub, js, host):
    """On one port; stock clients connect to each address."""
    hub = await own_hub(host=host, hosts="*")
    reached = {
        "127.0.0.2,::1": ("127.0.0.2", "[::1]"),
        "localhost,127.0.0.3": ("localhost", "127.0.0.1", "127.0.0.3"),
        "::": ("127.0.0.1", "127.0.0.2", "[::1]", "localhost"),
    }
    for address in reached[host]:
        await js(f"http://{address}:{hub.port}", transports=["websocket"])
        await js(f"http://{address}:{hub.port}", transports=["polling"])
    assert hub.stdout.count("http://") == len(host.split(","))


REDIRECTIONS = (">/dev/full", ">&-", "2>&-", "<&- >&- 2>&-")


@pytest.mark.parametrize("redirection", REDIRECTIONS)
async def test_it_serves_without_standard_files(tmp_path, redirection):
    """Where standard input, output or error is closed or full; a full output goes to the log."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path / "log"
    errors = "" if "2>" in redirection else f"2>{log}"
    program = [sys.executable, *MAIN, "serve", "--port", str(port), "--data-dir", str(tmp_path)]
    hub = await asyncio.create_subprocess_exec(
        "sh", "-c", f'exec "$@" {redirection} {errors}', "sh", *program, cwd=ROOT
    )
    url = f"http://127.0.0.1:{port}/readyz"

    async def ready():
        with contextlib.suppress(aiohttp.ClientError):
            async with aiohttp.ClientSession() as http, http.get(url) as answer:
                return answer.status == 200
        return hub.returncode is not None

    try:
        await eventually_true(ready)
        hub.terminate()
        assert await hub.wait() == 0
    finally:
        if hub.returncode is None:
            hub.kill()
    if redirection == ">/dev/full":
        assert "standard output cannot be written" in log.read_text()


@every_transport
async def test_sigterm_drains(own_hub, js, raw, room, transports):
    """Exit 0; the clients come back to the next process and get what was published meanwhile."""
    hub = await own_hub(drain=200 * MS)
    other = await own_hub()
    client = await js(hub.url, transports=transports)
    await client.join(room)
    named = await js(hub.url, transports=transports, auth={"client_id": "drained-" + room})
    await named.join(room)
    publisher = await raw(other.url)
    async with flow(publisher, room) as sent:
        await eventually(lambda: len(sent) > 20)
        assert await asyncio.to_thread(hub.terminate) == 0
        await eventually(lambda: client.disconnects and named.disconnects)
        await asyncio.to_thread(hub.start)
        for each in (client, named):
            assert (await each.back())["recovered"] is True
    for each in (client, named):
        assert "io server disconnect" not in each.disconnects
        await exactly(each, sent)


async def test_clients_are_told_to_come_back(own_hub, raw):
    """A drain closes WebSockets with a code that makes stock clients return, without a `41`."""
    hub = await own_hub(drain=100 * MS)
    sockets = [await raw(hub.url) for _ in range(5)]
    poller = await raw(hub.url, "polling")
    assert await asyncio.to_thread(hub.terminate) == 0
    await eventually(lambda: all(each.closed for each in [*sockets, poller]))
    assert {socket.close_code for socket in sockets} <= {1001, 1012, 1013}
    assert not any(each.named("41") for each in [*sockets, poller])
    assert poller.status in (200, 400, 503)


async def test_sigint_drains_too(own_hub):
    """Ctrl-C is a SIGTERM typed by hand."""
    hub = await own_hub()
    assert await asyncio.to_thread(hub._end, signal.SIGINT) == 0


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
async def test_a_start_ends_at_once_when_asked_to(kind):
    """Also while Redis accepts the connection and then answers nothing, for which the hub would wait for seconds."""
    reached = asyncio.Event()

    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(stay_silent, "127.0.0.1", 0)
    hub = Hub(f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}")
    try:
        hub.spawn()
        await asyncio.wait_for(reached.wait(), 2 * SOON)
        began = time.monotonic()
        assert await asyncio.to_thread(hub._end, kind) == 0
        assert time.monotonic() - began < 2 * UNIT
        assert "stopped" in hub.log.read_text()
    finally:
        silent.close()
        await asyncio.to_thread(hub.close)


async def draining(own_hub, raw):
    """A hub that has begun a drain of some ten seconds, at Ctrl-C."""
    hub = await own_hub(drain=60)
    sockets = [await raw(hub.url) for _ in range(100)]
    hub.send_signal(signal.SIGINT)
    await eventually(lambda: any(socket.closed for socket in sockets))
    return hub, sockets


async def test_a_second_ctrl_c_ends_a_drain_at_once(own_hub, raw):
    """The clients that are left are cut, and the exit status is that of an interrupted program."""
    hub, sockets = await draining(own_hub, raw)
    began = time.monotonic()
    assert await asyncio.to_thread(hub._end, signal.SIGINT) == 130
    assert time.monotonic() - began < 2 * UNIT
    await eventually(lambda: all(socket.closed for socket in sockets))
    assert "stopped before the drain was done" in hub.log.read_text()


async def test_a_sigterm_does_not_shorten_a_drain(own_hub, raw):
    """Supervisors like to send one after the Ctrl-C that has reached the hub already."""
    hub, sockets = await draining(own_hub, raw)
    hub.send_signal(signal.SIGTERM)
    hub.send_signal(signal.SIGTERM)
    await asyncio.sleep(UNIT)
    assert hub.running
    assert not all(socket.closed for socket in sockets)
    assert await asyncio.to_thread(hub._end, signal.SIGINT) == 130


async def test_a_sigterm_after_the_drain_leaves_the_status_0(start_hub):
    """The interpreter takes a moment to end, in which Python's own handler would be back."""
    hub = await asyncio.to_thread(start_hub)
    hub.send_signal(signal.SIGTERM)
    await eventually(lambda: "hub.runtime stopped" in hub.log.read_text())
    assert await asyncio.to_thread(hub.terminate) == 0


async def failed(hub: Hub, fault: str) -> list[str]:
    """Wait until a hub has ended by a fault of its own; return the lines of its log with the fault in them."""
    await eventually(lambda: not hub.running, 2 * SOON)
    assert hub._process.returncode == 1
    return [line for line in hub.log.read_text().splitlines() if fault in line or "failed" in line]


async def test_the_failure_that_ends_a_hub_is_logged_once(own_redis):
    """With what it was and where; the exit status says the rest."""
    fault = """
from hub.cli.main import main
from hub.node.maintenance import Maintenance
async def sweep(self):
    raise RuntimeError("a fault for the test")
Maintenance.sweep = sweep
main()
"""
    hub = Hub(own_redis.url, "x", main=("-c", fault), lease=UNIT)
    await asyncio.to_thread(hub.start)
    (line,) = await failed(hub, "a fault for the test")
    assert 'error="RuntimeError: a fault for the test" at=' in line
    hub.close()


async def test_a_hub_that_cannot_watch_its_embedded_server_ends(tmp_path):
    """It says why; it does not go on with a server that nobody would restart."""
    fault = """
from hub.cli.main import main
from hub.embedded.server import EmbeddedServer
async def restart(self, pause):
    raise RuntimeError("a fault for the test")
EmbeddedServer._restart = restart
main()
"""
    hub = Hub(main=("-c", fault), data_dir=tmp_path / "data")
    await asyncio.to_thread(hub.start)
    os.kill(int((tmp_path / "data" / "redis.lock").read_text()), signal.SIGKILL)
    (line,) = await failed(hub, "a fault for the test")
    assert "a background task failed; the hub ends" in line
    hub.close()


def test_a_redis_that_evicts_is_refused(start_hub):
    """A server that may throw keys away is refused with a sentence."""
    server = RedisServer("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(AssertionError, match="noeviction"):
            start_hub(redis_url=server.url)
    finally:
        server.stop()


def test_another_schema_is_refused(start_hub, redis_server):
    """Keys that another version wrote are refused with a sentence, and left as they are."""
    prefix = "schema-test"
    start_hub(prefix=prefix).close()
    keys = [key for key in redis_server.client.scan_iter(f"{prefix}*") if "schema" in key]
    assert len(keys) == 1
    redis_server.client.set(keys[0], "999")
    with pytest.raises(AssertionError, match="schema"):
        start_hub(prefix=prefix)
    assert redis_server.client.get(keys[0]) == "999"


def test_no_redis_at_all(start_hub):
    """A hub whose Redis is not there says so and ends; it does not serve."""
    with pytest.raises(AssertionError, match="Redis"):
        start_hub(redis_url="unix:///nonexistent/socket")


@pytest.fixture
async def fragile(own_redis, own_hub):
    """A hub on a Redis of its own, quick to notice."""
    return await own_hub(
        redis_url=own_redis.url, prefix="f", redis_timeout=500 * MS, bus_silence=500 * MS
    )


async def turned_away(raw, hub):
    """Tell whether a newcomer is asked to come back later: at the handshake or at its CONNECT."""
    try:
        late = await raw(hub.url, auth=False)
    except aiohttp.WSServerHandshakeError as refusal:
        return refusal.status == 503
    await late.send("40")
    await eventually(lambda: late.closed)
    return late.reply is None and late.close_code in (1001, 1012, 1013)


@every_transport
async def test_redis_restarts(own_redis, fragile, js, client, room, transports):
    """Redis killed and started again on its file: everything acknowledged arrives, in order."""
    page = await js(fragile.url, transports=transports)
    await page.join(room)
    publisher = await client(fragile.url, answer_timeout=2 * UNIT)
    done = []

    async def publish() -> None:
        for number in range(60):
            await publisher.publish(room, "m", number)
            done.append(number)

    publishing = asyncio.create_task(publish())
    await eventually(lambda: len(done) >= 20)
    await asyncio.to_thread(own_redis.kill)
    await asyncio.to_thread(own_redis.start)
    async with asyncio.timeout(3 * SOON):
        await publishing
    await exactly(page, list(range(60)), within=2 * SOON)
    assert page.named("hub:gap") == []


async def test_redis_hangs(own_redis, fragile, raw, room):
    """With a Redis that answers nobody: not ready, verbs are `unavailable`, and then all is well."""
    talker = await raw(fragile.url)
    await talker.join(room)
    own_redis.pause()
    try:
        answer = await talker.ask("publish", {"room": room, "event": "m", "data": 1})
        assert answer["error"] == answer["error"] | {"code": "unavailable", "retryable": True}

        async def not_ready():
            return await status(fragile, "/readyz") == 503

        await eventually_true(not_ready)
        assert await status(fragile, "/healthz") == 200
        assert await turned_away(raw, fragile)
    finally:
        own_redis.resume()

    async def ready():
        return await status(fragile, "/readyz") == 200

    await eventually_true(ready)

    async def published():
        answer = await talker.ask("publish", {"room": room, "event": "m", "data": 2, "id": "x"})
        return answer["ok"]

    await eventually_true(published)
    await eventually(lambda: talker.data()[-1:] == [2])


async def test_a_frozen_hub_is_not_missed(own_hub, js, raw, room):
    """A process stopped in its tracks: its clients go elsewhere; when it wakes it harms nobody."""
    settings = {"lease": UNIT, "ping_interval": 500 * MS, "ping_timeout": 500 * MS}
    frozen, other = await own_hub(**settings), await own_hub(**settings)
    async with Proxy(frozen.port) as proxy:
        client = await js(proxy.url, transports=["websocket"])
        await client.join(room)
        publisher = await raw(other.url)
        await publisher.publish(room, 0)
        await exactly(client, [0])
        frozen.freeze()
        try:
            proxy.target = other.port
            proxy.cut()
            await publisher.publish(room, 1)
            assert (await client.back())["recovered"] is True
        finally:
            frozen.thaw()
        await publisher.publish(room, 2)
        await exactly(client, [0, 1, 2])
        still = await raw(frozen.url)
        await still.join(room)
        await publisher.publish(room, 3)
        await exactly(still, [3])
        await exactly(client, [0, 1, 2, 3])
        assert client.sessions[-1]["resumed"] is not None
