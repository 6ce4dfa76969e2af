"""A token bucket: how often something may happen, and when again."""

from __future__ import annotations

from collections.abc import Callable


class TokenBucket:
    """Allows `rate` a second, and `burst` at once.

    While tokens are left, taking one is a subtraction and a comparison; the clock is asked when they seem used up.
    """

    __slots__ = ("_burst", "_left", "_rate", "_since")

    def __init__(self, now: float, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        # When tokens were last added.
        self._since = now

    def take(self, clock: Callable[[], float]) -> float:
        """Take a token; return 0, or how many seconds to wait where there is none."""
        self._left -= 1.0
        if self._left >= 0.0:
            return 0.0
        self._left += 1.0
        self._fill(clock())
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) / self._rate

    def charge(self, tokens: float) -> None:
        """Take tokens whether they are there or not; whoever comes next waits for the debt too."""
        self._left -= tokens

    def full(self, now: float) -> bool:
        """Tell whether nothing of the past counts any more."""
        self._fill(now)
        return self._left >= self._burst

    def _fill(self, now: float) -> None:
        self._left = min(self._burst, self._left + (now - self._since) * self._rate)
        self._since = now
