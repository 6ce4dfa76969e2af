"""What an operator sees: a line for each kind of refusal, and whether Redis takes writes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.hubs import Hub
from tests.support.redis import RedisServer
from tests.support.reverse_proxies import NGINX_MAIN, ProxyProgram
from tests.support.times import SOON, UNIT, eventually, eventually_true

HANDSHAKE = "/socket.io/?EIO=4&transport=polling"


def lines(hub: Hub, *words: str) -> list[str]:
    """Return the lines of a hub's log that hold all these words."""
    return [
        line for line in hub.log.read_text().splitlines() if all(word in line for word in words)
    ]


async def line(hub: Hub, *words: str) -> str:
    """Wait for the one line with all these words."""
    await eventually(lambda: lines(hub, *words), what=hub.log.read_text)
    (found,) = lines(hub, *words)
    return found


async def get(url: str, **headers: str) -> int:
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
        return answer.status


async def readyz(hub: Hub) -> tuple[int, dict[str, object]]:
    async with aiohttp.ClientSession() as http, http.get(hub.url + "/readyz") as answer:
        return answer.status, await answer.json()


# -- refusals


async def test_an_origin_that_is_not_listed(own_hub, js):
    """The page's own attempts, of which there are many, are one line: what it was and which setting admits it."""
    hub = await own_hub()
    page = await js(
        hub.url, wait=False, transports=["polling"], extraHeaders={"Origin": "https://a.example"}
    )
    await eventually(lambda: len(page.errors) > 3)
    found = await line(hub, "refused a page of an origin")
    assert "warning hub.engineio" in found
    assert "origin=https://a.example" in found
    assert "setting=HUB_CORS" in found
    # At its end the hub says how many there were.
    await page.close()
    assert await asyncio.to_thread(hub.terminate) == 0
    assert "times=" in lines(hub, "refused a page of an origin")[-1]


NGINX_SERVER = """
server {{
  listen 127.0.0.1:{port};
  location / {{
    proxy_pass http://127.0.0.1:{hub};
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection upgrade;
    {more}
  }}
}}
"""


@contextlib.asynccontextmanager
async def nginx(hub: Hub, folder: Path, more: str = "") -> AsyncIterator[str]:
    """Run nginx in front of a hub; yields its URL."""
    proxy = ProxyProgram("nginx", folder)
    server = NGINX_SERVER.format(port=proxy.port, hub=hub.port, more=more)
    await asyncio.to_thread(proxy.run, NGINX_MAIN.format(directory=folder, server=server))
    try:
        yield f"http://127.0.0.1:{proxy.port}"
    finally:
        proxy.stop()


async def test_a_proxy_that_does_not_pass_the_host_on(own_hub, js, tmp_path):
    """The line names both hosts and nginx's directive, with which the page is admitted."""
    hub = await own_hub()
    async with nginx(hub, tmp_path) as url:
        page = await js(url, wait=False, extraHeaders={"Origin": url})
        await eventually(lambda: page.errors)
        found = await line(hub, "proxy_set_header Host $http_host")
        assert f"origin={url}" in found
        assert f"host=127.0.0.1:{hub.port}" in found
    async with nginx(hub, tmp_path, "proxy_set_header Host $http_host;") as url:
        for transports in (["polling"], ["websocket"]):
            page = await js(url, transports=transports, extraHeaders={"Origin": url})
            assert page.connects


async def test_a_2x_client(own_hub):
    """It asks for EIO=3, as long as it runs."""
    hub = await own_hub()
    for _ in range(3):
        assert await get(hub.url + "/socket.io/?EIO=3&transport=polling&t=abc") == 400
    assert "EIO=3" in await line(hub, "Engine.IO 4", "update the client")


async def test_a_full_hub(own_hub, raw):
    """The bound, its setting, and what helps."""
    hub = await own_hub(max_connections=1)
    await raw(hub.url)
    for _ in range(3):
        assert await get(hub.url + HANDSHAKE) == 503
    found = await line(hub, "this process is full")
    assert "limit=1 setting=HUB_MAX_CONNECTIONS" in found


