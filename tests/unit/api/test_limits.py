"""A connection's limits, in the turns of the event loop; what clients see of them is in the hostile clients' tests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hub.api.limits import BURST, SHARE, ConnectionLimits, SharedLoad
from hub.api.registry import VERBS
from hub.errors import BadRequest, RateLimited
from hub.settings import Settings


class Reader:
    """As much of a connection as limits use."""

    paused = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


def limited(load: SharedLoad | None = None, **settings: Any) -> tuple[ConnectionLimits, Reader]:
    reader: Any = Reader()
    load = load or SharedLoad(100)
    return ConnectionLimits(Settings(**settings), reader, asyncio.get_running_loop(), load), reader


async def test_a_mistake_ends_the_turn():
    """Whoever sends nothing but nonsense has one piece of it looked at before it is others' turn."""
    limits, reader = limited()
    for _ in range(3):
        limits.charge_failed(BadRequest("room: missing"))
        assert reader.paused
        await asyncio.sleep(0)
        assert not reader.paused


@pytest.mark.parametrize("verb", ["publish", "subscribe"])
async def test_a_refusal_ends_the_turn(verb):
    """And so does asking too often; what is allowed does not."""
    limits, reader = limited(publishes_per_second=1, verbs_per_second=1)
    for _ in range(int(BURST)):
        limits.charge(verb, streamed=VERBS[verb].streamed)
        assert not reader.paused
    with pytest.raises(RateLimited):
        limits.charge(verb, streamed=VERBS[verb].streamed)
    assert reader.paused
    await asyncio.sleep(0)
    assert not reader.paused


async def test_what_is_under_way_still_counts_after_the_turn():
    """A turn's end lets nobody read who has too much under way."""
    limits, reader = limited(pending_verbs=2)
    limits.enter(1)
    limits.charge_failed(BadRequest("room: missing"))
    limits.enter(1)
    await asyncio.sleep(0)
    assert reader.paused
    limits.leave(1)
    limits.leave(1)
    assert not reader.paused


async def test_long_verbs_are_as_much_as_many():
    """Whoever sends few but long ones waits for its turn as well, and the others do not."""
    load = SharedLoad(100)
    long, other, modest = (limited(load) for _ in range(3))
    size = 60 * 4096
    for limits, _ in (long, other):
        limits.enter(size)
    for _ in range(SHARE):
        modest[0].enter(100)
    assert [reader.paused for _, reader in (long, other, modest)] == [False, True, False]
    long[0].leave(size)
    await asyncio.sleep(0)
    assert other[1].paused
    for _ in range(SHARE):
        modest[0].leave(100)
    other[0].leave(size)
    await asyncio.sleep(0)
    assert not other[1].paused
    assert load.in_progress == 0


async def test_those_who_waited_are_read_one_after_the_other():
    """Not one within the other, however many they are, where all that they ask fails on the spot; and nobody is forgotten."""

    class Hasty(Reader):
        asked = 0

        def resume(self) -> None:
            if self.paused:
                self.paused = False
                for _ in range(2 * SHARE):
                    self.asked += 1
                    self.limits.enter(1)
                    self.limits.leave(1)

    load = SharedLoad(4000)
    busy, _ = limited(load, pending_verbs=10_000)
    for _ in range(4001):
        busy.enter(1)
    waiting = []
    for _ in range(1000):
        reader = Hasty()
        reader.limits = ConnectionLimits(Settings(), reader, asyncio.get_running_loop(), load)
        for _ in range(SHARE + 1):
            reader.limits.enter(1)
        waiting.append(reader)
    assert all(reader.paused for reader in waiting)
    for _ in range(4001):
        busy.leave(1)
    for reader in waiting:
        for _ in range(SHARE):
            reader.limits.leave(1)
    await asyncio.sleep(0)
    assert [reader.asked for reader in waiting] == [2 * SHARE] * len(waiting)
    assert (load.in_progress, load.waiting) == (1000, {})
