"""Token buckets, on a clock that the test turns."""

from __future__ import annotations

from math import inf

from hub.engineio.core.token_bucket import TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.read = 0

    def __call__(self) -> float:
        self.read += 1
        return self.now


def test_a_bucket_allows_its_burst_and_then_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(clock, 10, 20)
    assert [bucket.take() for _ in range(20)] == [0.0] * 20
    assert bucket.take() == 0.1
    clock.now += 0.05
    assert 0.04 < bucket.take() < 0.06
    clock.now += 0.26
    assert [bool(bucket.take()) for _ in range(4)] == [False, False, False, True]
    assert not bucket.full
    clock.now += 1000.0
    assert bucket.full
    assert [bucket.take() for _ in range(20)] == [0.0] * 20
    assert bucket.take() > 0


def test_a_bucket_never_stops_who_keeps_to_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(clock, 10, 5)
    begin = clock.now
    for number in range(1000):
        clock.now = begin + number / 10
        assert bucket.take() == 0.0


def test_the_clock_is_not_read_while_tokens_are_left() -> None:
    clock = Clock()
    bucket = TokenBucket(clock, 10, 20)
    read = clock.read
    assert not any(bucket.take() for _ in range(20))
    assert clock.read == read


def test_a_charge_is_a_debt_that_the_next_one_waits_for() -> None:
    clock = Clock()
    bucket = TokenBucket(clock, 10, 20)
    bucket.charge(25)
    assert bucket.take() == 0.6
    clock.now += 0.61
    assert bucket.take() == 0.0
    assert 0.08 < bucket.take() < 0.1


def test_an_infinite_bucket_limits_nothing() -> None:
    clock = Clock()
    bucket = TokenBucket(clock, inf, inf)
    bucket.charge(1e9)
    assert not any(bucket.take() for _ in range(1000))
    assert bucket.full
