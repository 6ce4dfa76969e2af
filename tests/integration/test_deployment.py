"""docs/deployment.md, done for real: stock clients reach hubs through nginx, Caddy and HAProxy."""

from __future__ import annotations

import asyncio
import configparser
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import trustme

from tests.support.js import JSClient
from tests.support.program import Program
from tests.support.reverse_proxies import DOMAIN, ReverseProxy, deployment, program
from tests.support.times import SOON, eventually

pytestmark = pytest.mark.timeout(6 * SOON)

PROGRAMS = ("nginx", "caddy", "haproxy")
TRANSPORTS = (["websocket"], ["polling"], ["polling", "websocket"])
SETTINGS = dict(line.split("=", 1) for line in deployment()["What a proxy needs"].blocks[0].lines)


def settings(path: str) -> dict[str, str]:
    """Return the settings that the page asks for, for a hub that is called localhost."""
    given = {name.removeprefix("HUB_").lower(): value for name, value in SETTINGS.items()}
    return given | {"hosts": given["hosts"].replace(DOMAIN, "localhost"), "base_path": path}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """An authority whose certificates stock clients take, and a file of a certificate and its key."""
    directory = tmp_path_factory.mktemp("tls")
    issuer = trustme.CA()
    issuer.cert_pem.write_to_path(str(directory / "authority.pem"))
    issued = issuer.issue_cert("localhost")
    for part in (*issued.cert_chain_pems, issued.private_key_pem):
        part.write_to_path(str(directory / "hub.pem"), append=True)
    return directory


@pytest.fixture
def trusting(monkeypatch, authority):
    """Let Node and Python trust the authority."""
    for name in ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, str(authority / "authority.pem"))


@pytest.fixture
async def behind(start_hub, authority, tmp_path):
    """Start a program in front of hubs with the settings that the page names."""
    started = []

    async def start(name, path, hubs=1):
        below = [await asyncio.to_thread(start_hub, **settings(path)) for _ in range(hubs)]
        ports = [hub.port for hub in below]
        proxy = ReverseProxy(name, tmp_path, authority / "hub.pem", ports)
        started.append(proxy)
        await asyncio.to_thread(proxy.start, below_a_path=bool(path))
        return proxy, below

    yield start
    for proxy in started:
        proxy.stop()


async def get(url, authority, **headers):
    """Return the status of a GET."""
    context = ssl.create_default_context(cafile=authority / "authority.pem")
    request = urllib.request.Request(url, headers=headers)

    def ask():
        try:
            with urllib.request.urlopen(request, timeout=SOON, context=context) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            return refused.code

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize("path", ["", "/realtime"], ids=["root", "path"])
@pytest.mark.parametrize("name", PROGRAMS)
async def test_stock_clients_behind_a_proxy(behind, trusting, authority, room, name, path):
    """By each transport they subscribe, get messages, and are recovered after a lost connection."""
    proxy, _ = await behind(name, path)
    assert await get(f"{proxy.url}{path}/", authority) == 200
    assert await get(f"{proxy.url}{path}/socket.io/socket.io.min.js", authority) == 200
    # As a browser's page of the same origin does.
    options = {"path": f"{path}/socket.io/", "extraHeaders": {"Origin": proxy.url}}
    clients = [JSClient() for _ in TRANSPORTS]
    try:
        for client, transports in zip(clients, TRANSPORTS, strict=True):
            await client.connect(proxy.url, transports=transports, **options)
            await client.join(room)
        for client, transports in zip(clients, TRANSPORTS, strict=True):
            wanted = transports[-1]

            async def arrived(client=client, wanted=wanted):
                return (await client.state())["transport"] == wanted

            async with asyncio.timeout(SOON):
                while not await arrived():
                    await asyncio.sleep(0)
        answer = await clients[0].ask("publish", {"room": room, "event": "m", "data": 1})
        assert answer["ok"] is True, answer
        await eventually(lambda: all(client.data() == [1] for client in clients))
        for client in clients:
            await client.do("closeEngine")
        for client in clients:
            assert (await client.back())["recovered"] is True
    finally:
        for client in clients:
            await client.close()


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_page_of_another_origin_is_refused(behind, trusting, authority, name):
    """The proxy passes on what the hub judges by."""
    proxy, _ = await behind(name, "")
    handshake = f"{proxy.url}/socket.io/?EIO=4&transport=polling"
    assert await get(handshake, authority, Origin=proxy.url) == 200
    assert await get(handshake, authority, Origin="https://evil.example") == 403


async def test_the_python_clients_below_a_path(behind, trusting, room, tmp_path):
    """The page's URLs work: one client subscribes, the other publishes."""
    proxy, _ = await behind("nginx", "/realtime")
    [text] = [b.text for b in deployment()["Below a path"].blocks if b.language == "python"]
    (tmp_path / "clients.py").write_text(
        text.replace(f"https://{DOMAIN}", proxy.url)
        + f"""
import asyncio

async def main():
    arrived = asyncio.Event()
    client.on("m")(lambda data, meta: arrived.set())
    async with client:
        await client.subscribe({room!r})
        await asyncio.to_thread(publisher.publish, {room!r}, "m", 1)
        await asyncio.wait_for(arrived.wait(), 10)
    await asyncio.to_thread(publisher.close)
    print("arrived")

asyncio.run(main())
"""
    )
    async with Program(sys.executable, "clients.py", cwd=tmp_path, env=os.environ) as script:
        assert await script.ends(3 * SOON) == 0, "\n".join(script.lines)
        assert script.lines == ["arrived"]


@pytest.mark.parametrize("name", PROGRAMS)
async def test_polling_clients_of_two_hubs(behind, trusting, room, name):
    """Their requests all reach one process; when it ends, the other one continues the session."""
    proxy, hubs = await behind(name, "", hubs=2)
    client = JSClient()
    try:
        await client.connect(proxy.url, transports=["polling"])
        await client.join(room)
        for number in range(20):
            answer = await client.ask("publish", {"room": room, "event": "m", "data": number})
            assert answer["ok"] is True, answer
        assert client.disconnects == []
        for each in hubs:
            assert await asyncio.to_thread(each.terminate) == 0
            # Answered by the other one, which has the client or gets it now.
            answer = await client.ask("publish", {"room": room, "event": "m", "data": 20})
            assert answer["ok"] is True, answer
            if client.disconnects:
                break
            await asyncio.to_thread(each.start)
        assert (await client.back())["recovered"] is True
    finally:
        await client.close()


def test_the_unit_is_valid(tmp_path):
    """Systemd knows each of its lines."""
    analyze = program("systemd-analyze")
    text = deployment()["As a systemd service"].blocks[0].text
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    command = unit["Service"]["ExecStart"]
    assert command == "/opt/hub/bin/hub serve"
    file = tmp_path / "socketio-hub.service"
    file.write_text(text.replace("/opt/hub/bin/hub", sys.executable))
    done = subprocess.run(
        [analyze, "verify", "--man=no", file], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
