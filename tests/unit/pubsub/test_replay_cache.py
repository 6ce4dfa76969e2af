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


def numbers(recent: ReplayCache, offset: int) -> list[int] | None:
    found = recent.since(offset)
    return None if found is None else [each.n for each in found]


@pytest.fixture
def memory() -> CacheBudget:
    return CacheBudget(10**6, 100, 10**6)


@pytest.fixture
def recent(memory: CacheBudget) -> ReplayCache:
    return ReplayCache("A", memory)


def test_it_reaches_back_to_the_first_that_was_heard(recent):
    for each in messages(5, 8):
        recent.hear(each)
    assert numbers(recent, 49) == [5, 6, 7, 8]
    assert numbers(recent, 70) == [8]
    assert numbers(recent, 80) == []
    assert numbers(recent, 48) is None


def test_behind_a_hole_it_begins_anew(recent):
    for n in (5, 6, 8, 9):
        recent.hear(message(n))
    assert numbers(recent, 60) is None
    assert numbers(recent, 79) == [8, 9]


def test_volatile_messages_are_not_remembered(recent):
    for each in (message(5), message(6, volatile=True), message(6)):
        recent.hear(each)
    assert numbers(recent, 49) == [5, 6]


def test_a_last_batch_begins_it(recent):
    recent.fetched(12, messages(3, 6), last=True)
    recent.hear(message(6))  # heard after it was fetched
    recent.hear(message(7))
    assert numbers(recent, 12) == [3, 4, 5, 6, 7]
    assert numbers(recent, 11) is None


def test_another_batch_does_not(recent):
    """What lies between its end and what will be heard is nowhere."""
    recent.fetched(12, messages(3, 6), last=False)
    assert numbers(recent, 12) is None


@pytest.mark.parametrize("last", [False, True])
def test_batches_join_on_in_front(recent, last):
    recent.hear(message(9))
    recent.hear(message(10))
    recent.fetched(25, messages(3, 6), last=last)
    assert numbers(recent, 25) is None, "there is a hole between"
    recent.fetched(45, messages(5, 9), last=last)
    assert numbers(recent, 45) == [5, 6, 7, 8, 9, 10]
    recent.fetched(25, messages(3, 4), last=last)
    assert numbers(recent, 25) == [3, 4, 5, 6, 7, 8, 9, 10]


def test_a_batch_with_a_hole_is_not_taken(recent):
    recent.fetched(25, [message(3), message(5)], last=True)
    assert numbers(recent, 25) is None


def test_it_is_as_long_and_as_old_as_the_log():
    recent = ReplayCache("A", CacheBudget(10**6, 3, 25))
    for each in messages(1, 9):
        recent.hear(each)
        assert len(recent) <= 3
    assert numbers(recent, 60) == [7, 8, 9]
    recent.hear(message(10))
    recent.hear(message(11))
    assert numbers(recent, 80) == [9, 10, 11]
    assert numbers(recent, 79) is None
    old = ReplayCache("A", CacheBudget(10**6, 100, 25))
    for each in messages(1, 9):
        old.hear(each)
    assert numbers(old, 60) == [7, 8, 9]
    assert numbers(old, 59) is None


def test_all_rooms_together_are_bounded():
    memory = CacheBudget(20 * (OVERHEAD + 100), 100, 10**6)
    rooms = [ReplayCache("A", memory) for _ in range(5)]
    for each in messages(1, 60):
        for recent in rooms:
            recent.hear(each)
            assert memory.size <= memory.bound
    assert sum(len(recent) for recent in rooms) > 10
    for recent in rooms:
        recent.clear()
    assert memory.size == 0
    assert not memory.rooms


def test_one_message_beyond_the_bound_is_not_kept():
    memory = CacheBudget(1000, 100, 10**6)
    recent = ReplayCache("A", memory)
    recent.hear(message(1, data=b'"' + b"x" * 2000 + b'"'))
    assert (memory.size, len(recent)) == (0, 0)
    recent.hear(message(2))
    assert numbers(recent, 10) == [2]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["hear", "last", "batch", "clear", "lose"]), st.integers(0, 9), st.integers(1, 6)),
        max_size=40,
    )
)  # fmt: skip
def test_what_it_says_is_all_there_was(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is heard, missed, fetched and forgotten: `since` answers with every message, or not at all."""
    memory = CacheBudget(8 * (OVERHEAD + 60), 6, 10**6)
    recent = ReplayCache("A", memory)
    newest = 0
    for what, back, count in steps:
        if what == "hear":
            newest += 1
            recent.hear(message(newest))
        elif what == "lose":
            newest += 1  # published, and the bus lost it: the node finds out with the next one
            recent.clear()
        elif what == "clear":
            recent.clear()
        else:
            first = max(1, newest - back)
            end = newest if what == "last" else min(newest, first + count - 1)
            recent.fetched(10 * first - 5, messages(first, end), last=what == "last")
        assert memory.size == sum(map(_size, recent._entries[recent._start :]))
        assert memory.size <= memory.bound
        for offset in range(0, 10 * newest + 1, 5):
            found = numbers(recent, offset)
            assert found is None or found == list(range(offset // 10 + 1, newest + 1))
