"""Measures a deploy: one of two hubs on one Redis is told to end, and all of its clients go over to the other.

    python bench/deploy.py [--clients 5000] [--drain 10]

Everybody is a real WebSocket client that waits as stock clients do (1 s ± 50 %, doubled up to 5 s) and comes back
with its pid and offset, while a producer goes on publishing into the room of them all. It fails if anybody lost
anything, or was away for longer than the drain, its own delays and 2 s.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.chaos.deploy import Deploy, deploy  # noqa: E402
from tests.support.hubs import Hub  # noqa: E402
from tests.support.redis import RedisServer  # noqa: E402


def tell(result: Deploy, drain: float) -> None:
    waits = sorted(client.away - client.waited for client in result.clients)
    print(
        f"messages published meanwhile: {len(result.published)}; heard wrongly by {len(result.wrong())}"
    )
    print(
        f"process ended after {result.ended:.2f} s; the last client was back after {result.back:.2f} s"
    )
    print(
        f"close codes: {dict(result.codes)}; attempts refused: {sum(c.refused for c in result.clients)}"
    )
    print(
        f"let go within the busiest second: {result.most_within(1.0)}, tenth of one: {result.most_within(0.1)}"
    )
    print(
        f"away beyond its own delays: median {statistics.median(waits) * 1000:.1f} ms, "
        f"p99 {waits[int(len(waits) * 0.99)] * 1000:.1f} ms, longest {waits[-1] * 1000:.1f} ms "
        f"(allowed: {drain + 2:g} s)"
    )


async def measure(clients: int, drain: float) -> bool:
    redis = RedisServer()
    old, new = (Hub(redis.url, "deploy", drain=drain) for _ in range(2))
    try:
        old.start()
        new.start()
        began = time.monotonic()
        result = await deploy(old, new, clients, pause=0.25)
        print(f"{clients} clients, drain {drain:g} s, {time.monotonic() - began:.0f} s in all")
        tell(result, drain)
        return not result.wrong() and result.longest <= drain + 2
    finally:
        for hub in (old, new):
            hub.close()
        redis.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--drain", type=float, default=10)
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.exit(not asyncio.run(measure(given.clients, given.drain)))


main()
