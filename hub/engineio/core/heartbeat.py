"""The heartbeat of one session, without I/O: when a ping is due, and what a pong proves."""

from __future__ import annotations

from math import inf

# A deadline that is noticed later than this was missed because the event loop was held up; what the
# peer sent meanwhile may lie unread, so it gets as long again.
LATE = 0.25


class Heartbeat:
    """Deadlines and the pings under way. Times are on the clock that the caller passes in."""

    __slots__ = ("_interval", "_reported", "_timeout", "ping_at", "pong_by", "unanswered")

    def __init__(self, now: float, interval: float, timeout: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self.ping_at = now + interval
        self.pong_by = inf
        # Pings that the peer has or that are on their way to it.
        self.unanswered = 0
        # Whether the listener was told of the first of them, and so hears of its pong.
        self._reported = False

    def stop(self) -> None:
        self.ping_at = self.pong_by = inf

    def begin(self, now: float, tick: float) -> bool:
        """Note that a ping goes out; return whether the listener is to be told of it.

        Only one ping at a time is told of, so a pong can be matched to it.
        """
        # From the time it was due, so that the heartbeat does not drift by the timer's ticks.
        due = max(self.ping_at, now - 2 * tick)
        self.ping_at = due + self._interval
        if self.pong_by == inf:
            self.pong_by = due + self._timeout
        if self._reported or self.unanswered:
            return False
        self._reported = True
        return True

    def wait_for_pong(self) -> None:
        """Put the next ping off until the last one is answered."""
        self.ping_at = inf

    def answered(self, now: float) -> bool | None:
        """Take a pong; return whether the listener is to be told of it, None for a stray one."""
        if not self.unanswered:
            return None
        self.unanswered -= 1
        if not self.unanswered:
            self.pong_by = inf
            if self.ping_at == inf:
                self.ping_at = now
        reported, self._reported = self._reported, False
        return reported

    def extend(self, now: float) -> None:
        """Give a pong that may have arrived unseen its whole time again."""
        if self.pong_by != inf:
            self.pong_by = now + self._timeout

    def overdue(self, now: float, *, blocked: bool) -> bool:
        """Tell whether the peer is gone: its pong is overdue and cannot lie unread on our side."""
        if now < self.pong_by:
            return False
        if blocked:
            self.pong_by = now + self._timeout
            return False
        if now - self.pong_by > LATE:
            self.pong_by = now + LATE
            return False
        return True
