"""Keeps a client connected, connection after connection, and asks verbs over whichever is up.

What is lost on the way is asked again, and a session that the hub could not continue is brought
back into its rooms. Until that is done the delivery is held, so a connection that breaks on the
way changes nothing but what has been done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import Any

from hub.client.connect_auth import ConnectAuth
from hub.client.connection import HubConnection
from hub.client.delivery import Delivery
from hub.client.position import Position
from hub.errors import HubError, Unavailable
from hub.model import SessionInfo, offset_int

BACKOFF_FIRST, BACKOFF_LONGEST = 0.2, 10.0  # seconds; jitter takes up to half of it away
OPEN_TIMEOUT = 10.0  # seconds from the first packet to `hub:session`

log = logging.getLogger("hub.client")


class ReconnectingHubConnection:
    """The connection of one client, as the client sees it: mostly up.

    `timeout` bounds every verb, its retries included; one not answered within `answer_timeout`
    makes its link count as dead.
    """

    def __init__(
        self,
        url: str,
        transports: list[str] | None,
        auth: ConnectAuth,
        position: Position,
        delivery: Delivery,
        *,
        timeout: float,
        answer_timeout: float,
    ) -> None:
        self._url = url
        self._transports = transports
        self._auth = auth
        self._position = position
        self._delivery = delivery
        self._timeout = timeout
        self._answer_timeout = answer_timeout
        # What the hub said of the session when the newest link was made.
        self.session: SessionInfo | None = None
        # Rooms to be in; a session that could not be continued is brought into them again.
        self._rooms: set[str] = set()
        # Rooms that the hub has lost, and whose gap is not with the delivery yet.
        self._owed: set[str] = set()
        # The link that may be asked, while there is one.
        self.link: HubConnection | None = None
        # Why the newest attempt failed.
        self.last_error: HubError | None = None
        # Set while there is a link, and when there will be none any more, for the reason in `over`.
        self._changed = asyncio.Event()
        self._over: HubError | None = None
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Make link after link; return never, raise a HubError where the hub says to stay away."""
        failures = 0
        while True:
            link = HubConnection(self._delivery)
            try:
                await self._open(link)
                failures = 0
                self.link = link
                self._changed.set()
                reason = await asyncio.shield(link.closed)
                if reason is not None:
                    raise reason
            except HubError as error:
                if not error.retryable:
                    raise
                self.last_error = error
                failures += 1
                log.info("not connected: %s", error)
            finally:
                await self._drop(link)
            await asyncio.sleep(_pause(failures))

    def stop(self, reason: HubError) -> None:
        """Let everybody who waits for a link know that there will be none."""
        self._over = reason
        self._changed.set()
        self._stopped.set()

    async def up(self) -> HubConnection:
        """Return the link as soon as there is one."""
        while True:
            if self._over is not None:
                raise self._over
            if self.link is not None:
                return self.link
            self._changed.clear()
            await self._changed.wait()

    async def ask(self, verb: str, fields: dict[str, Any], *, retry: bool = True) -> dict[str, Any]:
        """Send a verb, again while its outcome is unknown and time is left; return its answer."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        failures = 0
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._ask_once(await self.up(), verb, fields)
            except TimeoutError:
                raise Unavailable(f"{verb}: no answer within {self._timeout} s") from None
            except HubError as error:
                pause = _pause(failures)
                late = loop.time() + pause > deadline
                if late or not (error.retryable and retry) or self._over is not None:
                    raise
            failures += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopped.wait()

    async def _ask_once(
        self, link: HubConnection, verb: str, fields: dict[str, Any]
    ) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._answer_timeout):
                return await link.ask(verb, fields)
        except TimeoutError:
            link.end(None)
            raise Unavailable(f"{verb}: no answer within {self._answer_timeout} s") from None

    def joined(self, room: str) -> None:
        """Note that the session is to be in a room."""
        self._rooms.add(room)

    def left(self, room: str) -> None:
        """Note that the session is not to be in a room."""
        self._rooms.discard(room)
        self._owed.discard(room)

    async def _open(self, link: HubConnection) -> None:
        """Connect, bring the session into its rooms, and let what has come be handled."""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                reply, self.session = await link.open(self._url, self._auth, self._transports)
        except TimeoutError:
            raise Unavailable("the hub does not answer") from None
        self._position.pid = reply.get("pid", self._position.pid)
        self._compare(self.session)
        for room in sorted(self._owed):
            said = await self._ask_once(link, "subscribe", {"room": room})
            self._delivery.lost(room, until=str(offset_int(said["offset"]) + 1))
            self._owed.discard(room)
        self._delivery.release()

    def _compare(self, session: SessionInfo) -> None:
        """Note which rooms the hub has lost, and which it knows of from an earlier process."""
        listed = set(session.rooms)
        if session.recovered:
            self._owed |= self._rooms - listed
            self._rooms |= {room for room in listed if not room.startswith("@")}
        else:
            self._owed |= self._rooms
            if self._position.offset:
                # The personal room, which a named session is always in: the old one was, too.
                self._owed |= listed

    async def _drop(self, link: HubConnection) -> None:
        """Part with a link, and with what it brought that has not been handled."""
        link.end(None)
        if self.link is link:
            self.link = None
        self._delivery.hold()
        await link.shut(end=False)


def _pause(failures: int) -> float:
    """Return how long to wait before the next attempt."""
    longest = min(BACKOFF_FIRST * 2.0 ** min(failures, 10), BACKOFF_LONGEST)
    return float(longest * random.uniform(0.5, 1))
