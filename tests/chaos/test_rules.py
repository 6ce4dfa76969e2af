"""The chaos suite is itself proved: each rule, switched off in a test build, is caught by it.

`make chaos-rules` plays every story, with its rule and without; every run of the suite plays a few of the quick ones, and
`make test-long` the others.
"""

from __future__ import annotations

import pytest

from tests.chaos.drill import play
from tests.chaos.stories import SCENES
from tests.integration.walk.rules import RULES

QUICK = ["sub_bus_first", "log_decides", "gap_offset", "heal_gap", "buffer_replay", "loss_told"]
PLAYED = [pytest.param(rule, marks=[] if rule in QUICK else pytest.mark.long) for rule in SCENES]
# How often a story may be told until it shows what is missing: processes are not under control.
TRIES = 3


def test_every_rule_has_its_story():
    """Nobody can forget one."""
    assert set(SCENES) == set(RULES)


@pytest.mark.parametrize("rule", PLAYED)
async def test_the_story_ends_well(rule):
    """With every rule on nothing is wrong."""
    assert await play(SCENES[rule], None) == []


@pytest.mark.parametrize("rule", PLAYED)
async def test_the_rule_is_needed(rule):
    """With the rule off the checker says what went wrong."""
    for _ in range(TRIES):
        if found := await play(SCENES[rule], rule):
            print(rule, found[:3])
            return
    pytest.fail(f"{TRIES} stories without {rule}, and nothing was broken")
