"""Random walks of two nodes, three clients and everything that can break between them; each ends with PROTOCOL §5.

A walk is repeated by its seed: HUB_WALK=<seed> runs that one alone and prints what was done, HUB_WALKS=<count> runs more.
`make test-long` runs the 800 that follow.
"""

from __future__ import annotations

import collections
import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.integration.walk.rules import RULES
from tests.integration.walk.world import episode
from tests.support.redis import RedisServer
from tests.support.switches import Mutation
from tests.support.times import UNIT

COUNT = int(os.environ.get("HUB_WALKS", "80"))
# Seconds that so many walks may take.
LIMIT = max(600, COUNT)

# Bounds so small that they are met all the time, and more of what breaks.
ROUGH: dict[str, Any] = {
    "weights": {"publish": 6, "cut": 0.8, "bus": 0.3, "leap": 0.2, "crash": 0.1, "commands": 0.2, "pause": 0.1},
    "log_length": 3,
    "inbox_length": 2,
}  # fmt: skip


# A primary is lost, with what a replica that has fallen behind does not have; of what else breaks there is less.
FAILOVER: dict[str, Any] = {
    "weights": {
        "publish": 6, "cut": 0.2, "bus": 0.05, "leap": 0.03, "crash": 0.02, "pause": 0.01, "slow": 0.4, "failover": 0.4,
    },
    "log_length": 3,
    "inbox_length": 2,
}  # fmt: skip

# The same of bytes: whatever is in a log is long, and few of it is read by one run. As that takes longer, more is published.
LONG: dict[str, Any] = {
    **ROUGH,
    "weights": {**ROUGH["weights"], "publish": 10},
    "mutation": Mutation(LONG_BODY=0, MOST_PEEKED=20),
}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server that the walks empty as they like."""
    logging.disable(logging.WARNING)
    server = RedisServer()
    yield server
    server.stop()
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def quiet_logs() -> None:
    """No hub process runs here."""


def walk(server: RedisServer, seed: int, **options: Any) -> collections.Counter[str]:
    counts, broken, trace = episode(server, seed, **options)
    if broken is not None:
        done = (
            "\n".join(trace[-400:]) if "HUB_WALK" in os.environ else f"HUB_WALK={seed} tells more"
        )
        pytest.fail(f"seed {seed}: {broken}\n{done}", pytrace=False)
    return counts


def walks(
    server: RedisServer, seeds: Iterable[int], options: dict[str, Any]
) -> collections.Counter[str]:
    """Do the walks of these seeds, and return what they met."""
    counts: collections.Counter[str] = collections.Counter()
    for seed in seeds:
        remembered = 2000 * (seed % 2)  # a few messages, or none
        counts += walk(server, seed, replay_memory=remembered, **options)
    return counts


# The first seed of each kind of walk, and its options.
kinds = pytest.mark.parametrize(
    ("first", "options"),
    [(0, {}), (100_000, ROUGH), (200_000, LONG), (300_000, FAILOVER)],
    ids=["calm", "rough", "long", "failover"],
)


@pytest.mark.slow
@pytest.mark.timeout(LIMIT * UNIT)
@kinds
def test_walks_keep_the_promises(server: RedisServer, first: int, options: dict[str, Any]) -> None:
    """No loss without a gap, no repeats, order, exact gaps, whatever happens in whatever order."""
    seed = os.environ.get("HUB_WALK")
    seeds = [int(seed)] if seed else range(first, first + COUNT)
    counts = walks(server, seeds, options)
    if not seed:
        # A walk that meets nothing proves nothing.
        assert counts["events"] > 5 * COUNT
        assert counts["gaps"] > COUNT / 10
        assert counts["joined together"] > COUNT / 4
        assert counts["exact"] > COUNT / 40
        assert counts["failovers"] > COUNT / 4 or options is not FAILOVER


@pytest.mark.long
@pytest.mark.timeout(LIMIT * UNIT)
@kinds
def test_more_walks_keep_the_promises(
    server: RedisServer, first: int, options: dict[str, Any]
) -> None:
    """Many more, beginning where every run of the suite ends."""
    walks(server, range(first + COUNT, first + COUNT + 800), options)


@pytest.mark.timeout(LIMIT * UNIT)
@settings(
    max_examples=40, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(20, 400),
    inbox=st.integers(1, 20),
    log=st.integers(1, 12),
    batch=st.integers(1, 5),
)
@example(seed=1, steps=400, inbox=1, log=1, batch=1)
@example(seed=2, steps=400, inbox=20, log=2, batch=5)
def test_bounds_of_every_size(
    server: RedisServer, seed: int, steps: int, inbox: int, log: int, batch: int
) -> None:
    """The promises hold however small or unequal the bounds are: inboxes longer than logs, batches of one."""
    walk(server, seed, steps=steps, inbox_length=inbox, log_length=log, replay_count=batch)


@pytest.mark.parametrize(
    "rule", ["resub_keeps_join", "join_filter", "log_decides", "heal_gap", "never_empty"]
)
def test_walks_find_mistakes(server: RedisServer, rule: str) -> None:
    """A rule that is off is found soon: the walk sees what it is meant to see."""
    for seed in range(200):
        if episode(server, seed, RULES[rule], **ROUGH)[1]:
            return
    pytest.fail(f"200 walks without {rule}, and nothing was broken")


@pytest.mark.parametrize("seed", [1, 5, 7, 10, 16, 17, 27, 30])
def test_a_walk_can_be_repeated(server: RedisServer, seed: int) -> None:
    """The same seed is the same walk, step for step."""
    assert episode(server, seed, **ROUGH)[2] == episode(server, seed, **ROUGH)[2]
