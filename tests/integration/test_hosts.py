"""Which hosts are served: no page of another name reaches the hub, whatever the path and the transport."""

from __future__ import annotations

import asyncio
import json
import re
import sys

import aiohttp
import pytest

from tests.support.times import SOON, eventually
from tests.support.tools import ROOT

WEBSOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
POLLING = "/socket.io/?EIO=4&transport=polling"
REQUESTS = {
    "page": ("GET", "/", {}),
    "script": ("GET", "/socket.io/socket.io.min.js", {}),
    "health": ("GET", "/healthz", {}),
    "readiness": ("GET", "/readyz", {}),
    "nothing": ("GET", "/nothing", {}),
    "polling": ("GET", POLLING, {}),
    "post": ("POST", POLLING + "&sid=x", {"Content-Length": "1000000"}),
    "preflight": ("OPTIONS", POLLING, {"Access-Control-Request-Method": "GET"}),
    "websocket": ("GET", "/socket.io/?EIO=4&transport=websocket", WEBSOCKET),
}
every_request = pytest.mark.parametrize("name", REQUESTS)


async def ask(hub, name: str, host: str | None, **more: str) -> tuple[int, str]:
    """Send one of the requests; return the status, and what follows the head as far as it came with it."""
    method, path, headers = REQUESTS[name]
    headers = {"Host": host, **headers, **more} if host is not None else headers
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    try:
        version = "1.1" if host is not None else "1.0"
        lines = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in headers.items())
        writer.write(f"{method} {path} HTTP/{version}\r\n{lines}\r\n".encode())
        async with asyncio.timeout(SOON):
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split()[1])
            return status, (await reader.read()).decode() if status == 421 else ""
    finally:
        writer.close()


async def status_of(http: aiohttp.ClientSession, url: str) -> int:
    """Return the status of a GET."""
    async with http.get(url) as answer:
        return answer.status


@every_request
async def test_another_host_is_refused(hub, name):
    """A hub on loopback answers 421 before anything else, in a sentence with the host and the setting."""
    for host in ("evil.example", f"evil.example:{hub.port}", "127.0.0.1.evil.example", "[::2]", ""):
        status, body = await ask(hub, name, host, Origin=f"http://{host}")
        assert status == 421
        sentence = json.loads(body)["message"]
        assert "HUB_HOSTS" in sentence
        assert host in sentence
    assert "host=evil.example setting=HUB_HOSTS" in hub.log.read_text()


@every_request
async def test_the_hubs_own_names_are_served(hub, name):
    """localhost, 127.0.0.1 and [::1], with any port or none, in any case."""
    for host in ("localhost", "LocalHost:1", f"127.0.0.1:{hub.port}", "[::1]", "[::1]:80"):
        assert (await ask(hub, name, host))[0] in (101, 200, 204, 400, 403, 404)


async def test_a_request_without_a_host_is_refused(hub):
    status, body = await ask(hub, "page", None)
    assert status == 421
    assert "names no host" in body


async def test_a_long_or_odd_host_is_quoted_safely(hub):
    status, body = await ask(hub, "page", "<b>" + "é" * 5000)
    assert status == 421
    assert len(body) < 2000


@every_request
async def test_listed_hosts_alone_are_served(own_hub, name):
    hub = await own_hub(hosts="Hub.Example, [::1]")
    assert (await ask(hub, name, "hub.example:80"))[0] != 421
    assert (await ask(hub, name, "[::1]"))[0] != 421
    assert (await ask(hub, name, "localhost"))[0] == 421
    assert (await ask(hub, name, f"127.0.0.1:{hub.port}"))[0] == 421


@pytest.mark.parametrize("settings", [{"hosts": "*"}, {"host": "0.0.0.0"}], ids=str)
async def test_any_host_is_served_where_the_operator_wants_it(own_hub, settings):
    hub = await own_hub(**settings)
    for name in REQUESTS:
        assert (await ask(hub, name, "anything.example"))[0] != 421


async def test_the_host_that_a_trusted_proxy_forwards_counts_too(own_hub):
    hub = await own_hub(hosts="hub.example,inside", trusted_proxies="127.0.0.1")
    for forwarded, refused in (("hub.example", False), ("evil.example", True)):
        status, _ = await ask(hub, "polling", "inside", X_Forwarded_Host=forwarded)
        assert (status == 421) is refused
    assert (await ask(hub, "polling", "evil", X_Forwarded_Host="hub.example"))[0] == 421


@pytest.mark.parametrize(
    "settings",
    [{}, {"hosts": "hub.example,other"}, {"hosts": "*", "base_path": "/tools/hub"}],
    ids=str,
)
async def test_the_images_health_check_names_a_host_that_is_served(own_hub, settings):
    hub = await own_hub(**settings)
    [line] = re.findall(
        r"^HEALTHCHECK .*? CMD (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    environ = {f"HUB_{name.upper()}": value for name, value in settings.items()}
    check = await asyncio.create_subprocess_exec(
        sys.executable, *json.loads(line)[1:], env=environ | {"HUB_PORT": str(hub.port)}
    )
    assert await check.wait() == 0


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_the_stock_client_gets_no_session_under_another_name(own_hub, js, transport):
    """It is refused at the handshake, with each transport; under a listed name it connects."""
    hub = await own_hub(hosts="localhost")
    refused = await js(hub.url, transports=[transport], wait=False)
    await eventually(lambda: len(refused.errors) > 1)
    assert refused.connects == []
    await js(f"http://localhost:{hub.port}", transports=[transport])
