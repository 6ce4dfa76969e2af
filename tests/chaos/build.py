"""A test build: the hub with one rule of docs/replay.md switched off, or slow where it usually is not, or both.

    python -m tests.chaos.build RULE HOLD serve …

What to replace says `tests.integration.walk.rules`, for the walk and for this. An empty RULE or HOLD changes nothing.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from hub.cli.main import main
from hub.store import store
from hub.store.results import SessionClaim
from hub.store.scripts import read_all
from hub.store.sessions import StoredSessions
from tests.chaos.drill import LATE
from tests.integration.walk.rules import RULES


def switch_off(rule: str) -> None:
    """Replace the lines that keep the rule in this process."""
    mutation = RULES[rule]
    mutation.patch()
    scripts = mutation.apply(read_all())
    store.read_all = lambda: scripts  # type: ignore[assignment]


def hold_takes() -> None:
    """Let those who come back with a pid and no offset in late: others overtake them, though Redis has them first."""
    claim = StoredSessions.claim

    async def late(self: StoredSessions, connection: str, **options: Any) -> SessionClaim | None:
        claimed = await claim(self, connection, **options)
        if options["pid"] is not None and options["offset"] is None:
            await asyncio.sleep(LATE)
        return claimed

    StoredSessions.claim = late  # type: ignore[method-assign]


# What no fault outside decides: the order of tasks within a process.
HOLDS = {"takes without an offset": hold_takes}

if __name__ == "__main__":
    rule, hold = sys.argv[1:3]
    if rule:
        switch_off(rule)
    if hold:
        HOLDS[hold]()
    main(sys.argv[3:])