async def test_a_full_address(own_hub):
    """It may be a proxy that is not in the list."""
    hub = await own_hub(connections_per_address=1, trusted_proxies="127.0.0.1")
    here = {"X-Forwarded-For": "192.0.2.1"}
    assert await get(hub.url + HANDSHAKE, **here) == 200
    assert await get(hub.url + HANDSHAKE, **here) == 503
    found = await line(hub, "HUB_TRUSTED_PROXIES")
    assert "address=192.0.2.1 limit=1 setting=HUB_CONNECTIONS_PER_ADDRESS" in found


@pytest.mark.parametrize(
    ("path", "auth", "reason"),
    [("", {"client_id": "a b"}, "client_id"), ("/chat", {}, "Invalid namespace")],
)
async def test_a_refused_connect(own_hub, js, path, auth, reason):
    """With the reason that the client was sent."""
    hub = await own_hub()
    client = await js(hub.url + path, wait=False, auth=auth)
    await eventually(lambda: client.errors)
    found = await line(hub, "refused a CONNECT")
    assert reason in found
    assert client.errors[0]["message"] in found


async def test_a_replaced_connection(own_hub, js, name):
    """Two tabs of one name put each other out: one line, with the name and what to do."""
    hub = await own_hub()
    older = await js(hub.url, auth={"client_id": name})
    await js(hub.url, auth={"client_id": name})
    await eventually(lambda: older.disconnects)
    found = await line(hub, "a newer connection has its client_id")
    assert "info hub.pubsub" in found
    assert f"client_id={name}" in found


async def test_what_is_normal_is_logged_at_debug(own_hub, js, name, room):
    """A connect, a park and a verb that fails; not at the default level."""
    for level in ("debug", "INFO"):
        hub = await own_hub(log_level=level)
        client = await js(hub.url, auth={"client_id": name})
        await client.join(room)
        assert (await client.ask("publish", {"room": room}))["ok"] is False
        assert (await client.ask("subscribe", {"room": "@other"}))["ok"] is False
        await client.close()
        if level == "debug":
            await line(hub, "debug hub.pubsub connected", f"client_id={name}")
            await line(hub, "debug hub.pubsub parked", f"client_id={name}")
            await line(hub, "debug hub.api a verb failed", "verb=publish", "code=bad_request")
            await line(hub, "debug hub.api a verb failed", "verb=subscribe", "code=forbidden")
        assert await asyncio.to_thread(hub.terminate) == 0
    assert not lines(hub, "debug")


async def test_the_line_at_the_start(own_hub, redis_server):
    """Version, Redis, how it keeps its data, and who may connect."""
    hub = await own_hub(cors="https://a.example,https://b.example")
    version = redis_server.client.info("server")
    product = f"Valkey {version['valkey_version']}" if "valkey_version" in version else "Redis "
    found = await line(hub, "started", "version=")
    assert product in found
    assert f"unix://{redis_server.socket}" in found
    assert 'origins="https://a.example, https://b.example"' in found
    assert "forgets messages" in await line(hub, "warning hub.store", "append-only file")


async def test_with_an_append_only_file_nothing_is_warned_of(own_hub, own_redis):
    hub = await own_hub(redis_url=own_redis.url, log_format="JSON")
    found = json.loads(await line(hub, '"message": "started"'))
    assert found["persistence"] == "append-only file, fsync always"
    assert not lines(hub, "warning")
    # Each line is an object.
    assert all(json.loads(each)["level"] == "info" for each in hub.log.read_text().splitlines())


# -- Redis that takes no writes


@pytest.fixture
async def fragile(own_redis, own_hub):
    return await own_hub(redis_url=own_redis.url, prefix="f", lease=UNIT)


async def unwritable(hub: Hub, publisher, room: str, words: str) -> None:
    """Publishes fail with Redis's own words, and /readyz and one line of the log hold them too."""
    answer = await publisher.ask("publish", {"room": room, "event": "m", "data": 1})
    assert answer["error"]["code"] == "unavailable"
    assert words in answer["error"]["message"]
    status, state = await readyz(hub)
    assert status == 503
    assert state == state | {"ok": False, "redis": True, "writes": False, "bus": True}
    assert words in state["reason"]
    assert words in await line(hub, "Redis refuses writes")
    assert "script" not in answer["error"]["message"]
    # As long as it lasts: what the hub itself still may write does not count.
    await asyncio.sleep(UNIT)
    assert (await readyz(hub))[0] == 503


