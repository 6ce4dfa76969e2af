"""The README's first page, done for real: its commands, its clients, and the output it shows."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest

from tests.support.hubs import Hub
from tests.support.pages import blocks
from tests.support.program import Program
from tests.support.times import SOON, eventually
from tests.support.tools import ROOT, node

README = (ROOT / "README.md").read_text()


async def publish(url: str, *headlines: str) -> None:
    async with Program(sys.executable, "examples/publish.py", "--url", url, *headlines) as program:
        await eventually(
            lambda: len(program.lines) == len(headlines), 2 * SOON, lambda: program.lines
        )


def shown(first: str) -> list[str]:
    """Return the lines of the README's block of output that begins with a line."""
    [found] = [block for block in blocks(README) if not block.language and block.lines[0] == first]
    return found.lines


@pytest.mark.slow
async def test_the_first_page(tmp_path):
    """Both clients lose their connection and get what was published meanwhile when they return:
    the JavaScript client prints what the README shows, the stock Python client at least that."""
    hub = Hub(data_dir=tmp_path / "data")
    await asyncio.to_thread(hub.start)
    try:
        async with (
            Program(node(), "examples/listen.cjs", hub.url) as javascript,
            Program(sys.executable, "examples/listen.py", hub.url) as python,
        ):
            both = (javascript, python)
            for program in both:
                await program.says("listening to news")
            await publish(hub.url, "one")
            for program in both:
                await program.says("headline one")
            for program in both:
                program.press_enter()
            for program in both:
                await program.says("connection lost")
            await publish(hub.url, "two", "three")
            for program in both:
                await program.says("headline two", "headline three")
            assert javascript.lines == shown("listening to news")
            again = python.lines[python.lines.index("connection lost") :]
            assert again[1:] in (
                ["listening to news", "headline two", "headline three"],
                ["listening to news", "headline one", "headline two", "headline three"],
            )
    finally:
        await asyncio.to_thread(hub.close)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_every_file_that_a_page_names_is_there(page):
    """No path in a command or a sentence leads nowhere; `tests/unit/test_docs_links.py` follows the links."""
    text = page.read_text()
    named = re.findall(
        r"(?<![\w./])(?:bench|docs|examples|hub|static|tests)(?:/\w+)+(?:\.\w+)?", text
    )
    assert [name for name in named if not (ROOT / name).exists()] == []
