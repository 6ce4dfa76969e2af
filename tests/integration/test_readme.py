"""The README, done for real: its commands, its clients, its programs, and the output that it shows."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
import urllib.request
import venv

import pytest

import hub as product
from hub.api.registry import VERBS
from tests.support.hubs import Hub
from tests.support.pages import PAGES, blocks, cells, sections
from tests.support.program import Program
from tests.support.times import SOON, eventually
from tests.support.tools import ROOT, node, node_modules

README = (ROOT / "README.md").read_text()
BLOCKS = blocks(README)
# The address that the README's hub has.
ADDRESS = "http://127.0.0.1:8000"
START, JAVASCRIPT, PYTHON, PUBLISH_ONE, PUBLISH_MORE, INSTALL = (
    block.text.strip() for block in BLOCKS if block.language == "sh"
)


def shown(first: str) -> list[str]:
    """Return the lines of the README's block of output that begins with a line."""
    [found] = [block for block in BLOCKS if not block.language and block.lines[0] == first]
    return found.lines


def programs(language: str) -> list[str]:
    return [block.text for block in BLOCKS if block.language == language]


def terminal(command: str, *more: str) -> Program:
    """Return a command of the README as a program, with the Python and the Node of these tests."""
    tools = {".venv/bin/python": sys.executable, "node": node()}
    name, *words = shlex.split(command)
    return Program(tools[name], *words, *more)


async def publish(url: str, command: str, *more: str) -> None:
    async with terminal(command, "--url", url, *more) as program:
        assert await program.ends() == 0, program.lines


@pytest.mark.slow
async def test_the_first_page(tmp_path):
    """Both clients lose their connection and get what was published meanwhile when they return:
    the JavaScript client prints what the README shows, the stock Python client at least that."""
    hub = Hub(data_dir=tmp_path / "data")
    await asyncio.to_thread(hub.start)
    try:
        async with (
            terminal(JAVASCRIPT, hub.url) as javascript,
            terminal(PYTHON, hub.url) as python,
        ):
            both = (javascript, python)
            for program in both:
                await program.says("listening to news")
            await publish(hub.url, PUBLISH_ONE)
            for program in both:
                await program.says("headline one")
            for program in both:
                program.press_enter()
            for program in both:
                await program.says("connection lost")
            await publish(hub.url, PUBLISH_MORE)
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


async def test_a_listener_that_starts_again_prints_nothing_old(hub, room):
    """Each start is somebody new, who was not there when the headlines were published."""
    for _ in range(2):
        async with terminal(PYTHON, hub.url, room) as python:
            await python.says(f"listening to {room}")
            await publish(hub.url, PUBLISH_ONE, "--room", room)
            await python.says("headline one")
            assert python.lines == [f"listening to {room}", "headline one"]


async def test_the_first_command(tmp_path):
    """It starts a hub on a server of its own, which says where it listens; Ctrl-C ends both."""
    environ = {n: v for n, v in os.environ.items() if not n.startswith(("HUB_", "MAKE", "MFLAGS"))}
    options = f"--port 0 --data-dir {tmp_path / 'data'} --drain 0"
    async with Program(*START.split(), f"ARGS={options}", env=environ, group=True) as program:
        await eventually(lambda: "listening" in "".join(program.lines), 4 * SOON)
        [said] = [line for line in program.lines if "listening" in line]
        url = re.search(r"http://[0-9.:]+", said)
        assert url is not None
        assert [said.replace(url[0], ADDRESS)] == shown(
            f"Socket.IO Hub {product.__version__} listening on {ADDRESS}/"
        )
        assert await asyncio.to_thread(status, f"{url[0]}/") == 200
        program.send(signal.SIGINT)
        await program.ends()
    assert list((tmp_path / "data").iterdir())