async def writable_again(hub: Hub, publisher, room: str) -> None:
    async def ready() -> bool:
        return (await readyz(hub)) == (
            200,
            {"ok": True, "redis": True, "writes": True, "bus": True},
        )

    await eventually_true(ready)
    assert (await publisher.ask("publish", {"room": room, "event": "m", "data": 2}))["ok"] is True
    await line(hub, "Redis takes writes again")


async def test_a_full_redis_is_not_ready(own_redis, fragile, raw, room):
    """Until it has memory again, which is noticed without any publish."""
    publisher = await raw(fragile.url)
    await publisher.publish(room, 0)
    own_redis.client.config_set("maxmemory", 1)
    await unwritable(fragile, publisher, room, "OOM command not allowed")
    own_redis.client.config_set("maxmemory", 0)
    await writable_again(fragile, publisher, room)


async def test_a_full_redis_is_noticed_without_a_publish(own_redis, fragile):
    own_redis.client.config_set("maxmemory", 1)

    async def told() -> bool:
        return "OOM" in (await readyz(fragile))[1].get("reason", "")

    await eventually_true(told)
    own_redis.client.config_set("maxmemory", 0)

    async def ready() -> bool:
        return (await readyz(fragile))[0] == 200

    await eventually_true(ready)


async def test_a_full_disk_is_not_ready(own_hub, raw, room):
    """Redis passes on what the system says of its append-only file. The next file of it is on a full device."""
    server = RedisServer("--appendonly", "yes", "--appendfsync", "everysec")
    try:
        hub = await own_hub(redis_url=server.url, prefix="f", lease=UNIT)
        publisher = await raw(hub.url)
        await publisher.publish(room, 0)

        async def rewritten() -> None:
            await asyncio.to_thread(server.client.bgrewriteaof)
            await eventually(
                lambda: not server.client.info("persistence")["aof_rewrite_in_progress"]
            )

        current = max((server.directory / "appendonlydir").glob("*.incr.aof"))
        number = int(current.name.split(".")[-3])
        full = current.with_name(f"appendonly.aof.{number + 1}.incr.aof")
        full.symlink_to("/dev/full")
        await rewritten()
        await eventually_true(lambda: refused(publisher, room), 2 * SOON)
        await unwritable(hub, publisher, room, "No space left on device")
    finally:
        server.kill()
        server.stop()
        await asyncio.to_thread(hub.kill)


async def refused(publisher, room: str) -> bool:
    answer = await publisher.ask("publish", {"room": room, "event": "m", "data": 1})
    return not answer["ok"]


async def test_a_redis_without_a_password_any_more(own_redis, fragile, raw, room):
    """A password that is set while the hub runs: its new connection is refused, which is not called away."""
    publisher = await raw(fragile.url)
    own_redis.client.config_set("requirepass", "open sesame")
    own_redis.client.client_kill_filter(_type="normal", skipme=True)

    async def told() -> bool:
        status, state = await readyz(fragile)
        return status == 503 and "wants a password" in state.get("reason", "")

    await eventually_true(told)
    answer = await publisher.ask("publish", {"room": room, "event": "m", "data": 1})
    assert "wants a password" in answer["error"]["message"]
    own_redis.client.execute_command("AUTH", "open sesame")
    own_redis.client.config_set("requirepass", "")

    async def ready() -> bool:
        return (await readyz(fragile))[0] == 200

    await eventually_true(ready)


async def test_a_draining_hub_is_not_ready(own_hub, raw):
    hub = await own_hub(drain=5 * UNIT)
    sockets = [await raw(hub.url) for _ in range(20)]
    hub.send_signal(signal.SIGTERM)
    await eventually(lambda: any(socket.closed for socket in sockets))
    status, state = await readyz(hub)
    assert (status, state["reason"]) == (503, "this process is ending")
