"""Pings the clients that return no offset soon after they were sent something.

What has arrived at such a client is known by its pong alone, and the regular ping is up to `ping_interval` away. What it was
sent since then it gets again after a lost connection.
"""

from __future__ import annotations

import asyncio
import itertools

from hub.pubsub.session import Session

# Seconds between two looks at a session, and so between two of these pings.
PERIOD = 1.0
# A look at all sessions is spread over the period in so many turns.
TURNS = 20


class ArrivalPings:
    """The sessions that are looked at. Without any, no timer runs."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._shares: list[dict[Session, None]] = [{} for _ in range(TURNS)]
        self._share_of: dict[Session, dict[Session, None]] = {}
        self._next_share = itertools.cycle(self._shares)
        self._turn = itertools.cycle(self._shares)
        self._timer: asyncio.TimerHandle | None = None

    def add(self, session: Session) -> None:
        """Look at a session once in a period."""
        share = self._share_of[session] = next(self._next_share)
        share[session] = None
        self._set_timer()

    def discard(self, session: Session) -> None:
        """Look at a session no more."""
        if (share := self._share_of.pop(session, None)) is not None:
            del share[session]

    def stop(self) -> None:
        """Look at no session any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        if self._timer is None and self._share_of:
            self._timer = self._loop.call_later(PERIOD / TURNS, self._look)

    def _look(self) -> None:
        """Ping those of the next share that were sent more than is known to have arrived."""
        self._timer = None
        self._set_timer()
        for session in list(next(self._turn)):
            session.ping_unproven()
