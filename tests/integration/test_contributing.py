"""CONTRIBUTING's two examples, done for real: what it says to add is added to a copy of the checkout, whose tests then run."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap

import pytest

from tests.support.pages import sections
from tests.support.program import Program
from tests.support.times import SOON
from tests.support.tools import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(20 * SOON)]

SECTIONS = {section.title: section for section in sections((ROOT / "CONTRIBUTING.md").read_text())}


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the examples change and need."""
    for name in ("hub", "tests", "docs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "static").symlink_to(ROOT / "static")
    return tmp_path


def insert(file, before, text):
    """Insert text in front of the first place where `before` stands; an empty one: at the end."""
    whole = file.read_text()
    assert before in whole
    at = whole.index(before) if before else len(whole)
    file.write_text(whole[:at] + text + whole[at:])


async def run(checkout, *command):
    """Run Python in the copy as if it were run by hand; it must succeed."""
    environ = {name: v for name, v in os.environ.items() if not name.startswith(("PYTEST_", "COV"))}
    environ["PYTHONPATH"] = str(checkout)
    async with Program(sys.executable, *command, cwd=checkout, env=environ) as program:
        assert await program.ends(6 * SOON) == 0, "\n".join(program.lines)


async def test_the_verb(checkout):
    """A type, a handler and a row are a verb: it is answered, and it is in the reference."""
    kind, handler, row, test, command = SECTIONS["Add a verb"].blocks
    api, tests = checkout / "hub/api", checkout / "tests/integration/test_verbs.py"
    insert(api / "requests.py", "", "\n\n" + kind.text)
    (api / "handlers/echo.py").write_text(handler.text)
    insert(api / "registry.py", "pubsub\n", "echo, ")
    insert(api / "registry.py", "    HistoryRequest,\n", "    EchoRequest,\n")
    insert(api / "registry.py", "    )\n}", f"        {row.text.strip()},\n")
    insert(tests, "", "\n\n" + test.text)
    await run(checkout, "-m", "ruff", "check", "hub/api")
    await run(checkout, "docs/generate.py")
    assert "| `echo` | `text` | string, " in (checkout / "docs/protocol.md").read_text()
    await run(checkout, *command.text.split()[1:])


async def test_the_script(checkout):
    """A file, a name and a method are a script, and nothing else has to know of it."""
    script, name, method, test, command = SECTIONS["Add a script"].blocks
    store, tests = checkout / "hub/store", checkout / "tests/unit/store/test_scripts.py"
    (store / "lua/count_rooms.lua").write_text(script.text)
    insert(store / "scripts.py", '    "publish": ', textwrap.indent(name.text, " " * 4))
    move = textwrap.indent(method.text, " " * 4) + "\n"
    insert(store / "sessions.py", "    async def park(", move)
    insert(tests, "", "\n\n" + test.text)
    await run(checkout, *command.text.split()[1:], "-k", "counted or script_is_read")
