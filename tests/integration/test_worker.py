"""A Python worker that is stopped and started again: how often its handler runs for each message.

docs/client.md shows the numbers. `pytest -m long -s tests/integration/test_worker.py` prints them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hub.client import HubClient
from tests.support.program import Program
from tests.support.proxy import Proxy, _Pair
from tests.support.times import MS, SOON, UNIT, eventually

AHEAD = 250  # messages
BURST = 5  # messages that are published one after the other


@dataclass
class Worker:
    """A worker, one process after another, and the notes that all of them left."""

    url: str
    room: str
    name: str
    directory: Path
    # Whether its session is in its room.
    subscribed: Callable[[], bool] = lambda: True
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.notes = self.directory / "notes"
        self.notes.touch()
        file = str(self.directory / "position")
        self.options = {"file": file, "runs": True, "work": 0} | self.options

    def program(self) -> Program:
        return Program(
            sys.executable, "-m", "tests.support.worker", self.url, self.room, self.name,
            str(self.notes), json.dumps(self.options),
        )  # fmt: skip

    def begun(self) -> int:
        return self.notes.read_text().count("begin")

    def handled(self) -> Counter[int]:
        """Return how often each message was handled to its end."""
        lines = self.notes.read_text().splitlines()
        return Counter(int(line) for line in lines if line.isdigit())


async def stop(program: Program, how: signal.Signals) -> int:
    program._process.send_signal(how)
    return await program.ends()


async def subscribe(worker: Worker) -> None:
    """Let the worker's session join its room, so that nothing is published before it."""
    async with worker.program() as program:
        await eventually(worker.subscribed, 3 * SOON)
        await stop(program, signal.SIGTERM)


@contextlib.asynccontextmanager
async def publishing(hub: Any, worker: Worker, rate: float) -> AsyncIterator[list[int]]:
    """Publish numbers at an even pace, so many a second; what was acknowledged is in the list.

    It waits while the worker has not begun with AHEAD of them, because a session's inbox has a bound.
    """
    published: list[int] = []
    ending = asyncio.Event()

    async def publish(writer: HubClient) -> None:
        while not ending.is_set():
            step = time.monotonic()
            for _ in range(BURST if len(published) < worker.begun() + AHEAD else 0):
                await writer.publish(worker.room, "m", len(published))
                published.append(len(published))
            await asyncio.sleep(step + BURST / rate - time.monotonic())

    async with HubClient(hub.url, transports=["websocket"]) as writer:
        work = asyncio.create_task(publish(writer))
        try:
            yield published
        finally:
            ending.set()
            await work


async def restarts(hub: Any, worker: Worker, how: signal.Signals, times: int, rate: float) -> int:
    """End the worker so often while messages are published; return how many messages it handled again."""
    await subscribe(worker)
    async with publishing(hub, worker, rate) as published:
        for _ in range(times):
            before = worker.begun()
            async with worker.program() as program:
                # It has caught up, and handles messages as they are published.
                await eventually(lambda before=before: worker.begun() > before + 20, 3 * SOON)
                await asyncio.sleep(random.uniform(0, 0.3) * UNIT)
                await stop(program, how)
    sent = len(published)
    async with worker.program() as program:
        await eventually(lambda: len(worker.handled()) >= sent, 2 * SOON)
        await stop(program, signal.SIGTERM)
    handled = worker.handled()
    again = sum(handled.values()) - len(handled)
    missing = sent - len(handled)
    print(
        f"\n{how.name} {times} times, {worker.options}: {sent} sent, {again} again, {missing} missing"
    )
    assert missing == 0
    return again


@pytest.fixture
def worker(hub, room, name, tmp_path, redis_server):
    key = f"{hub.prefix}:{{0}}:session:{name}"
    return Worker(
        hub.url, room, name, tmp_path, lambda: redis_server.client.hexists(key, f"r:{room}")
    )


async def test_killed_workers(hub, worker):
    """`kill -9`: at most the one message repeats whose handler was at work."""
    assert await restarts(hub, worker, signal.SIGKILL, 3, 200) <= 3


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_stopped_workers(hub, worker, how):
    """With `run()` nothing repeats, also where a handler was in its middle."""
    worker.options["work"] = 2 * MS
    assert await restarts(hub, worker, how, 2, 100) == 0


