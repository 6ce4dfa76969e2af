"""The suite's storm: every fault at least three times, and nothing lost. CHAOS_MINUTES makes it an hour, or a night."""

from __future__ import annotations

import json
import os
import random

import pytest

from tests.chaos.storm import raging

MINUTES = float(os.environ.get("CHAOS_MINUTES", "0"))
ENOUGH = 3


# The stock clients leave things unclosed when their connections break.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.timeout(300 + MINUTES * 90)
async def test_nothing_is_lost_in_a_storm(capsys):
    """Every promise of PROTOCOL §5 holds for every client, whatever strikes."""
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(10**6)))
    with capsys.disabled():
        print(f"\nchaos: seed {seed} (CHAOS_SEED={seed} strikes in the same order)", flush=True)
    async with raging(seed) as storm:
        try:
            await storm.rage(enough=ENOUGH, least=MINUTES * 60, limit=240 + MINUTES * 80)
            found = await storm.settle()
        except BaseException:
            with capsys.disabled():
                print(storm.evidence([]))
            raise
        with capsys.disabled():
            print("chaos:", json.dumps(storm.numbers()), flush=True)
        assert not found, storm.evidence(found)
        replays, gaps = storm.history.replays(), storm.history.gaps()
        assert replays >= 100, f"{replays} replays are too few to prove anything"
        assert gaps >= 10, f"{gaps} gaps are too few to prove anything"
        for fault in storm.faults:
            assert fault.count >= ENOUGH, f"{fault.name} struck {fault.count} times"
        storm.cluster.check()
