"""Clients that return no offset are pinged soon after they were sent something, and not more often than once a second."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hub.pubsub import arrival_pings
from hub.pubsub.arrival_pings import TURNS, ArrivalPings
from tests.support.times import MS


class Looked:
    """As much of a session as is looked at."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def ping_unproven(self) -> None:
        self.times.append(asyncio.get_running_loop().time())


@pytest.fixture
def period(monkeypatch) -> float:
    monkeypatch.setattr(arrival_pings, "PERIOD", 200 * MS)
    return 200 * MS


async def test_each_is_looked_at_once_in_a_period(period):
    """However many there are, and not all of them at the same moment."""
    pings, sessions = ArrivalPings(), [Looked() for _ in range(3 * TURNS)]
    for session in sessions:
        added: Any = session
        pings.add(added)
    await asyncio.sleep(5.5 * period)
    pings.stop()
    for session in sessions:
        assert 2 <= len(session.times) <= 6
        gaps = [b - a for a, b in zip(session.times, session.times[1:], strict=False)]
        assert min(gaps) > 0.5 * period
    assert max(session.times[0] for session in sessions) > sessions[0].times[0] + 0.5 * period


async def test_without_any_no_timer_runs(period):
    """Neither before the first nor after the last."""
    pings, session = ArrivalPings(), Looked()
    added: Any = session
    pings.discard(added)
    assert pings._timer is None
    pings.add(added)
    assert pings._timer is not None
    pings.discard(added)
    await asyncio.sleep(period)
    assert (pings._timer, session.times) == (None, [])
