"""Times of the tests: multiples of one unit, which HUB_TEST_UNIT stretches where a machine is slow.

The unit is a second, or as many as HUB_TEST_UNIT says. Heartbeats, leases and timeouts of hubs and clients under test are
multiples of it, and so are the times that a test waits; so they keep their proportions at any pace. What the product
promises or fixes in seconds is not stretched: such a number stands alone, and a comment says whose it is.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

UNIT = float(os.environ.get("HUB_TEST_UNIT", "1"))
# A thousandth of it: `20 * MS`.
MS = UNIT / 1000
# What should happen soon has so long to happen on a busy machine.
SOON = 10 * UNIT
# Between two looks at a condition.
STEP = 10 * MS

T = TypeVar("T")


async def eventually(condition: Callable[[], T], within: float = SOON, what: object = "") -> T:
    """Return what `condition` returns as soon as that is true; fail after `within` seconds.

    `what` (or what it returns, if it can be called) goes into the failure's message.
    """
    deadline = time.monotonic() + within
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what() if callable(what) else what}")
        await asyncio.sleep(STEP)
    return result


async def eventually_true(
    condition: Callable[[], Awaitable[T]], within: float = SOON, what: object = ""
) -> T:
    """Do as `eventually` for a condition that has to be awaited."""
    deadline = time.monotonic() + within
    while not (result := await condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what() if callable(what) else what}")
        await asyncio.sleep(STEP)
    return result
