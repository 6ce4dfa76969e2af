"""A story for each rule of docs/replay.md: it ends well, and without the rule it does not.

The same rules, and mostly the same stories, as `tests.integration.walk.scenes`, told by real processes: what a walk holds
back by hand is made late here on its way through a proxy.
"""

from __future__ import annotations

from tests.chaos.stories import absence, bus, joining, memory, owners, rollbacks

SCENES = (
    joining.SCENES | absence.SCENES | bus.SCENES | memory.SCENES | owners.SCENES | rollbacks.SCENES
)
