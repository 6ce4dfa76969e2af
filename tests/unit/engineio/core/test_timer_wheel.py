"""The timer wheel, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.engineio.core.timer_wheel import TimerWheel


class Loop:
    """An event loop's clock and timers. `early`: timers fire that much before their time."""

    def __init__(self, early: float = 0.0) -> None:
        self.now = 1000.0
        self.early = early
        self.timers: list[tuple[float, Handle]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Handle:
        handle = Handle(call)
        self.timers.append((when, handle))
        return handle

    def run(self, until: float) -> None:
        while True:
            self.timers = [timer for timer in self.timers if not timer[1].cancelled]
            due = min(self.timers, key=lambda timer: timer[0], default=None)
            if due is None or due[0] > until:
                self.now = until
                return
            self.timers.remove(due)
            self.now = max(self.now, due[0] - self.early)
            due[1].call()


class Handle:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Item:
    def __init__(self, wheel: TimerWheel, *due: float) -> None:
        self.slot = 0
        self.wheel = wheel
        self.due = list(due)
        self.fired: list[float] = []
        wheel.set(self, self.due[0])

    def expire(self, now: float) -> None:
        if now < self.due[0]:
            self.wheel.set(self, self.due[0])
            return
        self.fired.append(now)
        self.due.pop(0)
        if self.due:
            self.wheel.set(self, self.due[0])


def make(early: float = 0.0, tick: float = 0.01) -> tuple[Any, TimerWheel]:
    loop: Any = Loop(early)
    return loop, TimerWheel(loop, tick)


@given(
    st.lists(st.lists(st.floats(999, 1010), min_size=1, max_size=5), min_size=1, max_size=10),
    st.sampled_from([0.0, 0.001, 0.0049]),
)
def test_every_deadline_fires_once_within_a_tick(dues: list[list[float]], early: float) -> None:
    loop, wheel = make(early)
    items = [Item(wheel, *sorted(due)) for due in dues]
    loop.run(1011)
    for item, due in zip(items, dues, strict=True):
        assert len(item.fired) == len(due)
        for fired, when in zip(item.fired, sorted(due), strict=True):
            # What was due already is done at the next tick.
            assert when <= fired <= max(when, 1000.0) + 0.011 * len(due)
    assert len(wheel) == 0


def test_a_timer_that_fires_early_does_not_spin() -> None:
    """A loop that rounds its clock calls a little too soon; that must not turn for ever."""
    loop, wheel = make(early=0.004)
    item = Item(wheel, 1000.5)
    loop.run(1000.6)
    assert len(item.fired) == 1


def test_moving_and_dropping_leave_nothing() -> None:
    loop, wheel = make()
    item, other = Item(wheel, 1001), Item(wheel, 1001)
    item.due = [1002]
    wheel.set(item, 1002)
    wheel.drop(other)
    wheel.drop(other)
    loop.run(1001.5)
    assert not item.fired
    assert len(wheel) == 1
    loop.run(1003)
    assert len(item.fired) == 1
    assert not other.fired


def test_an_earlier_deadline_moves_the_timer() -> None:
    loop, wheel = make()
    Item(wheel, 1009)
    early = Item(wheel, 1001)
    loop.run(1001.02)
    assert len(early.fired) == 1


def test_one_items_fault_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    loop, wheel = make()

    class Faulty(Item):
        def expire(self, now: float) -> None:
            raise RuntimeError

    Faulty(wheel, 1001)
    item = Item(wheel, 1001)
    loop.run(1002)
    assert len(item.fired) == 1
    assert "a deadline could not be handled" in caplog.text


def test_an_item_may_drop_another_that_is_due_too() -> None:
    loop, wheel = make()

    class Dropping(Item):
        def expire(self, now: float) -> None:
            wheel.drop(other)

    Dropping(wheel, 1001)
    other = Item(wheel, 1001)
    loop.run(1002)
    assert len(wheel) == 0


def test_stop_forgets_everything() -> None:
    loop, wheel = make()
    item = Item(wheel, 1001)
    wheel.stop()
    loop.run(1002)
    assert not item.fired
    assert item.slot == 0