@pytest.mark.slow
@pytest.mark.timeout(30 * SOON)
async def test_the_installation(tmp_path):
    """In an environment of its own, the wheel gives a hub with its page, and the Python clients."""
    venv.create(tmp_path / "venv", with_pip=True)
    environ = {n: v for n, v in os.environ.items() if not n.startswith(("HUB_", "MAKE", "MFLAGS"))}
    environ["PATH"] = f"{tmp_path / 'venv/bin'}:{environ['PATH']}"
    environ["PIP_CONSTRAINT"] = str(ROOT / "constraints.txt")
    *commands, serve = INSTALL.splitlines()
    for command in commands:
        async with Program("sh", "-c", command, env=environ) as program:
            assert await program.ends(20 * SOON) == 0, program.lines
    async with Program("python", "-c", "import hub.client", cwd=tmp_path, env=environ) as program:
        assert await program.ends(2 * SOON) == 0, program.lines
    command = f"exec {serve} --port 0 --drain 0"
    async with Program("sh", "-c", command, cwd=tmp_path, env=environ, group=True) as program:
        await eventually(lambda: "listening" in "".join(program.lines), 4 * SOON)
        url = re.search(r"http://[0-9.:]+", "".join(program.lines))
        assert url is not None
        assert await asyncio.to_thread(status, f"{url[0]}/") == 200
        program.send(signal.SIGINT)
        await program.ends()


def status(url: str) -> int:
    with urllib.request.urlopen(url, timeout=SOON) as answer:
        return int(answer.status)


async def test_the_programs(hub, redis_server, tmp_path):
    """The page's script and the lasting subscriber get what the script publishes."""
    [page], (subscriber, publisher) = programs("html"), programs("python")
    library = re.findall(r'<script src="([^"]+)">', page)
    [script] = re.findall(r"<script>\n(.*?)</script>", page, re.DOTALL)
    for link in library:
        assert await asyncio.to_thread(status, link.replace(ADDRESS, hub.url)) == 200
    (tmp_path / "node_modules").symlink_to(node_modules())
    for name, text in {
        "page.mjs": f'import {{ io }} from "socket.io-client";\n{script}',
        "subscriber.py": subscriber,
        "publisher.py": publisher,
    }.items():
        (tmp_path / name).write_text(text.replace(ADDRESS, hub.url))

    def subscribed() -> int:
        sessions = redis_server.client.keys(f"{hub.prefix}:{{0}}:session:*")
        return sum(redis_server.client.hexists(session, "r:news") for session in sessions)

    async with (
        Program(node(), "page.mjs", cwd=tmp_path) as javascript,
        Program(sys.executable, "subscriber.py", cwd=tmp_path) as python,
    ):
        both = (javascript, python)
        await eventually(lambda: subscribed() == 2, 2 * SOON, lambda: [p.lines for p in both])
        async with Program(sys.executable, "publisher.py", cwd=tmp_path) as program:
            assert await program.ends() == 0, program.lines
        for each in both:
            await each.says("news It works")
        assert (tmp_path / "archive.json").exists()


def test_no_block_is_left_out():
    """What these tests do not run is the picture."""
    kinds = [block.language for block in BLOCKS]
    run = 6 * ["sh"] + 2 * ["python"] + ["html"] + 2 * [""]
    assert sorted(kinds) == sorted([*run, "mermaid"])


def test_the_table_of_verbs_is_the_codes():
    [verbs] = [section for section in sections(README) if section.title == "Verbs"]
    table = [row for row in verbs.prose if row.startswith("|")]
    found = {
        re.findall(r"\w+", verb)[0]: re.findall(r"\w+", fields)
        for verb, fields, _ in cells("\n".join(table))[1:]
    }
    assert found == {name: [*verb.request.__struct_fields__] for name, verb in VERBS.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page):
    """No path in a command or a sentence leads nowhere; `tests/unit/test_docs_links.py` follows the links."""
    text = page.read_text()
    named = re.findall(
        r"(?<![\w./])(?:bench|docs|examples|hub|static|tests)(?:/\w+)+(?:\.\w+)?", text
    )
    assert [name for name in named if not (ROOT / name).exists()] == []
