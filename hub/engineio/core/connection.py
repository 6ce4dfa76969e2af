"""One Engine.IO session as the layers above see it: its input and output, without any I/O.

The transports call `receive`, `poll`, `begin_post` and `receive_probe` with what arrived. Output goes to a `Socket`
(a WebSocket) or to the callback of a waiting poll. The base class `Lifecycle` has the state, the deadlines and the end.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from typing import Any

from hub.engineio.core import packet as packets
from hub.engineio.core import ws_frames
from hub.engineio.core.interfaces import Carrier, PollReply, Socket
from hub.engineio.core.lifecycle import ASKED, CHOKED, CUT_AFTER, Lifecycle
from hub.engineio.core.packet import ProtocolError
from hub.engineio.core.poll_queue import PollQueue
from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.core.state import CloseCode, ConnectionState, DisconnectReason

logger = logging.getLogger("hub.engineio")

_UPGRADES = '["websocket"]'
PROBED_FRAME = ws_frames.frame(ws_frames.TEXT, packets.PROBED.encode())

# The shortest pause in reading a connection that sends more than events_per_second.
THROTTLE_PAUSE = 0.1


class Connection(Lifecycle):
    """One Engine.IO session, on whichever transport it is."""

    __slots__ = ()

    # ---------------------------------------------------------------- what the layers above see

    @property
    def transport(self) -> str:
        return "polling" if self._socket is None else "websocket"

    @property
    def environ(self) -> Mapping[str, Any]:
        """The handshake request in the form of WSGI. It is made at each access and not kept."""
        return self._environ()

    def write(self, data: bytes, messages: Sequence[PreparedMessage]) -> None:
        """Send messages; `data` is the `wire` of all of them, joined. Never blocks. A closed session drops them."""
        write_direct = self.write_direct
        if write_direct is not None:
            write_direct(data)
        elif self._socket is not None:
            self._write_socket(self._socket, data, messages)
        elif self._poll_queue is not None and not self.closed:
            self._poll_queue.push(messages, len(data))
            self._after_push(self._poll_queue)

    def send(self, message: PreparedMessage) -> None:
        """Send one message."""
        self.write(message.wire, (message,))

    def establish(self) -> None:
        """End the connect timeout: the layer above has got its CONNECT."""
        self._connect_by = inf

    def unestablish(self) -> None:
        """Start the connect timeout again."""
        if not self.closed and self._host.options.connect_timeout:
            self._connect_by = self._host.clock() + self._host.options.connect_timeout
            self._schedule()

    def pause(self) -> None:
        """Stop reading from this client. It is still pinged, and its pongs are not due while nothing is read."""
        self._begin_pause(ASKED)

    def resume(self) -> None:
        """Read again from this client."""
        if self._pauses & ASKED:
            self._end_pause(ASKED)

    def close(self, code: CloseCode = CloseCode.GOING_AWAY) -> None:
        """End the session once all that was written has left, or close_timeout has passed. Idempotent."""
        if not self.closed:
            within = self._host.options.close_timeout
            self._begin_closing(DisconnectReason.SERVER_DISCONNECT, code.value, within, flush=True)

    # ---------------------------------------------------------------- opening

    def open(self, socket: Socket | None, before: bytes = b"") -> None:
        """Send `before` and the Engine.IO handshake over `socket`; None: queue the handshake for the first poll."""
        options = self._host.options
        self._move_to(ConnectionState.OPEN)
        handshake = (
            f'0{{"sid":"{self.sid}","upgrades":{"[]" if socket is not None else _UPGRADES},'
            f'"pingInterval":{round(options.ping_interval * 1000)},'
            f'"pingTimeout":{round(options.ping_timeout * 1000)},'
            f'"maxPayload":{min(options.max_message, options.max_payload)}}}'
        )
        if socket is None:
            self._poll_queue = PollQueue()
            self._poll_queue.push_control(handshake)
        else:
            socket.write(before + ws_frames.frame(ws_frames.TEXT, handshake.encode()))
            self._use_socket(socket)
        self._schedule()

    def refuse(self) -> None:
        """Remove a session that the connect handler refused. Its end is not reported."""
        self._move_to(ConnectionState.CLOSED)
        self._clean_up()

    # ---------------------------------------------------------------- input

    def receive(self, packet: str | bytes) -> Awaitable[None] | None:
        """Handle one packet that came over the session's transport; an illegal one ends the session.

        Returns an awaitable if the layer above has not finished with the packet. The transport then awaits it
        (with `settle`) before it calls `receive` with the next packet.
        """
        if self.closed:
            return None
        if isinstance(packet, str):
            if packet[:1] != packets.MESSAGE:
                self._receive_control(packet)
                return None
            packet = packet[1:]
        try:
            return self._host.handle_message(self.sid, packet)
        except ProtocolError as error:
            self.fail(str(error))
        except Exception:
            logger.exception("a message handler failed")
        return None

    def _receive_control(self, packet: str) -> None:
        if packet == packets.PONG:
            self._receive_pong()
        elif packet == packets.CLOSE:
            self._receive_close()
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
        """Return how many seconds to wait before handling a message for which `message_rate` had no token.

        `wait` is the time until there is a token. The pause is made longer than that, so that many messages follow
        it: a pause costs more than most messages do.
        """
        self._host.counters["events throttled"] += 1
        self.message_rate.charge(1)
        return max(wait, THROTTLE_PAUSE)

    def charge(self, messages: int) -> None:
        """Count the message that is being handled as so many messages more."""
        self.message_rate.charge(messages)

    def when_resumed(self, call: Callable[[], None]) -> None:
        """Call `call` once, after `resume` or at the end of the session."""
        self._on_resume = call

    # ---------------------------------------------------------------- polling

    def poll(self, reply: PollReply, mark: str = "", carrier: Carrier | None = None) -> None:
        """Answer a poll through `reply`, which writes to `carrier`, now or later. Two polls at once end the session, and so does a repeated one.

        HTTP clients repeat a GET by themselves if its connection breaks. The response to the first one is lost then,
        and the code above their HTTP library never learns of it. `mark`, where it is not empty, is unique to each poll.
        """
        if mark and mark == self._newest_mark:
            reply(None)
            self.fail("a poll was repeated")
            return
        self._newest_mark = mark
        if self._waiting_poll is not None:
            first, self._waiting_poll = self._waiting_poll, None
            first(packets.CLOSE)
            reply(None)
            self.fail("two polls at once")
            return
        # A poll without a mark may be one that was repeated.
        if mark and self.listener is not None:
            self.listener.on_poll()
        if self._host.clock() >= self._heartbeat.pong_by:
            self.expire(self._host.clock())
        queue = self._poll_queue
        if queue is None or self.state is ConnectionState.CLOSED:
            reply(None)
            return
        self._waiting_poll, self._carrier = reply, carrier
        if queue:
            self._answer_poll(queue)
        elif self.state is ConnectionState.UPGRADING and self._probed:
            self._end_poll_for_upgrade()

    def on_poll_lost(self) -> None:
        """End the session: its client cut the waiting poll off, which no client does that goes on."""
        self._waiting_poll = None
        if not self.closed:
            self._begin_closing(DisconnectReason.TRANSPORT_ERROR, 1002, CUT_AFTER, flush=False)

    def begin_post(self, abort: Callable[[], None]) -> bool:
        """Note that a POST is read now, which `abort` cuts; False: another one is, and the session ends."""
        if self._abort_post is not None:
            self.fail("two posts at once")
            return False
        self._abort_post = abort
        return True

    def end_post(self) -> None:
        """Note that the packets of the POST have been handled."""
        self._abort_post = None

    # ---------------------------------------------------------------- upgrade

    def begin_upgrade(self, socket: Socket) -> bool:
        """Begin to probe a WebSocket for an upgrade; False: not possible now, and the session stays as it is.

        A WebSocket that is being probed already is cut: HTTP clients repeat a request by themselves if they got no
        response, and no client goes on with both.
        """
        probing = self._probing
        if probing is not None:
            self._probing = None
            probing.abort()
        elif self.state is ConnectionState.OPEN and self._socket is None:
            self._move_to(ConnectionState.UPGRADING)
        else:
            return False
        self._probing = socket
        self._probed = False
        self._noop_at = inf
        self._upgrade_by = self._host.clock() + self._host.options.upgrade_timeout
        self._schedule()
        return True

    def receive_probe(self, socket: Socket, packet: str | bytes) -> None:
        """Handle one packet from the WebSocket that is being probed."""
        if socket is not self._probing:
            return
        if packet == packets.PROBE and not self._probed:
            self._probed = True
            socket.write(PROBED_FRAME)
            self._noop_at = self._host.clock()
            self._end_poll_for_upgrade()
            self.on_drained()  # more may be unread now
        elif packet == packets.UPGRADE and self._probed and self._abort_post is None:
            self._complete_upgrade(socket)
        else:
            self._host.counters["upgrade abused"] += 1
            logger.debug("%s: unexpected packet in an upgrade", self.sid)
            self.abandon_upgrade(socket)

    def _complete_upgrade(self, socket: Socket) -> None:
        self._probing = None
        self._upgrade_by = self._noop_at = inf
        self._move_to(ConnectionState.OPEN)
        if self._waiting_poll is not None:
            reply, self._waiting_poll = self._waiting_poll, None
            reply(packets.NOOP)
        queue, self._poll_queue = self._poll_queue, None
        assert queue is not None
        self._pauses &= ~CHOKED  # what the socket does not take at once counts anew
        self._use_socket(socket)
        for entry in queue.drain():
            if isinstance(entry, PreparedMessage):
                self._write_socket(socket, entry.wire, (entry,))
            else:
                self._heartbeat.unanswered += entry == packets.PING
                socket.write(ws_frames.frame(ws_frames.TEXT, entry.encode()))
        # The queue may have been above the high mark: on_low is called now or when the socket reports the low mark.
        low = self._host.options.buffer_low
        if socket.buffered <= low:
            self.on_low()
        elif self._above_high and not self._pauses & CHOKED:
            socket.set_marks(low, low)
        if self.paused:
            socket.pause()

    def _use_socket(self, socket: Socket) -> None:
        self._socket, self._carrier = socket, None
        if not socket.deflate and not self._above_high:
            self.write_direct = socket.write_direct

    # ---------------------------------------------------------------- the socket

    def _write_socket(
        self, socket: Socket, data: bytes, messages: Sequence[PreparedMessage]
    ) -> None:
        """Write when `write_direct` is None: the socket compresses, is above the high mark, or is closed."""
        if self.closed:
            return
        options = self._host.options
        if socket.buffered + len(data) > options.buffer_limit:
            self.fail("output buffer full", CloseCode.TRY_AGAIN.value)
            return
        if socket.deflate:
            data = b"".join([each.deflated(options.compression_threshold) for each in messages])
        socket.write(data)
        self._choke_if_full()

    def stop_direct_writes(self) -> None:
        """Note that the TCP connection is lost, while packets that came before are still being handled."""
        self.write_direct = None

    # ---------------------------------------------------------------- control packets

    def _receive_pong(self) -> None:
        now = self._host.clock()
        reported = self._heartbeat.receive_pong(now)
        if reported is None:
            # A pong without a ping proves nothing.
            self._host.counters["stray pong"] += 1
            return
        if self._heartbeat.ping_at <= now:
            self._schedule()
        if reported and self.listener is not None:
            self.listener.on_pong()

    def _receive_close(self) -> None:
        if self._poll_queue is not None:
            # The waiting poll, or the one that is still coming, is answered with a noop.
            self._poll_queue.clear()
            self._poll_queue.push_control(packets.NOOP)
        self._begin_closing(DisconnectReason.TRANSPORT_CLOSE, 1000, CUT_AFTER, flush=True)
