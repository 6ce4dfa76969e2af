"""The heartbeat: one pong a ping, and no false alarm."""

from __future__ import annotations

from math import inf

from hub.engineio.core.heartbeat import Heartbeat

TICK = 0.05


def test_a_ping_its_pong_and_the_next() -> None:
    beat = Heartbeat(0.0, 25.0, 20.0)
    assert (beat.ping_at, beat.pong_by) == (25.0, inf)
    assert beat.begin_ping(25.04, TICK, None)
    beat.unanswered += 1
    # From when it was due, not from when the timer came round.
    assert (beat.ping_at, beat.pong_by) == (50.0, 45.0)
    assert beat.receive_pong(26.0) is True
    assert beat.pong_by == inf
    assert beat.receive_pong(26.0) is None


def test_a_pong_that_is_late_is_overdue() -> None:
    beat = Heartbeat(0.0, 25.0, 20.0)
    beat.begin_ping(25.0, TICK, None)
    assert not beat.is_overdue(44.9, blocked=False, taken=None)
    assert beat.is_overdue(45.0, blocked=False, taken=None)


def test_a_pong_that_may_lie_unread_is_waited_for() -> None:
    beat = Heartbeat(0.0, 25.0, 20.0)
    beat.begin_ping(25.0, TICK, None)
    assert not beat.is_overdue(45.0, blocked=True, taken=None)
    assert beat.pong_by == 65.0
    # The loop was held up: what came meanwhile is read first.
    assert not beat.is_overdue(70.0, blocked=False, taken=None)
    assert beat.is_overdue(70.25, blocked=False, taken=None)


def test_a_second_ping_is_not_reported_nor_is_its_pong() -> None:
    beat = Heartbeat(0.0, 1.0, 1.0)
    assert beat.begin_ping(1.0, TICK, None)
    beat.unanswered += 1
    assert not beat.begin_ping(2.0, TICK, None)
    beat.unanswered += 1
    assert beat.receive_pong(2.1) is True
    assert beat.begin_ping(3.0, TICK, None) is False
    beat.unanswered += 1
    assert beat.receive_pong(3.1) is False
    assert beat.receive_pong(3.2) is False
    assert beat.begin_ping(4.0, TICK, None)


def test_the_next_ping_waits_for_a_long_timeout() -> None:
    beat = Heartbeat(0.0, 1.0, 5.0)
    beat.begin_ping(1.0, TICK, None)
    beat.unanswered += 1
    beat.postpone_ping()
    assert beat.ping_at == inf
    assert beat.receive_pong(4.0)
    assert beat.ping_at == 4.0


def test_a_ping_that_may_wait_in_the_output_is_waited_for() -> None:
    """As long as the peer takes some of it; and where much waits only at the deadline, once."""
    for before in (None, 5):
        beat = Heartbeat(0.0, 25.0, 20.0)
        beat.begin_ping(25.0, TICK, before)
        assert not beat.is_overdue(45.0, blocked=False, taken=6)
        assert not beat.is_overdue(65.0, blocked=False, taken=7)
        assert beat.is_overdue(85.0, blocked=False, taken=7)


def test_output_that_stands_still_ends_the_wait_for_an_unread_pong() -> None:
    beat = Heartbeat(0.0, 25.0, 20.0)
    beat.begin_ping(25.0, TICK, None)
    assert not beat.is_overdue(45.0, blocked=True, taken=5)
    assert beat.is_overdue(65.0, blocked=True, taken=5)
