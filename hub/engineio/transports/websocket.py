"""The WebSocket transport: an asyncio protocol between the TCP connection, the parser and the session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from hub.engineio.core import ws_frames
from hub.engineio.core.connection import Connection
from hub.engineio.core.interfaces import Host, Socket
from hub.engineio.core.lifecycle import CUT_AFTER
from hub.engineio.core.packet import ProtocolError, decode_text
from hub.engineio.core.state import DisconnectReason
from hub.engineio.core.ws_parser import CLOSE, PING, FrameParser, WebSocketError, WebSocketMessage
from hub.engineio.transports.tcp_output import TcpCarrier

logger = logging.getLogger("hub.engineio")

# Bytes of input that wait: above this nothing more is read while a message is being handled.
READ_AHEAD = 64 * 1024
# Messages of one connection that are handled before other connections get their turn.
TURN = 64


class WebSocket(asyncio.Protocol, TcpCarrier, Socket):
    """One WebSocket. It carries a session or, while `_upgrading` is true, is being probed for one."""

    __slots__ = (
        "_close_sent",
        "_connection",
        "_host",
        "_loop",
        "_lost_reason",
        "_parser",
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
        self._parser = FrameParser(options.max_payload, deflate=deflate)
        self._task: asyncio.Task[None] | None = None
        self._upgrading = False
        self._paused = False
        self._close_sent = False
        # Why the TCP connection is lost; None while it is not.
        self._lost_reason: str | None = None
        transport.set_write_buffer_limits(high=options.buffer_high, low=options.buffer_low)

    # ---------------------------------------------------------------- what the connection calls

    @property
    def buffered(self) -> int:
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Write; a TCP connection that is lost or closing drops the data."""
        if self._lost_reason is None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self, code: int) -> None:
        """Send a close frame after all that was written. The session's deadline cuts what does not leave in time."""
        if not self._close_sent and not self._transport.is_closing():
            self._close_sent = True
            self._transport.write(ws_frames.close(code))
            # The peer's close frame must be read; other input is dropped.
            self._paused = False
            if not self._transport.is_reading():
                self._transport.resume_reading()
            if self._connection is None or self._upgrading:
                self._set_deadline()

    def expire(self, now: float) -> None:
        """Cut a WebSocket that was not closed in time. The timers call this."""
        self._transport.abort()

    def abort(self) -> None:
        """Cut the TCP connection; if a close frame and all else has left, close it instead."""
        self._connection = None
        if self._transport.is_closing():
            if self._transport.get_write_buffer_size():
                self._set_deadline()  # it would wait for ever for a peer that reads nothing
        elif self._close_sent and not self._transport.get_write_buffer_size():
            self._transport.close()
        else:
            self._transport.abort()

    def _set_deadline(self) -> None:
        """Set a deadline for the end of the TCP connection, when no session has one for it."""
        self._host.timers.set(self, self._host.clock() + CUT_AFTER)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._task is None:
            self._pump()

    def set_marks(self, high: int, low: int) -> None:
        """Report from now on when more than `high` bytes wait, and then when no more than `low` do."""
        if self._lost_reason is None and not self._transport.is_closing():
            self._transport.set_write_buffer_limits(high=high, low=low)

    def begin_upgrade(self) -> bool:
        """Offer this WebSocket to its session for an upgrade; False: the session does not take it, and it is closed."""
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

    def start_reading(self, received: bytes) -> None:
        """Begin to read; `received` came together with the handshake."""
        if received:
            self.data_received(received)
        if not self._transport.is_closing() and not self._transport.is_reading():
            self._transport.resume_reading()

    # ---------------------------------------------------------------- what asyncio calls

    def data_received(self, data: bytes) -> None:
        if self._lost_reason is not None:
            return
        self._parser.feed(data)
        if self._task is None and not self._paused:
            self._pump()
        elif self._parser.waiting > READ_AHEAD and self._transport.is_reading():
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        if self._connection is not None and not self._upgrading:
            self._connection.on_high()

    def resume_writing(self) -> None:
        if self._connection is not None and not self._upgrading and self._lost_reason is None:
            self._connection.on_drained()

    def eof_received(self) -> bool:
        if self._transport.get_write_buffer_size():
            self._set_deadline()  # the peer may never read what waits for it
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.timers.drop(self)
        self._on_lost(
            DisconnectReason.TRANSPORT_CLOSE if exc is None else DisconnectReason.TRANSPORT_ERROR
        )

    # ---------------------------------------------------------------- input

    def _pump(self) -> None:
        """Handle what arrived. If a message is not finished at once, a task handles the rest."""
        pending: Awaitable[None] | None = None
        try:
            for _ in range(TURN):
                message = self._parser.next()
                if message is None:
                    self._resume_reading()
                    return
                pending = self._handle(message)
                if pending is not None:
                    break
                if self._paused:
                    return
        except WebSocketError as error:
            self._on_illegal_frame(error)
            return
        self._start_task(pending)

    def _start_task(self, pending: Awaitable[None] | None) -> None:
        connection = self._connection
        if connection is not None:
            connection.begin_handling()
        self._task = self._loop.create_task(self._pump_in_task(connection, pending))

    async def _pump_in_task(
        self, connection: Connection | None, pending: Awaitable[None] | None
    ) -> None:
        """Await `pending`, then handle what else arrived, message after message, until nothing is left."""
        turn = 0
        try:
            while connection is not None:
                if pending is not None:
                    await connection.settle(pending)
                    turn = 0
                elif turn == TURN or not turn:
                    turn = 0
                    await asyncio.sleep(0)
                if self._paused and self._lost_reason is None:
                    return
                message = self._parser.next()
                if message is None:
                    return
                turn += 1
                pending = self._handle(message)
        except WebSocketError as error:
            self._on_illegal_frame(error)
        finally:
            self._task = None
            if connection is not None:
                if self._lost_reason is not None:
                    connection.abort(self._lost_reason)
                connection.end_handling()
            self._resume_reading()

    def _resume_reading(self) -> None:
        if self._lost_reason is None and not self._transport.is_closing():
            if not self._paused and not self._transport.is_reading():
                self._transport.resume_reading()

    def _handle(self, message: WebSocketMessage) -> Awaitable[None] | None:
        if isinstance(message, tuple):
            self._handle_control(*message)
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
            return self._receive_later(connection.throttle(wait), connection, message)
        return self._receive(connection, message)

    def _receive(self, connection: Connection, message: str | bytes) -> Awaitable[None] | None:
        if isinstance(message, str) and message[:1] != "4":
            try:
                message = decode_text(message)
            except ProtocolError as error:
                connection.fail(str(error))
                return None
        return connection.receive(message)

    async def _receive_later(
        self, wait: float, connection: Connection, message: str | bytes
    ) -> None:
        await asyncio.sleep(wait)
        pending = self._receive(connection, message)
        if pending is not None:
            await pending

    def _handle_control(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            # The TCP connection may be lost before the input is handled.
            if not self._close_sent and not self._transport.is_closing():
                self._close_sent = True
                self._transport.write(ws_frames.frame(ws_frames.CLOSE, payload[:2]))
            self._transport.close()
            self._on_lost(DisconnectReason.TRANSPORT_CLOSE)
        elif opcode == PING and not self._close_sent and not self._transport.is_closing():
            # While the peer reads too little, its pings need no answer (RFC 6455 §5.5.3); the buffer would grow.
            if self._transport.get_write_buffer_size() < self._host.options.buffer_high:
                self._transport.write(ws_frames.frame(ws_frames.PONG, payload))

    # ---------------------------------------------------------------- the end

    def _on_illegal_frame(self, error: WebSocketError) -> None:
        connection = self._connection
        if connection is None:
            self._transport.abort()
        elif self._upgrading:
            self._host.counters[str(error)] += 1
            connection.abandon_upgrade(self)
        else:
            connection.fail(str(error), error.code)

    def _on_lost(self, reason: str) -> None:
        """End the session, once what arrived before the end has been handled."""
        if self._lost_reason is not None:
            return
        self._lost_reason = reason
        connection = self._connection
        if connection is None:
            return
        if self._upgrading:
            connection.abandon_upgrade(self)
            self._connection = None
        elif self._task is None and not self._parser.waiting:
            connection.abort(reason)
            self._connection = None
        else:
            connection.stop_direct_writes()
            if self._task is None:
                # The session is paused. What arrived is handled all the same.
                self._start_task(None)
