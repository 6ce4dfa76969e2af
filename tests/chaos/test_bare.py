"""The raw client of the storm does what it is told, however its hub behaves."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.bare import Bare
from tests.chaos.history import Began, History
from tests.support.times import UNIT


@pytest.mark.parametrize("cut_short", [False, True])
async def test_who_says_goodbye_does_not_come_back(cluster, cut_short):
    """Neither while the answer to its goodbye is late, nor where waiting for it is given up."""
    record = History().record("client", "bare polling", returns=True)
    member = Bare(cluster.doors[0].url, record, "polling")
    await member.start()
    await member.began()
    session = member.session
    say, said, go_on = session.send, asyncio.Event(), asyncio.Event()

    async def late(*packets):
        await say(*packets)
        said.set()
        await go_on.wait()

    session.send = late
    quitting = asyncio.create_task(member.quit())
    await said.wait()
    session.closed = True  # as the hub does sooner or later
    if cut_short:
        quitting.cancel()
    else:
        await asyncio.wait([member._task], timeout=UNIT)
        go_on.set()
    await asyncio.wait([quitting])
    assert member._task.done()
    assert sum(isinstance(event, Began) for event in record.events) == 1
