"""docs/client.md, done for real: each of its programs runs, and the worker ends by its signal."""

from __future__ import annotations

import signal
import sys

import pytest

from hub.client import HubClient
from tests.support.pages import blocks
from tests.support.program import Program
from tests.support.times import SOON, eventually
from tests.support.tools import ROOT

ADDRESS = "http://127.0.0.1:8000"
BLOCKS = blocks((ROOT / "docs" / "client.md").read_text())
WORKERS = [block for block in BLOCKS if "client.run(" in block.text]
SCRIPTS = [block for block in BLOCKS if block not in WORKERS]


def program(block, hub, directory):
    (directory / "program.py").write_text(block.text.replace(ADDRESS, hub.url))
    return Program(sys.executable, "-u", "program.py", cwd=directory)


def test_every_block_is_a_program():
    assert {block.language for block in BLOCKS} == {"python"}
    assert len(WORKERS) == 1


@pytest.mark.parametrize("block", SCRIPTS, ids=lambda block: f"line {block.line}")
async def test_a_script_ends_well(hub, tmp_path, block):
    async with program(block, hub, tmp_path) as running:
        assert await running.ends() == 0, running.lines
        assert running.lines == []


async def test_the_worker(hub, redis_server, tmp_path):
    key = f"{hub.prefix}:{{0}}:session:billing"
    async with program(WORKERS[0], hub, tmp_path) as worker:
        await eventually(
            lambda: redis_server.client.hexists(key, "r:invoices"), 2 * SOON, lambda: worker.lines
        )
        async with HubClient(hub.url) as client:
            await client.publish("invoices", "invoice", {"number": 1})
        await worker.says("invoices {'number': 1}")
        worker._process.send_signal(signal.SIGTERM)
        assert await worker.ends() == 0, worker.lines
        assert len(worker.lines) == 1
