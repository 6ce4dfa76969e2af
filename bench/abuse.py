"""Measures what hostile clients cost the others: latency of a few publishers while they are at it.

    python bench/abuse.py [--kind engine] [--rate 100] [--pairs 5] [--seconds 5]

Kinds: `engine`, mutated traffic of `rate` sessions a second; `crowd`, so many newcomers a second at a hub that is full;
`history`, `subscribe`, `publish`, `large` (publishes of 60 KB), `ack`, `malformed`: four connections that send such verbs
as fast as they can and heed no refusal.

The hub runs on core 0. On core 1 run the publishers, and the abuser in a process of its own that gets what they leave of
it, so that it takes no time from the measurement. Quiet and hostile spells take turns; what counts are the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

PUBLISHERS, PAUSE = 20, 0.05
FLOODS = {
    "history": '42%d["history",{"room":"bench-0","limit":1000}]',
    "subscribe": '42%d["subscribe",{"room":"bench-0"}]',
    "publish": '42%d["publish",{"room":"flood","event":"m","data":"x"}]',
    "large": '42%d["publish",{"room":"flood","event":"m","data":"' + "x" * 60_000 + '"}]',
    "ack": '42%d["ack",{"offset":"5"}]',
    "malformed": '42%d["publish",{"room":5}]',
}
# Connections of a flood, and bytes that one of them writes at a time.
FLOODERS, AT_A_TIME = 4, 10_000


async def publisher(url: str, number: int, latencies: list[float]) -> None:
    """Publish into a room of one's own and note how long each answer takes."""
    from tests.support.light import Light

    client = await (await Light.open("127.0.0.1", int(url.rsplit(":", 1)[1]))).connect()
    try:
        while True:
            began = time.perf_counter()
            await client.ask("publish", room=f"bench-{number}", event="m", data="x" * 100)
            latencies.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE)
    finally:
        client.cut()


def _only_lost(attack: asyncio.Task[None]) -> None:
    """An attack may end by what the hub does to it; anything else is a mistake here."""
    error = attack.exception()
    if error is not None and not isinstance(error, aiohttp.ClientError | OSError | TimeoutError):
        print(f"{error!r}", file=sys.stderr, flush=True)
        os._exit(1)


async def abuse(url: str, rate: float) -> None:
    """Open hostile sessions at a rate until ended, half over WebSocket and half over polling."""
    from tests.conformance.conftest import Peer
    from tests.conformance.test_hostile import abuse_polling, abuse_websocket

    port = int(url.rsplit(":", 1)[1])
    tasks: set[asyncio.Task[None]] = set()
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=timeout
    ) as http:
        peer = Peer(port, "socket.io", http)
        began, count = time.monotonic(), 0
        while True:
            attack = abuse_websocket if count % 2 else abuse_polling
            task = asyncio.create_task(attack(peer, count))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            task.add_done_callback(_only_lost)
            count += 1
            await asyncio.sleep(max(0.0, began + count / rate - time.monotonic()))


async def flood(url: str, packet: str) -> None:
    """Send verbs as fast as they are taken."""
    from tests.support.light import Light

    async def send() -> None:
        client = await (await Light.open("127.0.0.1", int(url.rsplit(":", 1)[1]))).connect()
        client._packet = lambda packet: client.send("3") if packet == "2" else None  # type: ignore[method-assign]
        numbers, count = itertools.count(), max(1, AT_A_TIME // len(packet))
        while not client.closed.done():
            for number in itertools.islice(numbers, count):
                client.send(packet % number)
            while client._transport.get_write_buffer_size() > 100_000:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)
        print("a flooder was thrown out", await client.closed)

    await asyncio.gather(*(send() for _ in range(FLOODERS)))


async def crowd(url: str, rate: float) -> None:
    """Knock at a full hub's door."""
    from tests.support.light import Light, Refused

    async def knock() -> None:
        try:
            (await Light.open("127.0.0.1", int(url.rsplit(":", 1)[1]))).cut()
        except Refused:
            pass

    began, count = time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(knock())
            count += 1
            await asyncio.sleep(max(0.0, began + count / rate - time.monotonic()))


@dataclass
class Spells:
    """The median and the 99th percentile of each spell's latencies, ms."""

    name: str
    halves: list[float] = field(default_factory=list)
    tails: list[float] = field(default_factory=list)

    def add(self, latencies: list[float]) -> None:
        ranked = sorted(latencies)
        self.halves.append(ranked[len(ranked) // 2] * 1000)
        self.tails.append(ranked[int(len(ranked) * 0.99)] * 1000)

    def __str__(self) -> str:
        tails = " ".join(f"{value:.2f}" for value in self.tails)
        half, tail = statistics.median(self.halves), statistics.median(self.tails)
        return f"{self.name:8} median {half:.2f} ms, p99 {tail:.2f} ms (p99 of each spell: {tails})"


async def measure(url: str, kind: str, rate: float, pairs: int, seconds: float) -> None:
    quiet, hostile = Spells("quiet"), Spells("hostile")
    latencies: list[float] = []
    tasks = [asyncio.create_task(publisher(url, n, latencies)) for n in range(PUBLISHERS)]
    await asyncio.sleep(2)
    for _ in range(pairs):
        for results in (quiet, hostile):
            abuser = None
            if results is hostile:
                attack = ("--abuse", url, "--rate", str(rate), "--kind", kind)
                abuser = subprocess.Popen([sys.executable, __file__, *attack])
                await asyncio.sleep(2)
            latencies.clear()
            await asyncio.sleep(seconds)
            results.add(latencies)
            if abuser is not None:
                assert abuser.poll() is None, "the abuser did not last"
                abuser.kill()
                abuser.wait()
                await asyncio.sleep(1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(f"{kind}{'' if kind in FLOODS else f', {rate:.0f} a second'}")
    print(quiet, hostile, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=["engine", "crowd", *FLOODS], default="engine")
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--abuse", help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.sched_setaffinity(0, {1})
    if given.abuse:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        if given.kind in FLOODS:
            asyncio.run(flood(given.abuse, FLOODS[given.kind]))
        else:
            attack = crowd if given.kind == "crowd" else abuse
            asyncio.run(attack(given.abuse, given.rate))
        return
    with tempfile.TemporaryDirectory() as data:
        command = [
            "taskset",
            "-c",
            "0",
            sys.executable,
            "-m",
            "hub",
            "serve",
            "--port",
            "0",
            "--data-dir",
            data,
        ]
        environ = dict(os.environ)
        if given.kind == "crowd":
            environ["HUB_MAX_CONNECTIONS"] = str(PUBLISHERS)
        with subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True
        ) as hub:
            assert hub.stdout is not None
            found = re.search(r"http://[\d.]+:\d+", hub.stdout.readline())
            assert found is not None
            try:
                asyncio.run(measure(found[0], given.kind, given.rate, given.pairs, given.seconds))
            finally:
                hub.terminate()


main()
