"""Measures what the scripts cost Redis: of EVALSHA, and of the whole process with append-only file and socket.

    python bench/scripts.py [--redis BINARY] [--count 20000]

The server runs on core 0, on the embedded server's options, the caller on core 1. Several calls are under way at a time,
as in a busy hub. `OTHER/.venv/bin/python bench/scripts.py` measures the scripts of another checkout.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

# Last: the hub is the one that is installed with this Python.
sys.path.append(str(Path(__file__).parents[1]))

import redis

from bench.process import cpu_seconds
from hub.message import encode, meta
from hub.settings import Settings
from hub.store.results import SessionClaim
from hub.store.store import Store, StoreListener
from tests.support.publishing import OnPublished
from tests.support.tools import valkey

ROOMS, TOGETHER = 500, 32
OPTIONS = {
    "port": "0", "save": "", "appendonly": "yes", "appendfsync": "everysec",
    "latency-tracking": "no", "list-max-listpack-size": "-3",
}  # fmt: skip


class Stand(StoreListener):
    """A server, a store connected to it, and the sessions that were made so far. What the store reports changes nothing."""

    def __init__(self, socket: Path, pid: int) -> None:
        self._server = redis.Redis(unix_socket_path=str(socket))
        self._pid = pid
        self.store = Store(Settings(), f"unix://{socket}", self)
        self.sessions: list[SessionClaim] = []

    async def measure(
        self, what: str, move: Callable[[int], Awaitable[Any]], count: int, together: int = TOGETHER
    ) -> None:
        """Make a move so many times, so many of them at once, and print what each cost."""
        self._server.config_resetstat()
        before = cpu_seconds(self._pid)
        starts = range(0, count, together)
        for start in starts:
            await asyncio.gather(*(move(start + number) for number in range(together)))
        cpu = cpu_seconds(self._pid) - before
        stats: Any = self._server.info("commandstats")
        script, moves = stats["cmdstat_evalsha"]["usec"], len(starts) * together
        print(f"{what:44} {script / moves:8.1f} {cpu / moves * 1e6:8.1f}")

    def publish(self, number: int) -> asyncio.Future[Any]:
        return self.say(f"room-{number % ROOMS}")

    def say(self, room: str) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        header, body = encode("event", b'"%b"' % (b"x" * 100), meta(room, "somebody"))
        self.store.publishing.publish(
            room, header, body, OnPublished(lambda result, _: done.set_result(result))
        )
        return done

    # A session's connection is called by its number; scripts are answered in the order in which they were sent.

    async def claim(self, number: int) -> None:
        claimed = await self.store.sessions.claim(
            str(number), client_id=None, pid=None, offset=None
        )
        assert claimed is not None
        self.sessions.append(claimed)

    async def replay(self, number: int) -> None:
        claimed = self.sessions[number]
        await self.store.sessions.replay(claimed.client_id, str(number), claimed.position)

    async def subscribe(self, number: int) -> None:
        client = self.sessions[number].client_id
        room = f"room-{number % ROOMS}"
        await self.store.sessions.subscribe(client, str(number), [(room, False)])

    async def subscribe_together(self, number: int) -> None:
        client = self.sessions[number].client_id
        rooms = [(f"{number}-{each}", False) for each in range(50)]
        await self.store.sessions.subscribe(client, str(number), rooms)

    async def miss(self, rooms: int, messages: int) -> None:
        """Begin a session in so many rooms, and publish so many messages into each of them."""
        number = len(self.sessions)
        await self.claim(number)
        client, names = self.sessions[number].client_id, [f"{rooms}-{n}" for n in range(rooms)]
        await self.store.sessions.subscribe(client, str(number), [(room, False) for room in names])
        await asyncio.gather(*(self.say(room) for _ in range(messages) for room in names))

    async def catch_up(self, _: int) -> None:
        """Hand out the first batch of what the last session missed."""
        await self.replay(len(self.sessions) - 1)


async def measure(socket: Path, pid: int, count: int) -> None:
    stand = Stand(socket, pid)
    await stand.store.start()
    print(f"{'µs of Redis for each':44} {'script':>8} {'process':>8}")
    await stand.measure(f"publish, {ROOMS} rooms, {TOGETHER} at a time", stand.publish, count)
    await stand.measure(f"publish, {ROOMS} rooms, one at a time", stand.publish, count // 4, 1)
    await stand.measure("claim, a new anonymous session", stand.claim, count)
    await stand.measure("replay, a session without rooms", stand.replay, count)
    await stand.measure("subscribe, the first room", stand.subscribe, count)
    await stand.measure("subscribe, 50 rooms together", stand.subscribe_together, count // 10)
    for rooms in (10, 1000):
        await stand.miss(rooms, 20)
        await stand.measure(f"replay, a batch of 200 out of {rooms} rooms", stand.catch_up, 100, 1)
    await stand.store.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--redis", default=valkey(), help="server to measure")
    parser.add_argument("--count", type=int, default=20_000 // TOGETHER * TOGETHER)
    given = parser.parse_args()
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory(prefix="bench-") as data:
        socket = Path(data) / "redis.sock"
        options = OPTIONS | {"dir": data, "unixsocket": str(socket)}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        server = subprocess.Popen(
            ["taskset", "-c", "0", given.redis, *words], stdout=subprocess.DEVNULL
        )
        try:
            while not socket.exists():
                assert server.poll() is None, f"{given.redis} does not start"
                time.sleep(0.02)
            asyncio.run(measure(socket, server.pid, given.count))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
