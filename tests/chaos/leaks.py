"""Clients that come, subscribe, publish and go, and what the hub and Redis hold afterwards."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import redis

from tests.support.hubs import Hub
from tests.support.light import Light
from tests.support.probe import MAIN
from tests.support.raw import Raw
from tests.support.times import MS, UNIT

# Everything that is remembered runs out within seconds.
LIFE = 500 * MS
SETTINGS = {
    "anonymous_life": LIFE, "named_life": LIFE, "log_age": LIFE, "dedupe_life": LIFE, "lease": 3 * UNIT,
    "log_length": 20, "inbox_length": 5,
}  # fmt: skip
WORKERS = 24
ROOMS = 40
# One in so many comes over polling, has a name, is cut without a word, comes back with its pid.
POLLING, NAMED, CUT, BACK = 50, 5, 3, 7


def watched(url: str, **settings: object) -> Hub:
    """Return a hub, not started yet, that tells what it holds."""
    return Hub(url, "leaks", main=("-c", MAIN), **SETTINGS, **settings)


@dataclass
class Held:
    """What is held while nobody is connected. `memory` in KiB; `keys` are what has no end, or not yet.

    `circles`: how many objects more had been waiting for the garbage collector.
    """

    tasks: int
    files: int
    memory: int
    objects: int
    circles: int
    keys: set[str]
    kinds: dict[str, int] = field(repr=False)

    def grown(self, since: Held) -> dict[str, int]:
        """Return by how many each kind of object has become more."""
        return {
            kind: more for kind, count in self.kinds.items() if (more := count - since.kinds.get(kind, 0)) > 0
        }  # fmt: skip


def resident(pid: int) -> int:
    """Return a process's resident memory in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


async def held(hub: Hub, client: redis.Redis) -> Held:
    """Wait until nobody is connected and the lives of all have run out; then count."""
    pid = hub.pid
    before: set[str] | None = None
    circles = 0
    while True:
        async with aiohttp.ClientSession() as http, http.get(f"{hub.url}/held") as answer:
            found = await answer.json()
        circles += found["circles"]
        keys = {key for key in client.scan_iter(f"{hub.prefix}:*", count=1000)}  # noqa: C416
        if not found["connections"] and not found["sessions"] and keys == before:
            break
        before = keys
        await asyncio.sleep(2 * LIFE)
    await asyncio.sleep(200 * MS)  # for what we asked by to be closed there too
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Held(
        found["tasks"], files, resident(pid), found["objects"], circles, keys, found["kinds"]
    )


async def cycles(hub: Hub, count: int) -> None:
    """Come and go so often, a few at a time."""
    numbers = iter(range(count))
    await asyncio.gather(*(_worker(hub, worker, numbers) for worker in range(WORKERS)))


async def _worker(hub: Hub, worker: int, numbers: Iterator[int]) -> None:
    for number in itertools.islice(numbers, None):
        room = f"room-{number % ROOMS}"
        name = f"worker-{worker}" if number % NAMED == 0 else None
        if number % POLLING == 0:
            await _poll(hub, room, name)
            continue
        client = await _visit(hub, room, name, number)
        if number % BACK == 0 and client.pid is not None:
            client.cut()
            await client.closed
            back = await Light.open("127.0.0.1", hub.port)
            client = await back.connect(pid=client.pid, offset=client.offset)
        if number % CUT == 0:
            client.cut()
        else:
            client.leave()
        await client.closed


async def _visit(hub: Hub, room: str, name: str | None, number: int) -> Light:
    client = await Light.open("127.0.0.1", hub.port)
    await client.connect(client_id=name)
    joined = await client.ask("subscribe", room=room, history=2)
    said = await client.ask("publish", room=room, event="m", data=number, id=str(number))
    assert joined["ok"], joined
    assert said["ok"], said
    return client


async def _poll(hub: Hub, room: str, name: str | None) -> None:
    client = await Raw(hub.url, "polling").open()
    await client.connect({"client_id": name} if name else None)
    await client.join(room)
    await client.publish(room, "polled")
    await client.send("41")
    await client.drop()
