"""The WebSocket transport: an asyncio protocol between the socket, the parser and the connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from hub.engineio.core import ws_frames
from hub.engineio.core.connection import Connection
from hub.engineio.core.interfaces import Host
from hub.engineio.core.lifecycle import CUT_AFTER
from hub.engineio.core.packet import ProtocolError, decode_text
from hub.engineio.core.state import DisconnectReason
from hub.engineio.core.ws_parser import CLOSE, PING, FrameParser, WebSocketError, WebSocketMessage

logger = logging.getLogger("hub.engineio")

# Unread input above which the socket is not read while a message is being handled.
READ_AHEAD = 64 * 1024
# Messages handled in one go before other connections get their turn.
TURN = 64


class WebSocket(asyncio.Protocol):
    """One WebSocket: of a session, or probed for one (`upgrading`)."""

    __slots__ = (
        "_close_sent",
        "_connection",
        "_host",
        "_inbound",
        "_loop",
        "_lost",
        "_paused",
        "_task",
        "_transport",
        "_upgrading",
        "deflate",
        "slot",
        "write_direct",
    )

    def __init__(
        self,
        host: Host,
        transport: asyncio.Transport,
        connection: Connection | None,
        *,
        deflate: bool,
    ) -> None:
        options = host.options
        self._host = host
        # Kept: up to Python 3.11 asking for the running loop asks the kernel for the process id each time.
        self._loop = asyncio.get_running_loop()
        self.slot = 0
        self._transport = transport
        self._connection = connection
        self.deflate = deflate
        self.write_direct: Callable[[bytes], None] = transport.write
        self._inbound = FrameParser(options.max_payload, deflate=deflate)
        self._task: asyncio.Task[None] | None = None
        self._upgrading = False
        self._paused = False
        self._close_sent = False
        # Why the TCP connection is gone, until the session has been told.
        self._lost: str | None = None
        transport.set_write_buffer_limits(high=options.buffer_high, low=options.buffer_low)

    # ---------------------------------------------------------------- what the connection calls

    @property
    def buffered(self) -> int:
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Write; dropped where the TCP connection is gone."""
        if self._lost is None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self, code: int) -> None:
        """Say goodbye; what was written leaves first. The connection's deadline cuts the rest."""
        if not self._close_sent and not self._transport.is_closing():
            self._close_sent = True
            self._transport.write(ws_frames.close(code))
            # For the peer's own close frame; what else it sends is dropped.
            self._paused = False
            if not self._transport.is_reading():
                self._transport.resume_reading()
            if self._connection is None or self._upgrading:
                self._cut_later()

    def expire(self, now: float) -> None:
        """Cut a WebSocket whose end is overdue: the wheel's call."""
        self._transport.abort()

    def abort(self) -> None:
        """Cut the TCP connection, or close it where everything has left."""
        self._connection = None
        if self._transport.is_closing():
            if self._transport.get_write_buffer_size():
                self._cut_later()  # it waits until all has left: for a peer that reads nothing, for ever
        elif self._close_sent and not self._transport.get_write_buffer_size():
            self._transport.close()
        else:
            self._transport.abort()

    def _cut_later(self) -> None:
        """Give the TCP connection a deadline, where no session has one for it."""
        self._host.timers.set(self, self._host.clock() + CUT_AFTER)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._task is None:
            self._pump()

    def begin_upgrade(self) -> bool:
        """Offer this WebSocket to the connection, to be probed; False: it does not want it."""
        connection = self._connection
        assert connection is not None
        self._upgrading = connection.begin_upgrade(self)
        if not self._upgrading:
            self._connection = None
            if connection.closed:
                self._transport.abort()
            else:
                self.close(1002)
        return self._upgrading

    def start(self, received: bytes) -> None:
        """Begin to read; `received` is what came with the handshake already."""
        if received:
            self.data_received(received)
        if not self._transport.is_closing() and not self._transport.is_reading():
            self._transport.resume_reading()

    # ---------------------------------------------------------------- what asyncio calls

    def data_received(self, data: bytes) -> None:
        if self._lost is not None:
            return
        self._inbound.feed(data)
        if self._task is None and not self._paused:
            self._pump()
        elif self._inbound.waiting > READ_AHEAD and self._transport.is_reading():
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        if self._connection is not None and not self._upgrading:
            self._connection.on_high()

    def resume_writing(self) -> None:
        if self._connection is not None and not self._upgrading and self._lost is None:
            self._connection.on_low()

    def eof_received(self) -> bool:
        if self._transport.get_write_buffer_size():
            self._cut_later()  # it has gone, and may leave what waits for it unread
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.timers.drop(self)
        self._gone(
            DisconnectReason.TRANSPORT_CLOSE if exc is None else DisconnectReason.TRANSPORT_ERROR
        )

    # ---------------------------------------------------------------- input

    def _pump(self) -> None:
        """Handle what arrived; a task goes on where a message is not finished at once."""
        pending: Awaitable[None] | None = None
        try:
            for _ in range(TURN):
                message = self._inbound.next()
                if message is None:
                    self._read_on()
                    return
                pending = self._take(message)
                if pending is not None:
                    break
                if self._paused:
                    return
        except WebSocketError as error:
            self._broken(error)
            return
        self._start(pending)

    def _start(self, pending: Awaitable[None] | None) -> None:
        connection = self._connection
        if connection is not None:
            connection.begin_handling()
        self._task = self._loop.create_task(self._go_on(connection, pending))

    async def _go_on(self, connection: Connection | None, pending: Awaitable[None] | None) -> None:
        """Go on where `_pump` stopped, message after message, until nothing is left."""
        turn = 0
        try:
            while connection is not None:
                if pending is not None:
                    await connection.settle(pending)
                    turn = 0
                elif turn == TURN or not turn:
                    turn = 0
                    await asyncio.sleep(0)
                if self._paused and self._lost is None:
                    return
                message = self._inbound.next()
                if message is None:
                    return
                turn += 1
                pending = self._take(message)
        except WebSocketError as error:
            self._broken(error)
        finally:
            self._task = None
            if connection is not None:
                if self._lost is not None:
                    connection.abort(self._lost)
                connection.end_handling()
            self._read_on()

    def _read_on(self) -> None:
        if self._lost is None and not self._transport.is_closing():
            if not self._paused and not self._transport.is_reading():
                self._transport.resume_reading()

    def _take(self, message: WebSocketMessage) -> Awaitable[None] | None:
        if isinstance(message, tuple):
            self._control(*message)
            return None
        connection = self._connection
        if connection is None or self._close_sent:
            return None
        if self._upgrading:
            connection.receive_probe(self, message)
            if connection.transport == "websocket":
                self._upgrading = False
            return None
        if wait := connection.message_rate.take():
            return self._later(connection.throttle(wait), connection, message)
        return self._receive(connection, message)

    def _receive(self, connection: Connection, message: str | bytes) -> Awaitable[None] | None:
        if isinstance(message, str) and message[:1] != "4":
            try:
                message = decode_text(message)
            except ProtocolError as error:
                connection.fail(str(error))
                return None
        return connection.receive(message)

    async def _later(self, wait: float, connection: Connection, message: str | bytes) -> None:
        await asyncio.sleep(wait)
        pending = self._receive(connection, message)
        if pending is not None:
            await pending

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            # What arrived may be handled after the socket has gone.
            if not self._close_sent and not self._transport.is_closing():
                self._close_sent = True
                self._transport.write(ws_frames.frame(ws_frames.CLOSE, payload[:2]))
            self._transport.close()
            self._gone(DisconnectReason.TRANSPORT_CLOSE)
        elif opcode == PING and not self._close_sent and not self._transport.is_closing():
            # An unread answer is enough (RFC 6455 §5.5.3): nothing piles up behind a slow reader.
            if self._transport.get_write_buffer_size() < self._host.options.buffer_high:
                self._transport.write(ws_frames.frame(ws_frames.PONG, payload))

    # ---------------------------------------------------------------- the end

    def _broken(self, error: WebSocketError) -> None:
        connection = self._connection
        if connection is None:
            self._transport.abort()
        elif self._upgrading:
            self._host.counters[str(error)] += 1
            connection.abandon_upgrade(self)
        else:
            connection.fail(str(error), error.code)

    def _gone(self, reason: str) -> None:
        """Tell the session, after what arrived before the end has been handled."""
        if self._lost is not None:
            return
        self._lost = reason
        connection = self._connection
        if connection is None:
            return
        if self._upgrading:
            connection.abandon_upgrade(self)
            self._connection = None
        elif self._task is None and not self._inbound.waiting:
            connection.abort(reason)
            self._connection = None
        else:
            connection.stop_direct_writes()
            if self._task is None:
                self._start(
                    None
                )  # it was not read for a while: what has arrived is handled all the same
