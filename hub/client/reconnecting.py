"""Keeps a client connected, one connection after another, and calls verbs over the open one.

A verb whose connection was lost is called again, and a session that the hub could not continue joins its
rooms again. Until it has, the delivery is paused, so a connection that breaks meanwhile undoes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import Any

from hub.client.address import HubAddress
from hub.client.connect_auth import ConnectAuth
from hub.client.connection import HubConnection, NotConnected
from hub.client.delivery import Delivery
from hub.client.position import Position
from hub.errors import HubError, Unavailable
from hub.model import SessionInfo, offset_int

BACKOFF_MIN, BACKOFF_MAX = 0.2, 10.0  # seconds; jitter takes up to half of it away
RETRY_AFTER_JITTER = 0.5  # the largest part of `Retry-After` that is waited in addition
OPEN_TIMEOUT = 10.0  # seconds from the first packet to `hub:session`
SHORT_LIVED = 1.0  # seconds; a connection that ends sooner counts as a failed attempt,
SHORT_LIVED_FAILURES = (
    3  # but as no more than so many in a row, which makes a pause of 0.8 to 1.6 s
)

log = logging.getLogger("hub.client")


class ReconnectingHubConnection:
    """The connection of one client; when it ends, another one is made.

    `timeout` (seconds) bounds every verb, its retries included. A connection on which a verb is not
    answered within `answer_timeout` (seconds) counts as lost.
    """

    def __init__(
        self,
        address: HubAddress,
        transports: list[str] | None,
        auth: ConnectAuth,
        position: Position,
        delivery: Delivery,
        *,
        timeout: float,
        answer_timeout: float,
    ) -> None:
        self._address = address
        self._transports = transports
        self._auth = auth
        self._position = position
        self._delivery = delivery
        self._timeout = timeout
        self._answer_timeout = answer_timeout
        # The `hub:session` of the newest connection.
        self.session: SessionInfo | None = None
        # The rooms that the session is to be in.
        self._rooms: set[str] = set()
        # Rooms that the hub has lost, and that the session has not joined again yet.
        self._lost_rooms: set[str] = set()
        # The open connection, on which verbs may be called; None while there is none.
        self.current: HubConnection | None = None
        # Why the newest attempt to connect failed, or the newest connection ended.
        self.last_error: HubError | None = None
        # Set when `current` or `_stop_reason` has been set.
        self._changed = asyncio.Event()
        # Why there will be no connection any more.
        self._stop_reason: HubError | None = None
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Keep connected for ever; raise a HubError where the hub does not want this client."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            connection = HubConnection(self._delivery)
            retry_after = 0.0
            try:
                await self._open(connection)
                opened = loop.time()
                self.current = connection
                self.last_error = None
                self._changed.set()
                reason = await asyncio.shield(connection.closed)
                if reason is not None:
                    raise reason
                is_short_lived = loop.time() - opened < SHORT_LIVED
                failures = min(failures + 1, SHORT_LIVED_FAILURES) if is_short_lived else 0
            except HubError as error:
                if not error.retryable:
                    raise
                self.last_error = error
                if isinstance(error, NotConnected):
                    retry_after = error.retry_after
                log.log(logging.INFO if failures else logging.WARNING, "%s; trying again", error)
                failures += 1
            finally:
                await self._discard(connection)
            await asyncio.sleep(_pause(failures, retry_after))

    def stop(self, reason: HubError) -> None:
        """Raise `reason` in every call that waits for a connection, and in later ones."""
        self._stop_reason = reason
        self._changed.set()
        self._stopped.set()

    async def wait_connected_in_time(self) -> None:
        """Return when a connection is open. Raises Unavailable after `timeout`, and the reason of `stop`."""
        try:
            async with asyncio.timeout(self._timeout):
                await self.wait_connected()
        except TimeoutError:
            raise self._timeout_error("connect") from None

    async def wait_connected(self) -> HubConnection:
        """Return the open connection as soon as there is one. Raises the reason of `stop`."""
        while True:
            if self._stop_reason is not None:
                raise self._stop_reason
            if self.current is not None:
                return self.current
            self._changed.clear()
            await self._changed.wait()

    async def call_verb(
        self, verb: str, fields: dict[str, Any], *, retry: bool = True
    ) -> dict[str, Any]:
        """Call a verb, again while its outcome is unknown and time is left; return its answer.

        Raises the HubError that the hub answered; Unavailable where the outcome stays unknown.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        failures = 0
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._call_once(await self.wait_connected(), verb, fields)
            except TimeoutError:
                raise self._timeout_error(verb) from None
            except HubError as error:
                pause = _backoff(failures)
                late = loop.time() + pause > deadline
                if late or not (error.retryable and retry) or self._stop_reason is not None:
                    raise
            failures += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopped.wait()

    async def _call_once(
        self, connection: HubConnection, verb: str, fields: dict[str, Any]
    ) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._answer_timeout):
                return await connection.call_verb(verb, fields)
        except TimeoutError:
            connection.mark_closed(None)
            raise Unavailable(f"{verb}: no answer within {self._answer_timeout:g} s") from None

    def _timeout_error(self, verb: str) -> Unavailable:
        """Return the error of a verb or of `connect` whose time is over."""
        if self.current is not None:
            return Unavailable(f"{verb}: no answer within {self._timeout:g} s")
        reason = f": {self.last_error}" if self.last_error is not None else ""
        return Unavailable(f"{verb}: not connected within {self._timeout:g} s{reason}")

    def add_room(self, room: str) -> None:
        """Remember that the session is to be in a room."""
        self._rooms.add(room)

    def remove_room(self, room: str) -> None:
        """Remember that the session is not to be in a room."""
        self._rooms.discard(room)
        self._lost_rooms.discard(room)

    async def _open(self, connection: HubConnection) -> None:
        """Connect, join the rooms that the hub has lost, and resume the delivery."""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                reply, self.session = await connection.open(
                    self._address, self._auth, self._transports
                )
        except TimeoutError:
            raise Unavailable(
                f"cannot connect to {self._address.shown}: no answer within {OPEN_TIMEOUT:g} s"
            ) from None
        self._position.pid = reply.get("pid", self._position.pid)
        self._find_lost_rooms(self.session)
        for room in sorted(self._lost_rooms):
            answer = await self._call_once(connection, "subscribe", {"room": room})
            self._delivery.add_lost_room(room, before=str(offset_int(answer["offset"]) + 1))
            self._lost_rooms.discard(room)
        self._delivery.resume()

    def _find_lost_rooms(self, session: SessionInfo) -> None:
        """Compare the rooms that the hub lists with those that the session is to be in."""
        listed = set(session.rooms)
        if session.resumed:
            self._lost_rooms |= self._rooms - listed
            # An earlier process may have joined some.
            self._rooms |= {room for room in listed if not room.startswith("@")}
        else:
            self._lost_rooms |= self._rooms
            if self._position.offset:
                # The personal room, which a named session is always in. The lost session was in it, too.
                self._lost_rooms |= listed

    async def _discard(self, connection: HubConnection) -> None:
        """Close a connection, and drop what it brought and no handler has had."""
        connection.mark_closed(None)
        if self.current is connection:
            self.current = None
        self._delivery.pause()
        await connection.close(end_session=False)


def _pause(failures: int, retry_after: float) -> float:
    """Return the seconds until the next attempt to connect, at least what the hub asked for."""
    asked = retry_after * (1 + random.uniform(0, RETRY_AFTER_JITTER))
    return max(_backoff(failures), asked)


def _backoff(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row, jitter included."""
    longest = min(BACKOFF_MIN * 2.0 ** min(failures, 10), BACKOFF_MAX)
    return float(longest * random.uniform(0.5, 1))
