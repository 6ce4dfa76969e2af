"""A token bucket: limits how often something happens, and says when it may happen again."""

from __future__ import annotations

from collections.abc import Callable


class TokenBucket:
    """Allows `rate` a second, and `burst` at once. Both may be infinite: then nothing is limited.

    While tokens are left, taking one is a subtraction and a comparison. The clock is read only when they seem used up.
    """

    __slots__ = ("_burst", "_clock", "_filled_at", "_left", "_rate")

    def __init__(self, clock: Callable[[], float], rate: float, burst: float) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        # Tokens; below 0 after `charge` took more than there were.
        self._left = float(burst)
        # When tokens were last added.
        self._filled_at = clock()

    def take(self) -> float:
        """Take a token and return 0; where none is left, take none and return the seconds until there is one."""
        self._left -= 1.0
        if self._left >= 0.0:
            return 0.0
        self._left += 1.0
        self._fill()
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) / self._rate

    def charge(self, tokens: float) -> None:
        """Take so many tokens even if they are not there; later calls of `take` wait for the debt as well."""
        self._left -= tokens

    @property
    def full(self) -> bool:
        """Whether the bucket is as a new one is."""
        self._fill()
        return self._left >= self._burst

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._filled_at) * self._rate)
        self._filled_at = now
