"""The recipes of docs/browser.md, as they stand there, in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Page, expect

from tests.support.pages import sections
from tests.support.raw import Raw
from tests.support.times import MS, UNIT, eventually_true
from tests.support.tools import ROOT

ADDRESS = "http://127.0.0.1:8000"
RECIPES = {
    section.title: section.blocks[0].text
    for section in sections((ROOT / "docs" / "browser.md").read_text())
    if section.blocks
}

pytestmark = [pytest.mark.timeout(120 * UNIT), pytest.mark.asyncio(loop_scope="module")]


class Site:
    """A web server of its own with the recipes, and a client of the hub that publishes."""

    def __init__(self) -> None:
        self.html = ""
        self.url = ""
        self.publisher: Raw

    async def answer(self, _: web.Request) -> web.Response:
        return web.Response(text=self.html, content_type="text/html")

    async def show(self, page: Page, title: str, **options: Any) -> None:
        """Open a recipe; `options` are for its socket."""
        hub = self.publisher.url
        html = RECIPES[title].replace(ADDRESS, hub)
        if options:
            plain = f'io("{hub}")'
            assert plain in html
            html = html.replace(plain, f'io("{hub}", {json.dumps(options)})')
        self.html = f"<!doctype html><title>recipe</title><link rel=icon href=data:,>{html}"
        await page.goto(self.url)


@pytest_asyncio.fixture(loop_scope="module")
async def site(start_hub):
    """A site, a hub that lets its pages connect, and a publisher."""
    made = Site()
    app = web.Application()
    app.router.add_get("/", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    server = web.TCPSite(runner, "127.0.0.1", 0)
    await server.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    hub = await asyncio.to_thread(start_hub, cors=made.url)
    made.publisher = await Raw(hub.url).open()
    await made.publisher.connect()
    yield made
    await made.publisher.drop()
    await runner.cleanup()


async def texts(page):
    return await page.locator("li").all_text_contents()


@contextlib.asynccontextmanager
async def publishing(site):
    """Publish numbers into the room `chat` meanwhile; yield those that were sent."""
    sent: list[int] = []
    over = asyncio.Event()

    async def run():
        while not over.is_set():
            sent.append(len(sent))
            await site.publisher.publish("chat", {"text": str(sent[-1])}, event="line")
            await asyncio.sleep(3 * MS)

    task = asyncio.create_task(run())
    try:
        yield sent
    finally:
        over.set()
        await task


@pytest.mark.parametrize("auth", [{}, {"client_id": "reader"}], ids=["anonymous", "named"])
@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_history_then_live(page, site, hub_goes, excused, transport, auth):
    """While messages flow the page is loaded, loses its connection and is reloaded: no hole, nothing twice."""
    excused += ["ERR_ABORTED", "ERR_FAILED", "400", "closed before"]

    async def shown():
        """Return what the page shows, which has to be whole."""
        numbers = [int(text) for text in await texts(page)]
        assert numbers == [*range(numbers[0], numbers[0] + len(numbers))] if numbers else True
        return numbers

    async with publishing(site) as sent:
        await asyncio.sleep(300 * MS)
        await site.show(page, "History, then live", transports=[transport], auth=auth)
        for _ in range(3):
            await expect(page.locator("li").nth(60)).to_be_attached()
            await shown()
            await page.evaluate("socket.io.engine.close()")
            await page.wait_for_function("!socket.connected")
            await page.wait_for_function("socket.connected")
            await shown()
            await page.reload()
        await expect(page.locator("li").nth(60)).to_be_attached()

    async def is_complete():
        return (await shown())[-1] == sent[-1]

    await eventually_true(is_complete)


async def test_several_tabs_of_one_user(browser, site):
    """Two tabs get what is published for their user, also after one of them was duplicated, and what it has missed."""
    title = "Several tabs of one user"
    async with await browser.new_context() as context:
        one, other, copy = [await context.new_page() for _ in range(3)]
        for each in (one, other):
            await site.show(each, title)
            await each.wait_for_function("socket.connected")
        name = await one.evaluate("tab()")
        assert name != await other.evaluate("tab()")

        async def reach(text, *tabs):
            async def reached():
                await site.publisher.publish("user:ada", {"text": text}, event="note")
                return all([text in await texts(tab) for tab in tabs])

            await eventually_true(reached)

        await reach("to both", one, other)
        # A browser copies the storage of a tab that is duplicated.
        await copy.add_init_script(f"sessionStorage.tab ??= '{name}'")
        await site.show(copy, title)
        await one.wait_for_function(f"tab() !== '{name}' && socket.connected")
        assert await copy.evaluate("tab()") == name
        await reach("to all three", one, other, copy)
        await copy.goto("about:blank")
        await site.publisher.publish("user:ada", {"text": "missed"}, event="note")
        await site.show(copy, title)
        await expect(copy.get_by_text("missed")).to_have_count(1)
