"""Fixtures for the tests in a real browser: a hub of its own, and its page in Chromium."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tests.support.hubs import Hub
from tests.support.times import UNIT

# As root in a container, and without a word to hosts elsewhere.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A name of somebody else's that leads to this machine.
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
]


def chromium() -> str:
    """Return the machine's Chromium; where it must be there (HUB_REQUIRE_ALL), fail without it."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if os.environ.get("HUB_REQUIRE_ALL"):
        pytest.fail("no Chromium on this machine, and HUB_REQUIRE_ALL is set")
    pytest.skip("no Chromium on this machine; Debian's package is `chromium`")


@pytest.fixture
def start_hub() -> Iterator[Callable[..., Hub]]:
    """Start a hub with its embedded server, on a data directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="hub-page-"))
    hubs: list[Hub] = []

    def start(port: int = 0, **settings: Any) -> Hub:
        hubs.append(Hub(data_dir=directory / "data", drain=0, **settings))
        hubs[-1].port = port
        return hubs[-1].start()

    yield start
    for hub in hubs:
        hub.close()
    shutil.rmtree(directory)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def complaints() -> list[str]:
    """Everything the page must not do: errors, refused content, requests to other hosts."""
    return []


@pytest_asyncio.fixture(loop_scope="module")
async def excused() -> list[str]:
    """What may be in complaints, and when is not for the test to say: words of them."""
    return []


@pytest_asyncio.fixture(loop_scope="module")
async def hub_goes(excused: list[str]) -> None:
    """The browser's own complaints about a server that is not there, or only just, are in order."""
    excused += ["ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET", "503"]


@pytest_asyncio.fixture(loop_scope="module")
async def page(
    browser: Browser, complaints: list[str], excused: list[str], start_hub: Callable[..., Hub]
) -> AsyncIterator[Page]:
    """A page of its own, closed before the hubs are; whatever it complained of in the end fails the test."""
    page = await browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(15_000 * UNIT)
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on(
        "console",
        lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None,
    )

    def look(request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "blob:", "data:")):
            complaints.append(f"another host: {request.url}")

    page.on("request", look)
    yield page
    await page.close()
    assert [text for text in complaints if not any(word in text for word in excused)] == []
