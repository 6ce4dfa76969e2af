"""What an operator sees: a line for each kind of refusal."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.support.hubs import Hub
from tests.support.times import eventually

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


async def test_a_proxy_that_does_not_pass_the_host_on(own_hub):
    """As nginx does without `proxy_set_header Host`: the line names both hosts and nginx's directive."""
    hub = await own_hub()
    host = f"127.0.0.1:{hub.port}"
    assert await get(hub.url + HANDSHAKE, Host=host, Origin="https://chat.example") == 403
    found = await line(hub, "proxy_set_header Host $http_host")
    assert "origin=https://chat.example" in found
    assert f"host={host}" in found


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
