"""What a node remembers of a room: without a hole, within its bounds, and forgotten where something may be missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.message import StoredMessage, encode, meta
from hub.pubsub.replay_cache import OVERHEAD, CacheBudget, ReplayCache, _size


def message(n: int, *, volatile: bool = False, data: bytes = b"1") -> StoredMessage:
    """The n-th message of a room, at the offset 10 n."""
    header, body = encode("m", data, meta("A", None))
    return StoredMessage.from_bus(
        "A", b"%d %d %b\n%b" % (10 * n, 0 if volatile else n, header, body)
    )


def messages(first: int, last: int) -> list[StoredMessage]:
    return [message(n) for n in range(first, last + 1)]


def numbers(cache: ReplayCache, offset: int) -> list[int] | None:
    found = cache.since(offset)
    return None if found is None else [each.n for each in found]


@pytest.fixture
def budget() -> CacheBudget:
    return CacheBudget(10**6, 100, 10**6)


@pytest.fixture
def cache(budget: CacheBudget) -> ReplayCache:
    return ReplayCache("A", budget)


def test_it_reaches_back_to_the_first_that_was_heard(cache):
    for each in messages(5, 8):
        cache.add(each)
    assert numbers(cache, 49) == [5, 6, 7, 8]
    assert numbers(cache, 70) == [8]
    assert numbers(cache, 80) == []
    assert numbers(cache, 48) is None


def test_behind_a_hole_it_begins_anew(cache):
    for n in (5, 6, 8, 9):
        cache.add(message(n))
    assert numbers(cache, 60) is None
    assert numbers(cache, 79) == [8, 9]


def test_volatile_messages_are_not_remembered(cache):
    for each in (message(5), message(6, volatile=True), message(6)):
        cache.add(each)
    assert numbers(cache, 49) == [5, 6]


def test_a_last_batch_begins_it(cache):
    cache.add_read(12, messages(3, 6), last=True)
    cache.add(message(6))  # heard after it was fetched
    cache.add(message(7))
    assert numbers(cache, 12) == [3, 4, 5, 6, 7]
    assert numbers(cache, 11) is None


def test_another_batch_does_not(cache):
    """What lies between its end and what will be heard is nowhere."""
    cache.add_read(12, messages(3, 6), last=False)
    assert numbers(cache, 12) is None


@pytest.mark.parametrize("last", [False, True])
def test_batches_join_on_in_front(cache, last):
    cache.add(message(9))
    cache.add(message(10))
    cache.add_read(25, messages(3, 6), last=last)
    assert numbers(cache, 25) is None, "there is a hole between"
    cache.add_read(45, messages(5, 9), last=last)
    assert numbers(cache, 45) == [5, 6, 7, 8, 9, 10]
    cache.add_read(25, messages(3, 4), last=last)
    assert numbers(cache, 25) == [3, 4, 5, 6, 7, 8, 9, 10]


def test_a_batch_with_a_hole_is_not_taken(cache):
    cache.add_read(25, [message(3), message(5)], last=True)
    assert numbers(cache, 25) is None


def test_it_is_as_long_and_as_old_as_the_log():
    cache = ReplayCache("A", CacheBudget(10**6, 3, 25))
    for each in messages(1, 9):
        cache.add(each)
        assert len(cache) <= 3
    assert numbers(cache, 60) == [7, 8, 9]
    cache.add(message(10))
    cache.add(message(11))
    assert numbers(cache, 80) == [9, 10, 11]
    assert numbers(cache, 79) is None
    old = ReplayCache("A", CacheBudget(10**6, 100, 25))
    for each in messages(1, 9):
        old.add(each)
    assert numbers(old, 60) == [7, 8, 9]
    assert numbers(old, 59) is None


def test_all_rooms_together_are_bounded():
    budget = CacheBudget(20 * (OVERHEAD + 100), 100, 10**6)
    rooms = [ReplayCache("A", budget) for _ in range(5)]
    for each in messages(1, 60):
        for cache in rooms:
            cache.add(each)
            assert budget.size <= budget.bound
    assert sum(len(cache) for cache in rooms) > 10
    for cache in rooms:
        cache.clear()
    assert budget.size == 0
    assert not budget.caches


def test_one_message_beyond_the_bound_is_not_kept():
    budget = CacheBudget(1000, 100, 10**6)
    cache = ReplayCache("A", budget)
    cache.add(message(1, data=b'"' + b"x" * 2000 + b'"'))
    assert (budget.size, len(cache)) == (0, 0)
    cache.add(message(2))
    assert numbers(cache, 10) == [2]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["hear", "last", "batch", "clear", "lose"]), st.integers(0, 9), st.integers(1, 6)),
        max_size=40,
    )
)  # fmt: skip
def test_what_it_says_is_all_there_was(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is heard, missed, fetched and forgotten: `since` answers with every message, or not at all."""
    budget = CacheBudget(8 * (OVERHEAD + 60), 6, 10**6)
    cache = ReplayCache("A", budget)
    newest = 0
    for what, back, count in steps:
        if what == "hear":
            newest += 1
            cache.add(message(newest))
        elif what == "lose":
            newest += 1  # published, and the bus lost it: the node finds out with the next one
            cache.clear()
        elif what == "clear":
            cache.clear()
        else:
            first = max(1, newest - back)
            end = newest if what == "last" else min(newest, first + count - 1)
            cache.add_read(10 * first - 5, messages(first, end), last=what == "last")
        assert budget.size == sum(map(_size, cache._entries[cache._start :]))
        assert budget.size <= budget.bound
        for offset in range(0, 10 * newest + 1, 5):
            found = numbers(cache, offset)
            assert found is None or found == list(range(offset // 10 + 1, newest + 1))
