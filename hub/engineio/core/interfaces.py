"""What a connection needs from others: its WebSocket, its listener, and the server that holds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol

from hub.engineio.core.timer_wheel import TimerWheel
from hub.engineio.options import EngineOptions

# Answers a poll: called with the payload of the response, or with None for HTTP 400.
PollReply = Callable[[str | None], None]


class Carrier(Protocol):
    """A TCP connection that carries output: a WebSocket's, or that of a response to a poll."""

    __slots__ = ()

    @property
    def unacknowledged(self) -> int:
        """How many bytes wait for the peer, those in the kernel included."""

    @property
    def taken(self) -> int:
        """How many bytes the peer has taken, or a number that changes with it."""


class Socket(Carrier, Protocol):
    """A WebSocket, as its connection uses it: `hub.engineio.transports.websocket.WebSocket`."""

    __slots__ = ()

    # True: messages are compressed, as permessage-deflate was negotiated.
    deflate: bool
    # The `write` of its asyncio transport, without a check: only for a socket that is open and below the high mark.
    write_direct: Callable[[bytes], None]

    @property
    def buffered(self) -> int: ...
    def write(self, data: bytes) -> None: ...
    def close(self, code: int) -> None: ...
    def abort(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def set_marks(self, high: int, low: int) -> None: ...


class ConnectionEvents(Protocol):
    """The events of a connection, as its `listener` gets them: `hub.pubsub.session.Session`."""

    __slots__ = ()

    def on_high(self) -> None:
        """More than `buffer_high` bytes wait for the peer: write no more for now."""

    def on_low(self) -> None:
        """No more than `buffer_low` bytes wait for the peer: write again."""

    def on_ping(self) -> None:
        """A ping follows all that was written so far."""

    def on_pong(self) -> None:
        """The peer answered the ping of the last `on_ping`: all that was written before that ping has arrived."""

    def on_poll_answered(self) -> None:
        """The response to a poll has all that was written so far."""

    def on_poll(self) -> None:
        """The peer polls again: all that was written before the last `on_poll_answered` has arrived."""


class Host(Protocol):
    """The server, as its connections use it: `hub.engineio.server.EngineServer`."""

    options: EngineOptions
    counters: Counter[str]
    # Seconds between two turns of the timers.
    tick: float
    # Returns the time that all deadlines are compared with.
    clock: Callable[[], float]
    # Hands a session's message to the layer above; the awaitable, if there is one, ends when that is done with it.
    handle_message: Callable[[str, str | bytes], Awaitable[None] | None]

    @property
    def timers(self) -> TimerWheel: ...

    def answer_poll_soon(self, answer: Callable[[], None]) -> None:
        """Call `answer` at the end of this turn of the event loop."""

    def report_disconnect(self, sid: str, reason: str) -> None:
        """Report to the layer above that a session is over."""

    def remove_connection(self, sid: str, remote: str) -> None:
        """Remove a closed session that came from the address `remote`."""
