"""The storm: every fault several times, and nothing lost.

Every run of the suite has one. CHAOS_MINUTES lets storm follow storm for so long, each with the next seed, and each
fault strike alone; CHAOS_SEED says the first seed, CHAOS_SCALE how many clients of each kind there are.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time

import pytest

from tests.chaos.deadline import GRACE, deadline, marked
from tests.chaos.faults import ALL
from tests.chaos.storm import raging
from tests.support.times import UNIT

MINUTES = float(os.environ.get("CHAOS_MINUTES", "0"))
SCALE = int(os.environ.get("CHAOS_SCALE", "4"))
SEED = int(os.environ.get("CHAOS_SEED", random.randrange(10**6)))
# How often each fault strikes at least.
ENOUGH = 3 if MINUTES else 2
# Seconds after which a storm that has not done enough is given up, and after which one that does not end is.
LIMIT, DEADLINE = 180 * UNIT, 300 * UNIT


@pytest.fixture(autouse=True)
def swept():
    """What broken clients leave behind is collected here, where nobody minds it, and not in another test."""
    yield
    # What a failed storm leaves hangs on its traceback.
    for name in ("last_exc", "last_value", "last_traceback"):
        vars(sys).pop(name, None)
    for _ in range(3):
        gc.collect()


# The stock clients leave things unclosed when their connections break.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.timeout(DEADLINE + 2 * GRACE + MINUTES * 60)
async def test_nothing_is_lost_in_a_storm(capsys):
    """Every promise of PROTOCOL §5 holds for every client, whatever strikes."""
    seed = SEED
    until = time.monotonic() + MINUTES * 60
    with capsys.disabled():
        while True:
            print(f"\nchaos: seed {seed}", flush=True)
            with marked():
                async with deadline(DEADLINE) as limit:
                    await one_storm(seed, limit)
            gc.collect()
            seed += 1
            if time.monotonic() >= until:
                break


async def one_storm(seed, limit):
    """Rage, settle, judge; what happened is kept where it went wrong."""
    async with raging(seed, SCALE, long=MINUTES > 0) as storm:
        await judged(storm, limit)
        replays, gaps = storm.history.replays(), storm.history.gaps()
        assert replays >= 100, f"{replays} replays are too few to prove anything"
        assert gaps >= 10, f"{gaps} gaps are too few to prove anything"
        for fault in storm.faults:
            assert fault.count >= ENOUGH, f"{fault.name} struck {fault.count} times"


async def judged(storm, limit):
    """Let it rage and settle; nothing may be wrong then."""
    limit.progress = storm.progress
    try:
        await storm.rage(enough=ENOUGH, limit=LIMIT)
        found = await storm.settle()
    except BaseException:
        print(storm.evidence([]))
        raise
    print("chaos:", json.dumps(storm.numbers()), flush=True)
    if found:  # said at once: the end of the run may be an hour away
        print(evidence := storm.evidence(found), flush=True)
        pytest.fail(evidence, pytrace=False)
    storm.cluster.check()


if MINUTES:  # what the mix proves is proved; alone, a fault shows more clearly what it does

    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.timeout(DEADLINE + 2 * GRACE)
    @pytest.mark.parametrize("fault", ALL)
    async def test_nothing_is_lost_by_a_fault_alone(capsys, fault):
        """Three strikes, and nothing else goes wrong."""
        with capsys.disabled(), marked():
            async with (
                deadline(DEADLINE) as limit,
                raging(SEED, SCALE, [fault], long=True) as storm,
            ):
                await judged(storm, limit)
