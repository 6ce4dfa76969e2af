"""How one Engine.IO session lives and ends: its state, deadlines, waiting output and clean-up, without any I/O.

`Connection` adds input, output and the upgrade. Time comes from the host's clock and timers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from hub.engineio.core import packet as packets
from hub.engineio.core import ws_frames
from hub.engineio.core.heartbeat import Heartbeat
from hub.engineio.core.interfaces import Carrier, ConnectionEvents, Host, PollReply, Socket
from hub.engineio.core.packet import encode_payload
from hub.engineio.core.poll_queue import PollQueue
from hub.engineio.core.state import MOVES, ConnectionState, DisconnectReason
from hub.engineio.core.token_bucket import TokenBucket

logger = logging.getLogger("hub.engineio")

PING_FRAME = ws_frames.frame(ws_frames.TEXT, packets.PING.encode())
# How long the TCP connection of an ended session is kept, for the peer to close it too.
CUT_AFTER = 0.5
# After the probe each poll is ended at once, but not more often than this. The client polls until it has the answer
# to its probe; if that answer is lost on the way, the client would poll without any pause.
NOOP_EVERY = 0.1
# Why nothing is read from a client: the layer above asked for it; the client leaves too much of its output unread.
ASKED, CHOKED = 1, 2


class Lifecycle:
    """The state of a session, its deadlines, its waiting output and its end. It never calls what `Connection` adds."""

    __slots__ = (
        "__weakref__",
        "_abort_post",
        "_above_high",
        "_carrier",
        "_close_by",
        "_connect_by",
        "_end_reason",
        "_environ",
        "_handling",
        "_heartbeat",
        "_host",
        "_newest_mark",
        "_noop_at",
        "_on_resume",
        "_pauses",
        "_poll_queue",
        "_probed",
        "_probing",
        "_socket",
        "_upgrade_by",
        "_waiting_poll",
        "closed",
        "data",
        "failed",
        "listener",
        "message_rate",
        "remote",
        "sid",
        "slot",
        "state",
        "write_direct",
    )

    def __init__(
        self, host: Host, sid: str, remote: str, environ: Callable[[], Mapping[str, Any]]
    ) -> None:
        options = host.options
        now = host.clock()
        self._host = host
        self.sid = sid
        # The client's address.
        self.remote = remote
        self._environ = environ
        # Free for the layers above.
        self.data: dict[str, Any] = {}
        # Gets the events of this connection.
        self.listener: ConnectionEvents | None = None
        self.state = ConnectionState.OPENING
        # True: closing or closed, nothing more is received or sent.
        self.closed = False
        # -- output
        # The WebSocket; None on polling.
        self._socket: Socket | None = None
        # Writes finished WebSocket frames to an open, uncompressed socket below the high mark; else None.
        self.write_direct: Callable[[bytes], None] | None = None
        # Packets for the next poll; None on WebSocket. Bound: buffer_limit bytes, above it the session is ended.
        self._poll_queue: PollQueue | None = None
        # True: on_high was called, and on_low was not called since.
        self._above_high = False
        # Answers the waiting poll.
        self._waiting_poll: PollReply | None = None
        # The TCP connection of the newest poll, which carries the response to it.
        self._carrier: Carrier | None = None
        # The mark of the newest poll, by which a repeated one is recognized.
        self._newest_mark = ""
        # -- input
        # Why nothing is read from the client: ASKED, CHOKED, both or neither.
        self._pauses = 0
        # Wakes the POST that waits for `resume`.
        self._on_resume: Callable[[], None] | None = None
        # True: a packet is being handled. The end of the session is reported after it.
        self._handling = False
        # Cuts the POST whose body is being read or handled.
        self._abort_post: Callable[[], None] | None = None
        # Counts messages (events_per_second). If no token is left, `Connection.throttle` says how long to wait.
        rate = options.events_per_second or inf
        self.message_rate = TokenBucket(host.clock, rate, rate)
        # -- upgrade
        # The WebSocket that is being probed.
        self._probing: Socket | None = None
        # True: its probe was answered.
        self._probed = False
        # -- deadlines, all on one clock; inf: none
        self.slot = 0
        self._heartbeat = Heartbeat(now, options.ping_interval, options.ping_timeout)
        self._connect_by = now + options.connect_timeout if options.connect_timeout else inf
        self._upgrade_by = inf
        self._noop_at = inf
        self._close_by = inf
        # -- the end
        # True: the peer broke the protocol.
        self.failed = False
        # Why the session ended; None before the end, and after it was reported.
        self._end_reason: str | None = None

    # ---------------------------------------------------------------- handling input

    def begin_handling(self) -> None:
        """Note that input is being handled. An end that comes meanwhile is reported afterwards."""
        self._handling = True

    def end_handling(self) -> None:
        """Note that no input is being handled any more."""
        self._handling = False
        if self._end_reason is not None:
            self._report_end()
        else:
            # A pong may have waited for its turn.
            self._heartbeat.extend_deadline(self._host.clock())

    # ---------------------------------------------------------------- output

    @property
    def buffered(self) -> int:
        """Bytes that were written and that the peer has not taken yet."""
        if self._socket is not None:
            return self._socket.buffered
        return 0 if self._poll_queue is None else self._poll_queue.size

    def _look_at_output(self) -> int | None:
        """Return how much output the peer has taken so far; None: no more than the high mark waits for it.

        What the kernel holds counts, too. It may be more than `buffered`, and a ping may wait behind it.
        """
        carrier = self._carrier if self._socket is None else self._socket
        if carrier is not None and carrier.unacknowledged > self._host.options.buffer_high:
            return carrier.taken
        if (queue := self._poll_queue) is not None and self._above_high:
            return queue.taken
        return None

    # ---------------------------------------------------------------- answers to polls

    def _after_push(self, queue: PollQueue) -> None:
        """Have a waiting poll answered, and compare the size of the queue with its bounds."""
        options = self._host.options
        if queue.size > options.buffer_limit:
            self.fail("output buffer full")
            return
        if self._waiting_poll is not None:
            if queue.size <= options.buffer_high:
                self._host.answer_poll_soon(self.answer_poll)
                return
            self._answer_poll(queue)
        if queue.size > options.buffer_high:
            self.on_high()
            self._choke_if_full()

    def answer_poll(self) -> None:
        """Answer the waiting poll, if there still is one, with what is queued."""
        if self._waiting_poll is not None and self._poll_queue:
            self._answer_poll(self._poll_queue)

    def _answer_poll(self, queue: PollQueue) -> None:
        """Answer the waiting poll with as much of the queue as one response may carry."""
        reply, self._waiting_poll = self._waiting_poll, None
        assert reply is not None
        options = self._host.options
        taken = queue.take_payload(options.answer_packets, options.max_payload)
        self._heartbeat.unanswered += taken.count(packets.PING)
        reply(encode_payload(taken))
        if not queue and self.listener is not None:
            self.listener.on_poll_answered()
        self.on_drained()
        if self.state is ConnectionState.CLOSING and not queue:
            self._close_now()

    def _end_poll_for_upgrade(self) -> None:
        """Answer a waiting poll with a noop, so that the client can switch to its WebSocket."""
        now = self._host.clock()
        if self._waiting_poll is not None and now >= self._noop_at:
            self._noop_at = now + NOOP_EVERY
            reply, self._waiting_poll = self._waiting_poll, None
            reply(packets.NOOP)
        self._schedule()

    # ---------------------------------------------------------------- the high and the low mark

    def on_high(self) -> None:
        """Note that more than `buffer_high` bytes wait for the peer."""
        if not self._above_high:
            self._above_high = True
            self.write_direct = None
            if self.listener is not None:
                self.listener.on_high()
            self._choke_if_full()

    def on_drained(self) -> None:
        """Note that output was taken by the peer, and compare what is left of it with the bounds."""
        options = self._host.options
        if self._pauses & CHOKED and self.buffered <= self._most_unread:
            if self._socket is not None:
                # The socket reports the low mark next.
                self._socket.set_marks(options.buffer_low, options.buffer_low)
            self._end_pause(CHOKED)
        if self.buffered <= options.buffer_low:
            self.on_low()

    def on_low(self) -> None:
        """Note that no more than `buffer_low` bytes wait for the peer."""
        if self._above_high:
            self._above_high = False
            if self._socket is not None and not self.closed:
                options = self._host.options
                self._socket.set_marks(options.buffer_high, options.buffer_low)
                if not self._socket.deflate:
                    self.write_direct = self._socket.write_direct
            if self.listener is not None:
                self.listener.on_low()

    def _choke_if_full(self) -> None:
        """Read nothing more from a client that leaves more than twice the high mark unread, until it has read the rest.

        What it sends would be answered, and the answers would pile up.
        """
        most = self._most_unread
        if self.buffered > most and not self._pauses & CHOKED and not self.closed:
            self._host.counters["output unread"] += 1
            if self._socket is not None:
                self._socket.set_marks(most, most)
            self._begin_pause(CHOKED)

    @property
    def _most_unread(self) -> int:
        """The bytes of output above which nothing is read."""
        options = self._host.options
        most = 2 * options.buffer_high
        if self._probing is not None and self._probed:
            # The client polls no more, and upgrades once its POSTs are answered. One is being handled, and one may be on the way.
            most += 2 * options.max_payload
        return most

    # ---------------------------------------------------------------- reading

    @property
    def paused(self) -> bool:
        """True: nothing is read from the client."""
        return self._pauses != 0

    def _begin_pause(self, why: int) -> None:
        if not self._pauses and self._socket is not None:
            self._socket.pause()
        self._pauses |= why

    def _end_pause(self, why: int) -> None:
        if self._pauses != why:
            self._pauses &= ~why
            return
        self._pauses = 0
        self._heartbeat.extend_deadline(self._host.clock())
        if self._socket is not None:
            self._socket.resume()
        elif (on_resume := self._on_resume) is not None:
            self._on_resume = None
            on_resume()

    # ---------------------------------------------------------------- the end of an upgrade

    def abandon_upgrade(self, socket: Socket, code: int = 1002) -> None:
        """End an upgrade without success, whichever side caused that; the session stays on polling."""
        if socket is self._probing:
            self._probing = None
            self._upgrade_by = self._noop_at = inf
            self._move_to(ConnectionState.OPEN)
            self._choke_if_full()
            socket.close(code)

    # ---------------------------------------------------------------- the end

    def fail(self, why: str, code: int = 1002) -> None:
        """End the session of a peer that broke the protocol. It is counted, and logged at debug."""
        self._host.counters[why] += 1
        self.failed = True
        if not self.closed:
            logger.debug("%s: %s", self.sid, why)
            self._begin_closing(DisconnectReason.TRANSPORT_ERROR, code, CUT_AFTER, flush=False)

    def abort(self, reason: str) -> None:
        """End the session at once: its TCP connection is lost, or is cut. `reason` is reported if it was not ending."""
        if self.state is ConnectionState.CLOSED:
            return
        reported = self.state is ConnectionState.CLOSING
        self._close_now()
        if not reported:
            self._end_with(reason)

    def _begin_closing(self, reason: str, code: int, within: float, *, flush: bool) -> None:
        """Begin the end of a session that is open: close its socket with `code`, and cut it after `within` seconds.

        `flush`: on polling, what is queued is still handed out. Otherwise a polling session is closed at once.
        """
        probing, self._probing = self._probing, None
        self._move_to(ConnectionState.CLOSING)
        self.write_direct = None
        self._heartbeat.stop()
        self._connect_by = self._upgrade_by = self._noop_at = inf
        self._close_by = self._host.clock() + within
        self._schedule()
        if probing is not None:
            probing.abort()  # stock Python clients do not expect a close code there
        queue = self._poll_queue
        if self._socket is not None:
            self._socket.close(code)
        elif not flush or not queue:
            self._close_now()
        elif self._waiting_poll is not None:
            self._answer_poll(queue)
        self._end_with(reason)

    def _close_now(self) -> None:
        self._move_to(ConnectionState.CLOSED)
        self._clean_up()

    def _clean_up(self) -> None:
        """Release all that the session holds. This is the one place where a session is cleaned up."""
        self._host.timers.drop(self)
        self.write_direct = self._poll_queue = self._carrier = None
        socket, self._socket = self._socket, None
        probing, self._probing = self._probing, None
        reply, self._waiting_poll = self._waiting_poll, None
        on_resume, self._on_resume = self._on_resume, None
        abort_post, self._abort_post = self._abort_post, None
        if reply is not None:
            reply(None)
        if socket is not None:
            socket.abort()
        if probing is not None:
            probing.abort()
        if on_resume is not None:
            on_resume()
        if abort_post is not None:
            abort_post()
        self._host.remove_connection(self.sid, self.remote)

    def _end_with(self, reason: str) -> None:
        """Report the end, once the packet that is being handled is done."""
        self._end_reason = reason
        if not self._handling:
            self._report_end()

    def _report_end(self) -> None:
        reason, self._end_reason = self._end_reason, None
        if reason is not None:
            self._host.report_disconnect(self.sid, reason)

    def _move_to(self, state: ConnectionState) -> None:
        if state not in MOVES[self.state]:
            raise RuntimeError(f"no way from {self.state.value} to {state.value}")
        self.state = state
        self.closed = state in (ConnectionState.CLOSING, ConnectionState.CLOSED)

    # ---------------------------------------------------------------- heartbeat and deadlines

    def expire(self, now: float) -> None:
        """Do what is due. The timers call this."""
        heartbeat = self._heartbeat
        if self.state is ConnectionState.CLOSED:
            return
        if now >= self._close_by:
            self._close_now()
        elif now >= heartbeat.pong_by and heartbeat.is_overdue(
            now, blocked=self.paused or self._handling, taken=self._look_at_output()
        ):
            self._begin_closing(DisconnectReason.PING_TIMEOUT, 1001, CUT_AFTER, flush=False)
        elif now >= self._connect_by:
            self._host.counters["connect timeout"] += 1
            logger.debug("%s: connect timeout", self.sid)
            self._begin_closing(DisconnectReason.SERVER_DISCONNECT, 1002, CUT_AFTER, flush=False)
        else:
            if now >= self._upgrade_by and self._probing is not None:
                self._host.counters["upgrade timeout"] += 1
                self._probing.abort()
                self.abandon_upgrade(self._probing)
            if now >= self._noop_at:
                self._end_poll_for_upgrade()
            if now >= heartbeat.ping_at:
                self._ping(now)
            self._schedule()

    def _ping(self, now: float) -> None:
        heartbeat = self._heartbeat
        if heartbeat.pong_by != inf and not (self.paused or self._handling):
            # The last ping is not answered yet: ping_timeout is longer than ping_interval.
            heartbeat.postpone_ping()
            return
        taken = self._look_at_output() if self._above_high else None
        reported = heartbeat.begin_ping(now, self._host.tick, taken)
        if reported and self.listener is not None:
            self.listener.on_ping()
        if self._socket is not None:
            heartbeat.unanswered += 1
            self._socket.write(PING_FRAME)
        elif self._poll_queue is not None:
            self._poll_queue.push_control(packets.PING)
            self._after_push(self._poll_queue)

    def ping_now(self) -> None:
        """Send a ping before it is due, unless one is not answered yet."""
        heartbeat = self._heartbeat
        if not self.closed and heartbeat.pong_by == inf:
            now = self._host.clock()
            heartbeat.ping_at = now
            self._ping(now)
            self._schedule()

    def _schedule(self) -> None:
        """Set the timer to the nearest deadline. If that deadline moves, `expire` finds nothing due and sets it anew."""
        heartbeat = self._heartbeat
        due = min(
            heartbeat.ping_at,
            heartbeat.pong_by,
            self._connect_by,
            self._upgrade_by,
            self._close_by,
            self._noop_at if self._waiting_poll is not None else inf,
        )
        if due != inf:
            self._host.timers.set(self, due)
        else:
            self._host.timers.drop(self)
