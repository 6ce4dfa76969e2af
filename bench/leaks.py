"""Looks for leaks: clients come, subscribe, publish and go, 100,000 times.

    python bench/leaks.py [--cycles 100000]        (or: make leaks)

After the first tenth and at the end, when nobody is connected and the lives of all sessions and messages have run out,
the hub's memory, tasks and open files and the names of all keys in Redis are noted. Memory may have grown by 5 MiB,
and next to nothing may wait for the garbage collector; everything else must be exactly what it was.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.chaos.leaks import Held, cycles, held, resident, watched  # noqa: E402
from tests.support.redis import RedisServer  # noqa: E402

# KiB by which memory may grow.
ALLOWED = 5 * 1024
# Objects that may wait for the garbage collector.
WAITING = 100


def tell(when: str, found: Held) -> None:
    print(
        f"{when}: {found.memory / 1024:.2f} MiB, {found.tasks} tasks, {found.files} files, "
        f"{found.objects} objects and {found.circles} for the garbage collector, {len(found.keys)} keys",
        flush=True,
    )


async def measure(count: int) -> bool:
    redis = RedisServer()
    hub = watched(redis.url)
    try:
        hub.start()
        await cycles(hub, count // 10)
        first = await held(hub, redis.client)
        tell(f"after {count // 10:,}", first)
        began = time.monotonic()
        for number in range(2, 11):
            await cycles(hub, count // 10)
            took = time.monotonic() - began
            print(
                f"  {number * count // 10:,} after {took:.0f} s: {resident(hub.pid) / 1024:.2f} MiB"
            )
        last = await held(hub, redis.client)
        tell(f"after {count:,}", last)
        print("more:", last.grown(first))
        print("keys:", *sorted(last.keys))
        return (
            last.memory - first.memory <= ALLOWED
            and last.circles <= WAITING
            and (last.tasks, last.files, last.keys) == (first.tasks, first.files, first.keys)
        )
    finally:
        hub.check()
        hub.close()
        redis.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=100_000)
    sys.exit(not asyncio.run(measure(parser.parse_args().cycles)))


main()
