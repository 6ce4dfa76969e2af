"""One Engine.IO session as the layers above see it: what goes in and out, without any I/O.

Transports call in with what arrived (`receive`, `poll`, `probe`, `lost`); what goes out leaves
through a `Socket` (WebSocket) or a waiting poll's callback. State, deadlines and end are `Lifecycle`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from typing import Any

from hub.engineio.core import packet as packets
from hub.engineio.core import ws_frames
from hub.engineio.core.interfaces import Socket, Wake
from hub.engineio.core.lifecycle import CUT_AFTER, Lifecycle
from hub.engineio.core.packet import ProtocolError
from hub.engineio.core.poll_queue import PollQueue
from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.core.state import CloseCode, ConnectionState, DisconnectReason

logger = logging.getLogger("hub.engineio")

_UPGRADES = '["websocket"]'
PROBED_WIRE = ws_frames.frame(ws_frames.TEXT, packets.PROBED.encode())

# How long, at least, a connection is not read that sends more than events_per_second.
THROTTLE_PAUSE = 0.1


class Connection(Lifecycle):
    """One session. `data` is free for the layers above, `listener` gets its events."""

    __slots__ = ()

    # ---------------------------------------------------------------- what the layers above see

    @property
    def transport(self) -> str:
        return "polling" if self._socket is None else "websocket"

    @property
    def environ(self) -> Mapping[str, Any]:
        """The handshake request, as WSGI has it; it is made at each access, and not kept."""
        return self._environ()

    @property
    def buffered(self) -> int:
        """Bytes not yet taken by the peer."""
        if self._socket is not None:
            return self._socket.buffered
        return 0 if self._outbox is None else self._outbox.size

    def write(self, data: bytes, frames: Sequence[PreparedMessage]) -> None:
        """Send frames; `data` is their joined `wire`. Never blocks; drops on a closed connection."""
        write_direct = self.write_direct
        if write_direct is not None:
            write_direct(data)
        elif self._socket is not None:
            self._write_socket(self._socket, data, frames)
        elif self._outbox is not None and not self.closed:
            self._outbox.push(frames, len(data))
            self._pushed(self._outbox)

    def send(self, frame: PreparedMessage) -> None:
        """Send one frame."""
        self.write(frame.wire, (frame,))

    def establish(self) -> None:
        """Lift the connect timeout: the layer above has what it waited for."""
        self._connect_by = inf

    def unestablish(self) -> None:
        """Start the connect timeout again."""
        if not self.closed and self._host.options.connect_timeout:
            self._connect_by = self._host.clock() + self._host.options.connect_timeout
            self._schedule()

    def pause(self) -> None:
        """Stop reading from this client; its pings go on, its pongs are not missed."""
        if not self.paused:
            self.paused = True
            if self._socket is not None:
                self._socket.pause()

    def resume(self) -> None:
        """Read again from this client."""
        if self.paused:
            self.paused = False
            self._heartbeat.extend(self._host.clock())
            if self._socket is not None:
                self._socket.resume()
            elif (resumed := self._resumed) is not None:
                self._resumed = None
                resumed()

    def close(self, goodbye: CloseCode = CloseCode.GOING_AWAY) -> None:
        """End the session: what was written leaves first, within close_timeout. Idempotent."""
        if not self.closed:
            within = self._host.options.close_timeout
            self._leave(DisconnectReason.SERVER_DISCONNECT, goodbye.value, within, flush=True)

    # ---------------------------------------------------------------- opening

    def open(self, socket: Socket | None, before: bytes = b"") -> None:
        """Send the handshake over `socket`, `before` in front of it, or queue it for the poll that asked."""
        options = self._host.options
        self._move(ConnectionState.OPEN)
        hello = (
            f'0{{"sid":"{self.sid}","upgrades":{"[]" if socket is not None else _UPGRADES},'
            f'"pingInterval":{round(options.ping_interval * 1000)},'
            f'"pingTimeout":{round(options.ping_timeout * 1000)},'
            f'"maxPayload":{options.max_payload}}}'
        )
        if socket is None:
            self._outbox = PollQueue()
            self._outbox.push_control(hello)
        else:
            socket.write(before + ws_frames.frame(ws_frames.TEXT, hello.encode()))
            self._take_over(socket)
        self._schedule()

    def refuse(self) -> None:
        """Forget a session that the layer above did not want; it is not told of an end."""
        self._move(ConnectionState.CLOSED)
        self._release()

    # ---------------------------------------------------------------- input

    def receive(self, packet: str | bytes) -> Awaitable[None] | None:
        """Take one packet that came over the session's transport.

        Returns an awaitable where the layer above has not finished with it; the transport awaits it
        (through `settle`) before it hands over the next packet. Closes the session at an illegal one.
        """
        if self.closed:
            return None
        if isinstance(packet, str):
            if packet[:1] != packets.MESSAGE:
                self._control(packet)
                return None
            packet = packet[1:]
        try:
            return self._host.handle_message(self.sid, packet)
        except ProtocolError as error:
            self.fail(str(error))
        except Exception:
            logger.exception("a message handler failed")
        return None

    def _control(self, packet: str) -> None:
        if packet == packets.PONG:
            self._pong()
        elif packet == packets.CLOSE:
            self._peer_closed()
        elif packet != packets.NOOP:
            self.fail("unexpected packet")

    async def settle(self, pending: Awaitable[None]) -> None:
        """Await what `receive` returned."""
        try:
            await pending
        except ProtocolError as error:
            self.fail(str(error))
        except Exception:
            logger.exception("a message handler failed")

    def throttle(self, wait: float) -> float:
        """Return how many seconds to wait before a message is handled for which no token was left.

        `wait` is the time until there is a token. It is prolonged, as a pause for each message costs more than most
        messages do.
        """
        self._host.counters["events throttled"] += 1
        self.message_rate.charge(1)
        return max(wait, THROTTLE_PAUSE)

    def charge(self, messages: int) -> None:
        """Count the message that is being handled as so many more."""
        self.message_rate.charge(messages)

    def when_resumed(self, call: Callable[[], None]) -> None:
        """Call once after resume(), or at the end."""
        self._resumed = call

    # ---------------------------------------------------------------- polling

    def poll(self, wake: Wake, mark: str = "") -> None:
        """Answer a poll now, or later through `wake`. Two at once end the session.

        So does one that comes again: HTTP clients send a GET again by themselves if its connection breaks, and
        whatever the first one was answered is lost, which the layers above their HTTP never hear of. `mark`, where
        it is not empty, is unique to each poll.
        """
        if mark and mark == self._polled:
            wake(None)
            self.fail("a poll was repeated")
            return
        self._polled = mark
        if self._wake is not None:
            first, self._wake = self._wake, None
            first(packets.CLOSE)
            wake(None)
            self.fail("two polls at once")
            return
        if self._host.clock() >= self._heartbeat.pong_by:
            self.expire(self._host.clock())
        outbox = self._outbox
        if outbox is None or self.state is ConnectionState.CLOSED:
            wake(None)
            return
        self._wake = wake
        if outbox:
            self._answer(outbox)
        elif self.state is ConnectionState.UPGRADING and self._probed:
            self._noop()

    def unpoll(self) -> None:
        """Note that the waiting poll was cut off: the session is over, as no client does so."""
        self._wake = None
        if not self.closed:
            self._leave(DisconnectReason.TRANSPORT_ERROR, 1002, CUT_AFTER, flush=False)

    def post(self, abort: Callable[[], None]) -> bool:
        """Begin to take a polling body; False: there is one already, and the session ends."""
        if self._posting is not None:
            self.fail("two posts at once")
            return False
        self._posting = abort
        return True

    def posted(self) -> None:
        """Note that the polling body has been dealt with."""
        self._posting = None

    # ---------------------------------------------------------------- upgrade

    def begin_upgrade(self, socket: Socket) -> bool:
        """Take a WebSocket to be probed; False: not now, and the session stays as it is.

        One that is being probed already is cut: HTTP clients ask again by themselves where they heard no answer, and
        none goes on with two.
        """
        former = self._probing
        if former is not None:
            self._probing = None
            former.abort()
        elif self.state is ConnectionState.OPEN and self._socket is None:
            self._move(ConnectionState.UPGRADING)
        else:
            return False
        self._probing = socket
        self._probed = False
        self._noop_at = inf
        self._upgrade_by = self._host.clock() + self._host.options.upgrade_timeout
        self._schedule()
        return True

    def probe(self, socket: Socket, packet: str | bytes) -> None:
        """Take one packet from the WebSocket that is being probed."""
        if socket is not self._probing:
            return
        if packet == packets.PROBE and not self._probed:
            self._probed = True
            socket.write(PROBED_WIRE)
            self._noop_at = self._host.clock()
            self._noop()
        elif packet == packets.UPGRADE and self._probed and self._posting is None:
            self._upgraded(socket)
        else:
            self._host.counters["upgrade abused"] += 1
            logger.debug("%s: unexpected packet in an upgrade", self.sid)
            self.abandon_upgrade(socket)

    def _upgraded(self, socket: Socket) -> None:
        self._probing = None
        self._upgrade_by = self._noop_at = inf
        self._move(ConnectionState.OPEN)
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake(packets.NOOP)
        outbox, self._outbox = self._outbox, None
        assert outbox is not None
        self._take_over(socket)
        for entry in outbox.drain():
            if isinstance(entry, PreparedMessage):
                self._write_socket(socket, entry.wire, (entry,))
            else:
                self._heartbeat.unanswered += entry == packets.PING
                socket.write(ws_frames.frame(ws_frames.TEXT, entry.encode()))
        # If the queue was above the high mark, on_low comes from the socket or, if it took all, here.
        if socket.buffered <= self._host.options.buffer_low:
            self.on_low()
        if self.paused:
            socket.pause()

    def _take_over(self, socket: Socket) -> None:
        self._socket = socket
        if not socket.deflate and not self._above_high:
            self.write_direct = socket.write_direct

    # ---------------------------------------------------------------- the socket

    def _write_socket(self, socket: Socket, data: bytes, frames: Sequence[PreparedMessage]) -> None:
        """Write where `write_direct` is not set: compressed, above the high mark, or closed."""
        if self.closed:
            return
        options = self._host.options
        if socket.buffered + len(data) > options.buffer_limit:
            self.fail("output buffer full", CloseCode.TRY_AGAIN.value)
            return
        if socket.deflate:
            data = b"".join([frame.deflated(options.compression_threshold) for frame in frames])
        socket.write(data)

    def mute(self) -> None:
        """Note that nothing can be written any more; the end follows what is being handled."""
        self.write_direct = None

    # ---------------------------------------------------------------- control packets

    def _pong(self) -> None:
        now = self._host.clock()
        told = self._heartbeat.answered(now)
        if told is None:
            # Before any ping was taken it proves nothing.
            self._host.counters["stray pong"] += 1
            return
        if self._heartbeat.ping_at <= now:
            self._schedule()
        if told and self.listener is not None:
            self.listener.on_pong()

    def _peer_closed(self) -> None:
        if self._outbox is not None:
            # The poll that waits, or the one that is on its way, gets a noop.
            self._outbox.clear()
            self._outbox.push_control(packets.NOOP)
        self._leave(DisconnectReason.TRANSPORT_CLOSE, 1000, CUT_AFTER, flush=True)
