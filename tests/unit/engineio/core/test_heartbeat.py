"""The heartbeat: one pong a ping, and no false alarm."""

from __future__ import annotations

from math import inf

from hub.engineio.core.heartbeat import Heartbeat

TICK = 0.05


def test_a_ping_its_pong_and_the_next() -> None:
    beat = Heartbeat(0.0, 25.0, 20.0)
    assert (beat.ping_at, beat.pong_by) == (25.0, inf)
    assert beat.begin_ping(25.04, TICK)
    beat.unanswered += 1
    # From when it was due, not from when the timer came round.
    assert (beat.ping_at, beat.pong_by) == (50.0, 45.0)
    assert beat.receive_pong(26.0) is True
    assert beat.pong_by == inf
    assert beat.receive_pong(26.0) is None


def test_a_pong_that_is_late_is_overdue() -> None:
    beat = Heartbeat(0.0, 25.0, 20.0)
    beat.begin_ping(25.0, TICK)
    assert not beat.is_overdue(44.9, blocked=False)
    assert beat.is_overdue(45.0, blocked=False)


def test_a_pong_that_may_lie_unread_is_waited_for() -> None:
    beat = Heartbeat(0.0, 25.0, 20.0)
    beat.begin_ping(25.0, TICK)
    assert not beat.is_overdue(45.0, blocked=True)
    assert beat.pong_by == 65.0
    # The loop was held up: what came meanwhile is read first.
    assert not beat.is_overdue(70.0, blocked=False)
    assert beat.is_overdue(70.25, blocked=False)


def test_a_second_ping_is_not_reported_nor_is_its_pong() -> None:
    beat = Heartbeat(0.0, 1.0, 1.0)
    assert beat.begin_ping(1.0, TICK)
    beat.unanswered += 1
    assert not beat.begin_ping(2.0, TICK)
    beat.unanswered += 1
    assert beat.receive_pong(2.1) is True
    assert beat.begin_ping(3.0, TICK) is False
    beat.unanswered += 1
    assert beat.receive_pong(3.1) is False
    assert beat.receive_pong(3.2) is False
    assert beat.begin_ping(4.0, TICK)


def test_the_next_ping_waits_for_a_long_timeout() -> None:
    beat = Heartbeat(0.0, 1.0, 5.0)
    beat.begin_ping(1.0, TICK)
    beat.unanswered += 1
    beat.postpone_ping()
    assert beat.ping_at == inf
    assert beat.receive_pong(4.0)
    assert beat.ping_at == 4.0