async def test_a_named_worker_without_a_file(hub, worker):
    """The hub knows what it has handled: nothing is lost, and nothing repeats after SIGTERM."""
    worker.options |= {"file": None, "work": 2 * MS}
    assert await restarts(hub, worker, signal.SIGTERM, 2, 200) == 0


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("how", "times", "rate", "options"),
    [
        (signal.SIGKILL, 14, 300, {}),
        (signal.SIGTERM, 4, 500, {"runs": False}),
        (signal.SIGTERM, 4, 500, {}),
        (signal.SIGKILL, 14, 300, {"file": None}),
        (signal.SIGTERM, 4, 500, {"file": None}),
    ],
    ids=["kill", "SIGTERM without run", "SIGTERM", "kill, no file", "SIGTERM, no file"],
)  # fmt: skip
async def test_the_numbers_of_the_table(hub, worker, how, times, rate, options):
    """About 4,000 messages and 14 kills, about 1,500 and four SIGTERMs."""
    worker.options |= options
    repeated = await restarts(hub, worker, how, times, rate)
    if how is signal.SIGTERM and worker.options["runs"]:
        assert repeated == 0
    elif worker.options["file"]:
        assert repeated <= times


async def test_a_handler_may_finish(hub, worker):
    """At SIGTERM the handler that is running ends by itself, and its message counts as handled."""
    worker.options["work"] = 1 * UNIT
    await subscribe(worker)
    async with HubClient(hub.url) as writer:
        for number in range(3):
            await writer.publish(worker.room, "m", number)
    async with worker.program() as program:
        await eventually(lambda: worker.begun() == 1, 2 * SOON)
        assert await stop(program, signal.SIGTERM) == 0, program.lines
    assert worker.handled() == {0: 1}
    worker.options["work"] = 0
    async with worker.program() as program:
        await eventually(lambda: len(worker.handled()) == 3, 2 * SOON)
        await stop(program, signal.SIGTERM)
    assert worker.handled() == {0: 1, 1: 1, 2: 1}


async def test_a_second_signal_does_not_wait(hub, worker):
    """It cancels the handler, whose message is handled again by the next process."""
    worker.options["work"] = 3600
    await subscribe(worker)
    async with HubClient(hub.url) as writer:
        await writer.publish(worker.room, "m", 0)
    async with worker.program() as program:
        await eventually(lambda: worker.begun() == 1, 2 * SOON)
        program._process.send_signal(signal.SIGTERM)
        await asyncio.sleep(300 * MS)
        assert await stop(program, signal.SIGINT) == 0, program.lines
    worker.options["work"] = 0
    async with worker.program() as program:
        await eventually(lambda: worker.handled() == {0: 1}, 2 * SOON)
        await stop(program, signal.SIGTERM)


async def test_a_worker_that_starts_before_its_hub(start_hub, room, name, tmp_path):
    """It waits, subscribes when the hub is there, and can be stopped while it waits."""
    hub = await asyncio.to_thread(start_hub)
    await asyncio.to_thread(hub.terminate)
    worker = Worker(hub.url, room, name, tmp_path)
    async with worker.program() as program:
        await eventually(lambda: program.lines, 2 * SOON)
        assert "cannot connect to" in program.lines[0]
        assert await stop(program, signal.SIGTERM) == 0, program.lines
    async with worker.program() as program:
        await eventually(lambda: program.lines, 2 * SOON)
        await asyncio.to_thread(hub.start)
        async with HubClient(hub.url) as writer:
            for number in range(100):
                await writer.publish(room, "m", number)
                if worker.handled():
                    break
                await asyncio.sleep(100 * MS)
        assert worker.handled()
        await stop(program, signal.SIGTERM)


class Prefixed(Proxy):
    """Takes a first part off the path of each request, as a proxy before a hub does."""

    def _through(self, pair: _Pair, way: str, data: bytes) -> bytes:
        return data.replace(b" /live/socket.io/?", b" /socket.io/?") if way == "up" else data


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], None], ids=str)
async def test_a_hub_below_a_path(hub, room, transports):
    """The URL's path is the hub's base path, on both transports."""
    async with Prefixed(hub.port) as proxy:
        async with HubClient(f"{proxy.url}/live", transports=transports) as client:
            await client.publish(room, "m", 1)
        with pytest.raises(Exception, match="HTTP 404 Not Found"):
            await HubClient(f"{proxy.url}/other", transports=transports, timeout=UNIT).connect()
