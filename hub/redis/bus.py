"""The bus: messages between nodes over Redis pub/sub, which may lose some of them.

A channel counts as subscribed only when the *last* command sent for it has been confirmed. A bus that stays silent,
although the node's own probes should arrive, is broken: a new connection is made, and the listener repairs the loss.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from itertools import chain
from typing import Protocol

from hub.errors import Unavailable
from hub.redis.connection import (
    AWAY,
    CONNECT_TIMEOUT,
    Reply,
    ReplyError,
    connect,
    info_fields,
    pack,
    refusal_sentence,
)
from hub.redis.reconnecting import ReconnectingConnection

log = logging.getLogger("hub.redis")

# Channels that one command subscribes.
TOGETHER = 500

Messages = list[tuple[bytes, bytes]]


class BusListener(Protocol):
    """Receives the bus's messages: `hub.node.node.Node`."""

    def on_messages(self, messages: Messages, /) -> None:
        """Take `(channel, payload)` pairs in the order received, all that one read has brought."""

    def on_bus_lost(self) -> None:
        """The connection has ended: messages are lost from now on."""

    def on_bus_back(self) -> None:
        """There is a new connection, and commands for all channels were sent."""


class Bus(ReconnectingConnection):
    """A connection that subscribes channels.

    `silence`: seconds without any message after which the bus counts as broken.
    """

    def __init__(self, url: str, listener: BusListener, silence: float) -> None:
        super().__init__(url, "bus", silence / 4)
        self._listener = listener
        self._silence = silence
        self._channels: set[bytes] = set()
        # The run id of the server that the connection leads to.
        self.server = ""
        # How many confirmations Redis still owes for a channel; none, and it is in `_channels`: it is subscribed.
        self._owed: dict[bytes, int] = {}
        self._waiters: dict[bytes, dict[asyncio.Future[None], None]] = {}

    def subscribe(self, *channels: bytes) -> None:
        """Subscribe channels; `wait_subscribed` waits for the confirmation of each."""
        new = [channel for channel in dict.fromkeys(channels) if channel not in self._channels]
        self._channels.update(new)
        self._subscribe(new)

    def unsubscribe(self, channel: bytes) -> None:
        """Subscribe a channel no more."""
        if channel in self._channels:
            self._channels.discard(channel)
            self._command("UNSUBSCRIBE", channel)
            self._wake(channel)

    def is_subscribed(self, channel: bytes) -> bool:
        return self.up and channel in self._channels and not self._owed.get(channel)

    async def wait_subscribed(self, channel: bytes, within: float | None = None) -> None:
        """Wait until a channel is subscribed, or not to be subscribed any more.

        Raises Unavailable after `within` seconds, or at once where Redis refuses.
        """
        while (
            channel in self._channels  # rule: left_deaf
            and not self.is_subscribed(channel)
        ):
            loop = self._loop or asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            waiters = self._waiters.setdefault(channel, {})
            waiters[future] = None
            # Not asyncio.timeout: that asks for the running loop, see `ReconnectingConnection`.
            timer = None
            if within is not None:
                timer = loop.call_later(within, _fail, future, "the bus is away")
            try:
                await future
            finally:
                if timer is not None:
                    timer.cancel()
                del waiters[future]
                if not waiters:
                    del self._waiters[channel]
                del future  # it may hold an exception, whose traceback holds this frame: a circle

    def _subscribe(self, channels: Sequence[bytes]) -> None:
        """Send as few commands as do not keep Redis for long."""
        for start in range(0, len(channels), TOGETHER):
            self._command("SUBSCRIBE", *channels[start : start + TOGETHER])

    def _command(self, verb: str, *channels: bytes) -> None:
        if not self.up or self._connection is None:
            return
        for channel in channels:
            self._owed[channel] = self._owed.get(channel, 0) + 1
        self._connection.send(pack((verb, *channels)), None)

    def on_pushed(self, replies: list[Reply]) -> None:
        messages: Messages = []
        refusal: ReplyError | None = None
        for reply in replies:
            if isinstance(reply, ReplyError):
                refusal = reply
                break
            kind, channel, payload = reply
            if kind == b"message":
                messages.append((channel, payload))
                continue
            if messages:
                # Received before the confirmation: perhaps the end of an earlier subscription, and no part of this one.
                self._listener.on_messages(messages)
                messages = []
            self._confirm(channel)
        if messages:
            self._listener.on_messages(messages)
        if refusal is not None:
            self._on_refused(refusal)

    def _on_refused(self, error: ReplyError) -> None:
        """Close the connection, as after a failed attempt: Redis does not allow it to subscribe to one of the channels.

        Every call that waits for a channel gets the reason. Those that waited for the refused one unsubscribe it then, so
        that the next connection is not refused.
        """
        log.error("Redis refuses a subscription", extra={"error": str(error)})
        self._failed = True
        self.cut()
        for future in chain.from_iterable(self._waiters.values()):
            _fail(future, f"Redis refuses a subscription: {error}")

    def _confirm(self, channel: bytes) -> None:
        owed = self._owed.get(channel, 0) - 1
        if owed > 0:  # rule: unsub_state
            self._owed[channel] = owed
            return
        self._owed.pop(channel, None)
        if channel in self._channels:
            self._wake(channel)

    def _wake(self, channel: bytes) -> None:
        for future in self._waiters.get(channel, ()):
            if not future.done():
                future.set_result(None)

    async def _connect(self) -> None:
        self._connection = connection = await connect(self._url, self)
        try:
            # A proxy may accept connections for a Redis that is not there.
            async with asyncio.timeout(CONNECT_TIMEOUT):
                info = info_fields(await connection.call("INFO", "server"))
        except ReplyError as error:
            connection.close()
            raise Unavailable(refusal_sentence(error)) from None
        except TimeoutError:
            connection.close()
            raise Unavailable(f"{AWAY}: it has not answered within {CONNECT_TIMEOUT:g} s") from None
        except BaseException:
            connection.close()
            raise
        self.server = info.get("run_id", "")
        self._owed.clear()
        self.up = not connection.closed
        self._subscribe(sorted(self._channels))

    def _on_down(self) -> None:
        self._owed.clear()
        self._listener.on_bus_lost()

    def _on_back(self) -> None:
        self._listener.on_bus_back()

    def _check(self) -> None:
        connection, now = self._connection, asyncio.get_running_loop().time()
        if connection is not None and now - connection.alive_at > self._silence:
            log.warning("the bus is silent; making a new connection")
            connection.close()


def _fail(future: asyncio.Future[None], why: str) -> None:
    if not future.done():
        future.set_exception(Unavailable(why))
