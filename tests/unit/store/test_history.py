"""Pages of a room's log, read in slices: whole in spite of that, and never in anybody's way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hub.pubsub.history import SLICE, TOGETHER, HistoryReader, WeightedSemaphore
from hub.settings import Settings
from hub.store.results import HistoryPage
from hub.store.store import Store

MANY = 3 * SLICE + 7


def reader(node, **settings: Any) -> HistoryReader:
    return HistoryReader(Settings(**settings), node.store)


async def page(
    reader: HistoryReader, after=None, before=None, limit=None
) -> tuple[list[int], bool, bool]:
    found = await reader.read("A", after=after, before=before, limit=limit)
    return [message.offset for message in found.messages], found.more, found.gap


@pytest.fixture
async def offsets(node):
    return await node.publish_all([("A", number) for number in range(MANY)])


@pytest.mark.parametrize("limit", [1, SLICE - 1, SLICE, SLICE + 1, 2 * SLICE, MANY - 1, MANY, 1000])
async def test_a_page_has_no_seams(node, offsets, limit):
    """Whatever number of slices it takes: from either end, ascending, and `more` where there is more."""
    more = limit < MANY
    assert await page(reader(node), limit=limit) == (offsets[-limit:], more, False)
    assert await page(reader(node), after=0, limit=limit) == (offsets[:limit], more, False)
    inner = offsets[10:-10]
    between = {"after": offsets[9], "before": offsets[-10], "limit": limit}
    assert await page(reader(node), **between) == (inner[:limit], limit < len(inner), False)
    end = {"before": offsets[-10], "limit": limit}
    assert await page(reader(node), **end) == (
        offsets[:-10][-limit:],
        limit < len(offsets[:-10]),
        False,
    )


async def test_the_setting_bounds_a_page(node, offsets):
    """However much is asked for."""
    bounded = reader(node, history_limit=2 * SLICE)
    assert await page(bounded) == (offsets[-2 * SLICE :], True, False)
    assert await page(bounded, after=0, limit=1000) == (offsets[: 2 * SLICE], True, False)


async def test_bytes_bound_a_page_over_its_slices(node):
    """What would not fit is left for the next page; one message comes however long it is."""
    offsets = await node.publish_all([("A", '"' + "x" * 1000 + '"')] * MANY)
    size = (await reader(node).read("A", after=None, before=None, limit=1)).size
    fit = SLICE + 5
    for room in (fit * size, fit * size + 1, (fit + 1) * size - 1):
        bounded = reader(node, replay_bytes=room)
        assert await page(bounded) == (offsets[-fit:], True, False)
        assert await page(bounded, after=0) == (offsets[:fit], True, False)
    assert await page(reader(node, replay_bytes=1024)) == (offsets[-1:], True, False)
    assert await page(reader(node, replay_bytes=SLICE * size)) == (offsets[-SLICE:], True, False)


async def test_what_has_expired_is_read_past(node):
    """However much it is; what a page cost tells how much was looked at."""
    first = await node.publish_all([("A", 1)] * 3)
    await node.publish_all([("A", 1)] * 2500, ttl=1e-6)
    last = await node.publish_all([("A", 1)] * 3)
    assert await page(reader(node)) == (first + last, False, False)
    assert await page(reader(node), after=0) == (first + last, False, False)
    assert await page(reader(node), limit=4) == (first[-1:] + last, True, False)
    assert await page(reader(node), after=last[0], before=last[2]) == (last[1:2], False, False)
    found = await reader(node).read("A", after=None, before=last[0], limit=1)
    assert (found.messages[0].offset, found.examined) == (first[-1], 2501)


class Slow:
    """A store in which something happens behind each slice."""

    def __init__(self, store: Store, happens: Any) -> None:
        self._store, self._happens = store, happens
        self.limits: list[int] = []

    async def history(
        self, room: str, after: int | None, before: int | None, limit: int, size: int
    ) -> HistoryPage:
        self.limits.append(limit)
        found = await self._store.history(room, after, before, limit, size)
        await self._happens()
        return found


async def test_a_page_ends_where_the_log_was_cut_meanwhile(start):
    """A hole within a page nobody could see; whoever goes on from its end is told of it."""
    node = await start(log_length=MANY)
    offsets = await node.publish_all([("A", number) for number in range(MANY)])

    async def cut() -> None:
        await node.publish_all([("A", "new")] * 2 * SLICE)

    slow: Any = Slow(node.store, cut)
    assert await page(HistoryReader(Settings(), slow), after=offsets[0] - 1) == (
        offsets[:SLICE],
        True,
        False,
    )
    after, _, gap = await page(reader(node), after=offsets[SLICE - 1])
    assert (after[0] > offsets[SLICE], gap) == (True, True)


async def test_few_messages_are_read_at_a_time(node, offsets):
    """However many ask: Redis has a slice or two to do for them, and they take turns."""
    done: list[str] = []
    reading: list[int] = []
    most = 0

    class Watched:
        async def history(self, *asked: Any) -> HistoryPage:
            nonlocal most
            reading.append(asked[3])
            most = max(most, sum(reading))
            assert max(reading) <= SLICE
            found = await node.store.history(*asked)
            reading.remove(asked[3])
            return found

    watched: Any = Watched()
    shared = HistoryReader(Settings(), watched)

    async def ask(name: str, limit: int) -> None:
        assert len((await page(shared, limit=limit))[0]) == limit
        done.append(name)

    greedy = [ask("greedy", MANY) for _ in range(8)]
    modest = [ask("modest", 5) for _ in range(50)]
    await asyncio.gather(*greedy, *modest)
    assert SLICE < most <= TOGETHER
    assert set(done[:50]) == {"modest"}


async def test_turns():
    """In the order of asking, so much at a time; who is gone is passed over, and gives back what was his."""
    turns, log = WeightedSemaphore(10), []

    async def take(name: str, amount: int, ends: asyncio.Event) -> None:
        async with turns.taking(amount):
            log.append(name)
            await ends.wait()

    async def begin(name: str, amount: int) -> tuple[asyncio.Task[None], asyncio.Event]:
        ends = asyncio.Event()
        task = asyncio.create_task(take(name, amount, ends))
        await asyncio.sleep(0)
        return task, ends

    _, a_ends = await begin("a", 6)
    b, _ = await begin("b", 5)
    c, c_ends = await begin("c", 4)
    await asyncio.sleep(0)
    assert log == ["a"]
    b.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert log == ["a", "c"]
    d, _ = await begin("d", 6)
    a_ends.set()
    await asyncio.sleep(0)
    d.cancel()  # its turn has come, and it has not begun
    await asyncio.gather(d, b, return_exceptions=True)
    c_ends.set()
    await c
    whole, _ = await begin("e", 10)
    more, _ = await begin("f", 1)
    await asyncio.sleep(0)
    assert log[-1] == "e"
    for task in (whole, more):
        task.cancel()
