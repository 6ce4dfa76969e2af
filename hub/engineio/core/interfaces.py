"""What a connection needs of the world around it: its WebSocket, and the server that holds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from hub.engineio.core.timer_wheel import TimerWheel
from hub.engineio.options import EngineOptions

if TYPE_CHECKING:
    from hub.engineio.core.connection import Connection
    from hub.engineio.core.lifecycle import Lifecycle

# Takes the body of a polling answer, or None for HTTP 400.
Wake = Callable[[str | None], None]


class Socket(Protocol):
    """A WebSocket, as its connection uses it."""

    # Whether messages are compressed (permessage-deflate was negotiated).
    deflate: bool
    # Writes without a look at the socket's state: only for one that is known to be well.
    write_direct: Callable[[bytes], None]

    @property
    def buffered(self) -> int: ...
    def write(self, data: bytes) -> None: ...
    def close(self, code: int) -> None: ...
    def abort(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class ConnectionEvents(Protocol):
    """The events of a connection, as its `listener` gets them."""

    def on_high(self) -> None:
        """More than `buffer_high` bytes wait for the peer: write no more for now."""

    def on_low(self) -> None:
        """No more than `buffer_low` bytes wait for the peer: write again."""

    def on_ping(self) -> None:
        """A ping follows all that was written so far."""

    def on_pong(self) -> None:
        """The peer answered the ping of the last `on_ping`: all that was written before that ping has arrived."""


class Host(Protocol):
    """The server, as its connections use it."""

    options: EngineOptions
    counters: Counter[str]
    tick: float
    # Returns the time that all deadlines are compared with.
    clock: Callable[[], float]
    # Hands one message to the layer above.
    deliver: Callable[[str, str | bytes], Awaitable[None] | None]

    @property
    def wheel(self) -> TimerWheel: ...
    def answer_soon(self, connection: Connection) -> None: ...
    def ended(self, session: Lifecycle, reason: str) -> None: ...
    def forget(self, session: Lifecycle) -> None: ...
