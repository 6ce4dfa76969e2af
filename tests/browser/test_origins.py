"""Foreign pages in a real Chromium: what they get of the hub, under whichever name it is reached."""

from __future__ import annotations

import contextlib

import pytest
import pytest_asyncio
from aiohttp import web

from tests.support.times import UNIT

pytestmark = [pytest.mark.timeout(120 * UNIT), pytest.mark.asyncio(loop_scope="module")]

ATTACK = """async () => {
  const answer = await fetch("/socket.io/?EIO=4&transport=polling");
  const socket = new WebSocket(`ws://${location.host}/socket.io/?EIO=4&transport=websocket`);
  const opened = await new Promise((done) => {
    socket.onmessage = () => done(true);
    socket.onerror = socket.onclose = () => done(false);
  });
  return { status: answer.status, text: await answer.text(), opened };
}"""


@pytest_asyncio.fixture(loop_scope="module")
async def foreign(browser):
    """A page of its own, which may complain."""
    page = await browser.new_page()
    page.set_default_timeout(15_000 * UNIT)
    yield page
    await page.close()


@contextlib.asynccontextmanager
async def serve_page(html: str = "<p>hello"):
    """Serve one page at a free port of this machine; yield the port."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(text=html, content_type="text/html")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def attack(page, start_hub, **settings):
    """Open a page of `evil.example`, let its name lead to a hub from then on, and return what the page gets of it."""
    async with serve_page() as port:
        await page.goto(f"http://evil.example:{port}/")
    start_hub(port, **settings)
    return await page.evaluate(ATTACK)


async def test_a_rebound_name_gets_no_session(foreign, start_hub):
    """Its requests are of one origin with the host that they name, and refused all the same."""
    got = await attack(foreign, start_hub)
    assert got["status"] == 421
    assert "evil.example" in got["text"]
    assert "HUB_HOSTS" in got["text"]
    assert got["opened"] is False


async def test_the_attack_works_on_a_hub_that_serves_any_host(foreign, start_hub):
    got = await attack(foreign, start_hub, hosts="*")
    assert (got["status"], got["opened"]) == (200, True)


async def test_nobody_may_frame_the_page(foreign, start_hub):
    """The browser refuses to show it in a frame, also one of the hub's own origin."""
    hub = start_hub()
    said: list[str] = []
    foreign.on("console", lambda message: said.append(message.text))
    await foreign.route(
        "**/frame",
        lambda route: route.fulfill(body="<iframe src='/'></iframe>", content_type="text/html"),
    )
    await foreign.goto(f"{hub.url}/frame")
    await foreign.wait_for_timeout(200)
    [_, frame] = foreign.frames
    assert "Socket.IO Hub" not in await frame.content()
    assert any("frame-ancestors" in text for text in said)


async def test_the_page_may_reach_its_own_hub_alone(foreign, start_hub):
    hub = start_hub()
    answer = await foreign.goto(hub.url)
    assert answer.headers["content-security-policy"] == "default-src 'self'; frame-ancestors 'none'"
    blocked = await foreign.evaluate(
        """() => new Promise((done) => {
          document.addEventListener("securitypolicyviolation", (event) => done(event.blockedURI));
          new WebSocket("ws://127.0.0.1:9/");
        })"""
    )
    assert blocked.startswith("ws://127.0.0.1:9")


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_pages_of_development_servers_may_connect_with_cors_dev(
    foreign, start_hub, transport
):
    """The stock client in a page on localhost, on another port than the hub's; a page of another name is refused."""
    hub = start_hub(cors="dev")
    html = f"<script src='{hub.url}/socket.io/socket.io.min.js'></script>"
    connect = f"""() => new Promise((done) => {{
      const socket = io("{hub.url}", {{ transports: ["{transport}"], withCredentials: true }});
      socket.on("connect", () => done("connected"));
      socket.on("connect_error", () => done("refused"));
    }})"""
    async with serve_page(html) as port:
        for host, expected in (
            ("localhost", "connected"),
            ("127.0.0.1", "connected"),
            ("evil.example", "refused"),
        ):
            await foreign.goto(f"http://{host}:{port}/")
            assert await foreign.evaluate(connect) == expected
