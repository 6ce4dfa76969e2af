"""The heartbeat of one session, without I/O: when a ping is due, and whether a pong is overdue."""

from __future__ import annotations

from math import inf

# A deadline that is noticed later than this was missed because the event loop was busy. What the peer sent meanwhile may
# still be unread, so it gets as much time again.
LATE = 0.25


class Heartbeat:
    """The deadlines, and the pings that are not answered. Times are those of the clock that the caller reads."""

    __slots__ = (
        "_interval",
        "_reported",
        "_taken",
        "_timeout",
        "ping_at",
        "pong_by",
        "unanswered",
    )

    def __init__(self, now: float, interval: float, timeout: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self.ping_at = now + interval
        self.pong_by = inf
        # Pings that were sent and not answered.
        self.unanswered = 0
        # True: the first of them was reported to the listener, so its pong will be reported too.
        self._reported = False
        # How much output the peer had taken at the last `look`; None: little waited for it then.
        self._taken: int | None = None

    def stop(self) -> None:
        self.ping_at = self.pong_by = inf

    def begin_ping(self, now: float, tick: float, taken: int | None) -> bool:
        """Note that a ping is sent; return whether to report it to the listener. `taken`: see `look`.

        One ping at a time is reported, so that its pong can be recognized.
        """
        # Counted from the time when it was due, so that the heartbeat does not drift by the timer's ticks.
        due = max(self.ping_at, now - 2 * tick)
        self.ping_at = due + self._interval
        if self.pong_by == inf:
            self.pong_by = due + self._timeout
            self.look(taken)
        if self._reported or self.unanswered:
            return False
        self._reported = True
        return True

    def postpone_ping(self) -> None:
        """Send the next ping only when the last one is answered."""
        self.ping_at = inf

    def receive_pong(self, now: float) -> bool | None:
        """Note a pong; return whether to report it to the listener, or None if no ping was sent."""
        if not self.unanswered:
            return None
        self.unanswered -= 1
        if not self.unanswered:
            self.pong_by = inf
            if self.ping_at == inf:
                self.ping_at = now
        reported, self._reported = self._reported, False
        return reported

    def extend_deadline(self, now: float) -> None:
        """Give the pong its whole time again: it may have arrived and not been read."""
        if self.pong_by != inf:
            self.pong_by = now + self._timeout

    def look(self, taken: int | None) -> None:
        """Note how much output the peer has taken so far; None: little waits for it."""
        self._taken = taken

    def is_overdue(self, now: float, *, blocked: bool, taken: int | None) -> bool:
        """Return whether the pong is overdue. `blocked`: input is not read now. `taken`: see `look`.

        A pong that may lie unread gets its whole time again, and so does one whose ping may still wait in the output. But if
        the peer has taken nothing in the whole time, although much waits for it, it is gone or reads nothing.
        """
        if now < self.pong_by:
            return False
        before, self._taken = self._taken, taken
        stands_still = before is not None and taken == before
        if not stands_still and (blocked or before is not None or taken is not None):
            self.pong_by = now + self._timeout
            return False
        if now - self.pong_by > LATE:
            self.pong_by = now + LATE
            return False
        return True
