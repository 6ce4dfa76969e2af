"""The timer wheel: one timer of the event loop for the deadlines of all connections."""

from __future__ import annotations

import logging
from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil
from typing import Protocol

logger = logging.getLogger("hub.engineio")


class Timer(Protocol):
    """A timer that an event loop was asked for."""

    def cancel(self) -> None: ...


class Loop(Protocol):
    """An event loop's clock and timers; asyncio's loops have them."""

    def time(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer: ...


class Timed(Protocol):
    """Something with at most one deadline."""

    # The slot in which it waits; 0: none. Only the wheel sets it.
    slot: int

    def expire(self, now: float) -> None: ...


class TimerWheel:
    """Calls `expire(now)` of each item once, not before the time set and at most a tick later.

    Only slots in which something waits exist, so an idle wheel costs nothing. To move or drop an item takes two
    dictionary operations.
    """

    def __init__(self, loop: Loop, tick: float) -> None:
        self._loop = loop
        self._tick = tick
        self._slots: dict[int, dict[Timed, None]] = {}
        self._order: list[int] = []
        self._timer: Timer | None = None
        # The slot that the clock has reached. Items are set only into later ones.
        self._reached = 0

    def set(self, item: Timed, when: float) -> None:
        """Set or move the item's deadline."""
        slot = max(ceil(when / self._tick), self._reached + 1)
        if slot == item.slot:
            return
        if item.slot:
            self._slots[item.slot].pop(item, None)
        item.slot = slot
        waiting = self._slots.get(slot)
        if waiting is None:
            self._slots[slot] = {item: None}
            heappush(self._order, slot)
            if self._order[0] == slot:
                self._arm()
        else:
            waiting[item] = None

    def drop(self, item: Timed) -> None:
        """Forget the item's deadline."""
        if item.slot:
            self._slots[item.slot].pop(item, None)
            item.slot = 0

    def stop(self) -> None:
        """Forget all deadlines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiting in self._slots.values():
            for item in waiting:
                item.slot = 0
        self._slots.clear()
        self._order.clear()

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._slots.values())

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._order[0] * self._tick, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = self._loop.time()
        # Up to half a tick early counts as on time, because event loops round their clocks.
        self._reached = int(now / self._tick + 0.5)
        while self._order and self._order[0] <= self._reached:
            slot = heappop(self._order)
            now = max(now, slot * self._tick)
            waiting = self._slots.pop(slot)
            for item in waiting:
                item.slot = 0
            for item in waiting:
                try:
                    item.expire(now)
                except Exception:
                    # A fault of one item must not stop the heartbeats of the others.
                    logger.exception("a deadline could not be handled")
        if self._order and self._timer is None:
            self._arm()
