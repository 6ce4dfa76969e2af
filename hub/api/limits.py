"""What one connection may ask of the hub: how often, and how much at a time.

A connection that asks too often is refused with `rate_limited`; one that goes on all the same is not read for a while.
A connection that has too much in progress is not refused: it is read later, which is how TCP tells a sender to wait.
While all connections together have much in progress, those with more than a few verbs of it are read later too, so that
what the others ask waits for no more than that. A refusal is answered at once and never in progress: it ends the
connection's turn of the event loop.
"""

from __future__ import annotations

import asyncio
import enum

from hub.engineio.core.connection import Connection
from hub.engineio.core.token_bucket import TokenBucket
from hub.errors import HubError, RateLimited
from hub.settings import Settings

# A client that was quiet before may ask for so many seconds' worth at once.
BURST = 5.0
# An answer costs one verb for so many bytes, or for so many messages that were looked at for it.
BYTES, MESSAGES = 16 * 1024, 25
# After so many refusals a connection is not read for so many seconds.
TOLERATED, PENALTY = 100, 1.0
# A connection may have so many verbs in progress however much the others have.
SHARE = 4
# In the load that all share a verb counts once more for each 4 KiB of it: the shift that divides by so much.
LONG = 12


class Cost(enum.Enum):
    """What a verb counts among."""

    # Cheap, and comes in streams: `publishes_per_second`.
    STREAMED = "streamed"
    # Any other: `verbs_per_second`.
    SINGLE = "single"


class SharedLoad:
    """What all connections of a node have in progress, in verbs of 4 KiB. Above `most` they are read alternately."""

    __slots__ = ("_easing", "_most", "in_progress", "waiting")

    def __init__(self, most: int) -> None:
        self._most = most
        self.in_progress = 0
        # Connections that have their share, and are read when there is less to do, in this order.
        self.waiting: dict[ConnectionLimits, None] = {}
        self._easing = False

    @property
    def high(self) -> bool:
        return self.in_progress > self._most

    @property
    def low(self) -> bool:
        return 2 * self.in_progress <= self._most

    def ease(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read the waiting connections in the next turn of the loop, one after the other, while there is little to do.

        That is not done at once: what they ask may be answered on the spot, and ease the load again.
        """
        if not self._easing:
            self._easing = True
            loop.call_soon(self._ease)

    def _ease(self) -> None:
        self._easing = False
        while self.waiting and self.low:
            next(iter(self.waiting)).stop_waiting()


class ConnectionLimits:
    """The limits of one connection, and how much of them is used."""

    __slots__ = (
        "_breath", "_bytes", "_connection", "_load", "_paused", "_penalty", "_pending", "_refusals", "_settings",
        "_streamed", "_verbs", "loop",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        loop: asyncio.AbstractEventLoop,
        load: SharedLoad,
    ) -> None:
        self._settings = settings
        self._load = load
        self._connection = connection
        self.loop = loop
        publishes, verbs = settings.publishes_per_second, settings.verbs_per_second
        clock = loop.time
        self._streamed = TokenBucket(clock, publishes, BURST * publishes)
        self._verbs = TokenBucket(clock, verbs, BURST * verbs)
        # Verbs in progress, and the bytes that they came in.
        self._pending = self._bytes = 0
        self._paused = False
        # Refusals since the last penalty, and the timer of the one in progress.
        self._refusals = 0
        self._penalty: asyncio.TimerHandle | None = None
        # After a refusal: the rest of it is read in the next turn of the loop.
        self._breath: asyncio.Handle | None = None

    # -- how often

    def charge(self, verb: str, *, streamed: bool) -> None:
        """Count a verb that is asked for, of cost STREAMED or another one. Raises RateLimited."""
        if streamed:
            if wait := self._streamed.take():
                what = f"{self._settings.publishes_per_second} publishes and acks"
                raise self._refused(verb, what, wait)
        elif wait := self._verbs.take():
            what = f"{self._settings.verbs_per_second} verbs beside publishes and acks"
            raise self._refused(verb, what, wait)

    def charge_failed(self, error: HubError) -> HubError:
        """Count a verb that was none, or malformed, and return what to answer: `error`, or that there were too many.

        It counts among the other verbs.
        """
        if wait := self._verbs.take():
            return self._refused("malformed", f"{self._settings.verbs_per_second} such verbs", wait)
        self._end_turn()
        return error

    def charge_answer(self, size: int, messages: int) -> None:
        """Count an answer of `size` bytes, for which `messages` were looked at: a long one counts as several verbs."""
        self._verbs.charge(max(size / BYTES, messages / MESSAGES))

    def _refused(self, verb: str, what: str, wait: float) -> RateLimited:
        self._refusals += 1
        self._end_turn()
        if self._refusals >= TOLERATED and self._penalty is None:
            self._refusals = 0
            self._penalty = self.loop.call_later(PENALTY, self._end_penalty)
            self._update_reading()
        return RateLimited(
            f"{verb}: at most {what} a second on one connection; again in {wait:.3g} s"
        )

    def _end_penalty(self) -> None:
        self._penalty = None
        self._update_reading()

    def _end_turn(self) -> None:
        if self._breath is None:
            self._breath = self.loop.call_soon(self._end_breath)
            self._update_reading()

    def _end_breath(self) -> None:
        self._breath = None
        self._update_reading()

    # -- how much at a time

    def enter(self, size: int) -> None:
        """Note that a verb of `size` bytes is in progress; it is owed a `leave`."""
        self._pending += 1
        self._bytes += size
        load = self._load
        load.in_progress += 1 + (size >> LONG)
        settings = self._settings
        if self._pending >= settings.pending_verbs or self._bytes >= settings.pending_bytes:
            self._paused = True
            self._update_reading()
        elif self._pending + (self._bytes >> LONG) > SHARE and load.high:
            load.waiting[self] = None
            self._update_reading()

    def leave(self, size: int) -> None:
        """Note that a verb has been answered."""
        self._pending -= 1
        self._bytes -= size
        if self._paused:
            settings = self._settings
            if (
                self._pending <= settings.pending_verbs // 2
                and self._bytes <= settings.pending_bytes // 2
            ):
                self._paused = False
                self._update_reading()
        load = self._load
        load.in_progress -= 1 + (size >> LONG)
        if load.waiting:
            if not self._pending:
                self.loop.call_soon(self.stop_waiting)  # nothing of the load is its own
            if load.low:
                load.ease(self.loop)

    def stop_waiting(self) -> None:
        """Read this connection, whatever the others have in progress."""
        if self in self._load.waiting:
            del self._load.waiting[self]
            self._update_reading()

    def _update_reading(self) -> None:
        """Read from the connection unless something speaks against it."""
        if self._paused or self._penalty or self._breath or self in self._load.waiting:
            self._connection.pause()
        else:
            self._connection.resume()
