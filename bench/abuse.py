"""Measures what hostile clients cost the others: latency of a few publishers while malformed traffic pours in.

    python bench/abuse.py [--rate 100] [--pairs 5] [--seconds 5]

The hub runs on core 0. On core 1 run the publishers, and the abuser in a process of its own at the lowest priority, so
that it takes no time from the measurement. Quiet and hostile spells take turns; what counts are the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

PUBLISHERS, PAUSE = 20, 0.05


async def publisher(
    http: aiohttp.ClientSession, url: str, number: int, latencies: list[float]
) -> None:
    """Publish into a room of one's own and note how long each answer takes."""
    async with http.ws_connect(f"{url}/socket.io/?EIO=4&transport=websocket") as socket:
        await socket.send_str("40")
        count = 0
        while True:
            began = time.perf_counter()
            request = {"room": f"bench-{number}", "event": "m", "data": "x" * 100}
            await socket.send_str(f"42{count}{json.dumps(['publish', request])}")
            while not (text := (await socket.receive()).data).startswith(f"43{count}["):
                if text == "2":
                    await socket.send_str("3")
            latencies.append(time.perf_counter() - began)
            count += 1
            await asyncio.sleep(PAUSE)


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
            task.add_done_callback(
                lambda done: (tasks.discard(done), done.cancelled() or done.exception())
            )
            count += 1
            await asyncio.sleep(max(0.0, began + count / rate - time.monotonic()))


def p99(latencies: list[float]) -> float:
    return sorted(latencies)[int(len(latencies) * 0.99)] * 1000


async def measure(url: str, rate: float, pairs: int, seconds: float) -> None:
    quiet: list[float] = []
    hostile: list[float] = []
    latencies: list[float] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        tasks = [asyncio.create_task(publisher(http, url, n, latencies)) for n in range(PUBLISHERS)]
        await asyncio.sleep(2)
        for _ in range(pairs):
            for results in (quiet, hostile):
                abuser = None
                if results is hostile:
                    abuser = subprocess.Popen(
                        [
                            "nice",
                            "-n",
                            "19",
                            sys.executable,
                            __file__,
                            "--abuse",
                            url,
                            "--rate",
                            str(rate),
                        ]
                    )
                    await asyncio.sleep(2)
                latencies.clear()
                await asyncio.sleep(seconds)
                results.append(p99(latencies))
                if abuser is not None:
                    abuser.kill()
                    abuser.wait()
                    await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    print("p99 quiet, ms:  ", *(f"{value:.2f}" for value in quiet))
    print("p99 hostile, ms:", *(f"{value:.2f}" for value in hostile))
    ratio = statistics.median(h / q for h, q in zip(hostile, quiet, strict=True))
    print(
        f"{rate:.0f} hostile sessions a second: median p99 {statistics.median(quiet):.2f} ms -> "
        f"{statistics.median(hostile):.2f} ms, median ratio {ratio:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--abuse", help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.sched_setaffinity(0, {1})
    if given.abuse:
        asyncio.run(abuse(given.abuse, given.rate))
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
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as hub:
            assert hub.stdout is not None
            found = re.search(r"http://[\d.]+:\d+", hub.stdout.readline())
            assert found is not None
            try:
                asyncio.run(measure(found[0], given.rate, given.pairs, given.seconds))
            finally:
                hub.terminate()


main()
