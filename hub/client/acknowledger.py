"""Reports to the hub how far the messages of a session have been handled.

A client with a name and without a position file needs this: its next process continues at the position that the hub
has stored. Such a client asks for manual acknowledgements, because otherwise the hub takes a message as received
when it has arrived, and not when it has been handled.
"""

from __future__ import annotations

import asyncio
import contextlib

from hub.client.connection import HubConnection
from hub.client.position import Position
from hub.client.reconnecting import ReconnectingHubConnection
from hub.errors import HubError

# Seconds between two acknowledgements, and before the first: a process that ends soon after each start makes progress.
INTERVAL, FIRST_INTERVAL = 1.0, 0.1
FINISH_TIMEOUT = 2.0  # seconds for the last one to be stored


class Acknowledger:
    """Acknowledges the position of one client, about each second if it has moved."""

    def __init__(self, connection: ReconnectingHubConnection, position: Position) -> None:
        self._connection = connection
        self._position = position
        # The connection and the offset of the newest acknowledgement. One that was lost with its connection is
        # sent again over the next.
        self._sent: tuple[HubConnection | None, str] = (None, "")

    async def run(self) -> None:
        """Acknowledge for ever."""
        interval = FIRST_INTERVAL
        while True:
            await asyncio.sleep(interval)
            await self.acknowledge()
            interval = min(2 * interval, INTERVAL)

    async def acknowledge(self) -> None:
        """Acknowledge what has been handled by now. Does not wait for an answer, and raises nothing."""
        current = self._connection.current
        newest = (current, self._position.offset)
        if current is not None and self._position.offset and newest != self._sent:
            self._sent = newest
            await current.send_verb("ack", {"offset": self._position.offset})

    async def finish(self) -> None:
        """Acknowledge for the last time, and wait until the hub has stored it, for FINISH_TIMEOUT at most; raises nothing.

        Without that the end of the connection could overtake it: the hub carries out one `ack` after the other.
        """
        current = self._connection.current
        if current is not None and self._position.offset:
            with contextlib.suppress(HubError, TimeoutError):
                async with asyncio.timeout(FINISH_TIMEOUT):
                    await current.call_verb("ack", {"offset": self._position.offset})
