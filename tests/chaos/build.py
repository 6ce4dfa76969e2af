"""A test build: the hub with one rule of docs/reliability.md switched off.

    python -m tests.chaos.build RULE serve …

What to replace says `tests.integration.walk.rules`, for the walk and for this.
"""

from __future__ import annotations

import sys

from hub.cli import main
from hub.store import commands
from hub.store.scripts import read_all
from tests.integration.walk.lab import OWNERS
from tests.integration.walk.rules import RULES


def switch_off(rule: str) -> None:
    """Replace the rule's snippets in this process."""
    mutation = RULES[rule]()
    for name, value in mutation.patches.items():
        owner, method = name.split("__", 1)
        setattr(OWNERS[owner], method, value)
    scripts = mutation.apply(read_all())
    commands.read_all = lambda: scripts  # type: ignore[assignment]


if __name__ == "__main__":
    switch_off(sys.argv[1])
    main(sys.argv[2:])
