"""How one Engine.IO session lives and ends: its state, deadlines and clean-up, without any I/O.

`Connection` adds what goes in and out. Time comes from the host's clock and wheel.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from hub.engineio.core import packet as packets
from hub.engineio.core import ws_frames
from hub.engineio.core.heartbeat import Heartbeat
from hub.engineio.core.interfaces import ConnectionEvents, Host, Socket, Wake
from hub.engineio.core.packet import encode_payload
from hub.engineio.core.poll_queue import PollQueue
from hub.engineio.core.state import MOVES, ConnectionState, DisconnectReason
from hub.engineio.core.token_bucket import TokenBucket

logger = logging.getLogger("hub.engineio")

PING_WIRE = ws_frames.frame(ws_frames.TEXT, packets.PING.encode())
# How long a peer that broke the protocol, timed out or said goodbye may keep its socket.
CUT_AFTER = 0.5
# After the probe a poll is ended at once, but not more often than this: the client asks again until
# it has paused, and would spin if the answer to its probe is swallowed on the way.
NOOP_EVERY = 0.1


class Lifecycle:
    """The state of a session, its deadlines, its end."""

    __slots__ = (
        "__weakref__",
        "_above_high",
        "_close_by",
        "_connect_by",
        "_environ",
        "_handling",
        "_heartbeat",
        "_host",
        "_noop_at",
        "_outbox",
        "_polled",
        "_posting",
        "_probed",
        "_probing",
        "_reason",
        "_resumed",
        "_socket",
        "_upgrade_by",
        "_wake",
        "closed",
        "data",
        "failed",
        "listener",
        "message_rate",
        "paused",
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
        # The peer's address, behind trusted proxies.
        self.remote = remote
        self._environ = environ
        self.data: dict[str, Any] = {}
        self.listener: ConnectionEvents | None = None
        self.state = ConnectionState.OPENING
        # Closed or closing: nothing more comes in or goes out.
        self.closed = False
        # -- output
        # The socket of a session on WebSocket, and its write method while it takes everything.
        self._socket: Socket | None = None
        self.write_direct: Callable[[bytes], None] | None = None
        # On polling. Bound: buffer_limit bytes, beyond it the session is closed.
        self._outbox: PollQueue | None = None
        self._above_high = False
        # The poll that waits.
        self._wake: Wake | None = None
        # What its client told the newest poll apart by.
        self._polled = ""
        # -- input
        self.paused = False
        # Wakes the polling request that waits for resume().
        self._resumed: Callable[[], None] | None = None
        # Whether a message is being handled: the end is told to the layer above after it.
        self._handling = False
        # Cuts off the polling request whose body is being read.
        self._posting: Callable[[], None] | None = None
        # Counts messages (events_per_second). Where no token is left, `throttle` says how long to wait.
        rate = options.events_per_second or inf
        self.message_rate = TokenBucket(host.clock, rate, rate)
        # -- upgrade
        self._probing: Socket | None = None
        self._probed = False
        # -- deadlines, all on one clock; inf: none
        self.slot = 0
        self._heartbeat = Heartbeat(now, options.ping_interval, options.ping_timeout)
        self._connect_by = now + options.connect_timeout if options.connect_timeout else inf
        self._upgrade_by = inf
        self._noop_at = inf
        self._close_by = inf
        # -- the end
        # Whether the peer broke the protocol.
        self.failed = False
        # Why the session ended, until the layer above has been told.
        self._reason: str | None = None

    # ---------------------------------------------------------------- while it lives

    def begin(self) -> None:
        """Note that input is being handled: the end is told to the layer above afterwards."""
        self._handling = True

    def done(self) -> None:
        """Note that no input is being handled any more."""
        self._handling = False
        if self._reason is not None:
            self._tell()
        else:
            # A pong may have waited behind what was handled.
            self._heartbeat.extend(self._host.clock())

    # ---------------------------------------------------------------- what waits for a poll

    def _pushed(self, outbox: PollQueue) -> None:
        """Hand what was put into the queue to a waiting poll, and watch the queue's size."""
        options = self._host.options
        if outbox.size > options.buffer_limit:
            self.fail("output buffer full")
            return
        if self._wake is not None:
            if outbox.size <= options.buffer_high:
                self._host.answer_poll_soon(self.answer_poll)
                return
            self._answer(outbox)
        if outbox.size > options.buffer_high:
            self.on_high()

    def answer_poll(self) -> None:
        """Give a poll that still waits what there is."""
        if self._wake is not None and self._outbox:
            self._answer(self._outbox)

    def _answer(self, outbox: PollQueue) -> None:
        """Give the waiting poll what it may carry."""
        wake, self._wake = self._wake, None
        assert wake is not None
        options = self._host.options
        taken = outbox.take(options.answer_packets, options.max_payload)
        self._heartbeat.unanswered += taken.count(packets.PING)
        wake(encode_payload(taken))
        if outbox.size <= options.buffer_low:
            self.on_low()
        if self.state is ConnectionState.CLOSING and not outbox:
            self._finish()

    def _noop(self) -> None:
        """End a waiting poll, so that the client can go over to its WebSocket."""
        now = self._host.clock()
        if self._wake is not None and now >= self._noop_at:
            self._noop_at = now + NOOP_EVERY
            wake, self._wake = self._wake, None
            wake(packets.NOOP)
        self._schedule()

    # ---------------------------------------------------------------- what waits for the peer

    def on_high(self) -> None:
        """Note that more than `buffer_high` bytes wait for the peer."""
        if not self._above_high:
            self._above_high = True
            self.write_direct = None
            if self.listener is not None:
                self.listener.on_high()

    def on_low(self) -> None:
        """Note that no more than `buffer_low` bytes wait for the peer."""
        if self._above_high:
            self._above_high = False
            if self._socket is not None and not self._socket.deflate and not self.closed:
                self.write_direct = self._socket.write_direct
            if self.listener is not None:
                self.listener.on_low()

    # ---------------------------------------------------------------- the end

    def fail(self, why: str, code: int = 1002) -> None:
        """End the session of a peer that broke the protocol: one line at debug, counted."""
        self._host.counters[why] += 1
        self.failed = True
        if not self.closed:
            logger.debug("%s: %s", self.sid, why)
            self._leave(DisconnectReason.TRANSPORT_ERROR, code, CUT_AFTER, flush=False)

    def lost(self, reason: str) -> None:
        """Note that the session's socket is gone."""
        if self.state is ConnectionState.CLOSED:
            return
        told = self.state is ConnectionState.CLOSING
        self._finish()
        if not told:
            self._end(reason)

    def abandon_upgrade(self, socket: Socket, code: int = 1002) -> None:
        """Give up an upgrade, on either side's account; the session stays on polling."""
        if socket is self._probing:
            self._probing = None
            self._upgrade_by = self._noop_at = inf
            self._move(ConnectionState.OPEN)
            socket.close(code)

    def _leave(self, reason: str, code: int, within: float, *, flush: bool) -> None:
        """Go from any open state to closing, and on polling with nothing to flush on to closed."""
        probing, self._probing = self._probing, None
        self._move(ConnectionState.CLOSING)
        self.write_direct = None
        self._heartbeat.stop()
        self._connect_by = self._upgrade_by = self._noop_at = inf
        self._close_by = self._host.clock() + within
        self._schedule()
        if probing is not None:
            probing.abort()  # a close code is more than stock Python clients expect there
        outbox = self._outbox
        if self._socket is not None:
            self._socket.close(code)
        elif not flush or not outbox:
            self._finish()
        elif self._wake is not None:
            self._answer(outbox)
        self._end(reason)

    def _finish(self) -> None:
        self._move(ConnectionState.CLOSED)
        self._release()

    def _release(self) -> None:
        """Let go of everything; the one place where a session is cleaned up."""
        self._host.timers.drop(self)
        self.write_direct = self._outbox = None
        socket, self._socket = self._socket, None
        probing, self._probing = self._probing, None
        wake, self._wake = self._wake, None
        resumed, self._resumed = self._resumed, None
        posting, self._posting = self._posting, None
        if wake is not None:
            wake(None)
        if socket is not None:
            socket.abort()
        if probing is not None:
            probing.abort()
        if resumed is not None:
            resumed()
        if posting is not None:
            posting()
        self._host.remove_connection(self.sid, self.remote)

    def _end(self, reason: str) -> None:
        self._reason = reason
        if not self._handling:
            self._tell()

    def _tell(self) -> None:
        reason, self._reason = self._reason, None
        if reason is not None:
            self._host.report_disconnect(self.sid, reason)

    def _move(self, state: ConnectionState) -> None:
        if state not in MOVES[self.state]:
            raise RuntimeError(f"no way from {self.state.value} to {state.value}")
        self.state = state
        self.closed = state in (ConnectionState.CLOSING, ConnectionState.CLOSED)

    # ---------------------------------------------------------------- heartbeat and deadlines

    def expire(self, now: float) -> None:
        """Do what is due: the wheel's call."""
        heartbeat = self._heartbeat
        if self.state is ConnectionState.CLOSED:
            return
        if now >= self._close_by:
            self._finish()
        elif heartbeat.overdue(now, blocked=self.paused or self._handling):
            self._leave(DisconnectReason.PING_TIMEOUT, 1001, CUT_AFTER, flush=False)
        elif now >= self._connect_by:
            self._host.counters["connect timeout"] += 1
            logger.debug("%s: connect timeout", self.sid)
            self._leave(DisconnectReason.SERVER_DISCONNECT, 1002, CUT_AFTER, flush=False)
        else:
            if now >= self._upgrade_by and self._probing is not None:
                self._host.counters["upgrade timeout"] += 1
                self._probing.abort()
                self.abandon_upgrade(self._probing)
            if now >= self._noop_at:
                self._noop()
            if now >= heartbeat.ping_at:
                self._ping(now)
            self._schedule()

    def _ping(self, now: float) -> None:
        heartbeat = self._heartbeat
        if heartbeat.pong_by != inf and not (self.paused or self._handling):
            # ping_timeout is longer than ping_interval: not before the last one is answered.
            heartbeat.wait_for_pong()
            return
        if heartbeat.begin(now, self._host.tick) and self.listener is not None:
            self.listener.on_ping()
        if self._socket is not None:
            heartbeat.unanswered += 1
            self._socket.write(PING_WIRE)
        elif self._outbox is not None:
            self._outbox.push_control(packets.PING)
            self._pushed(self._outbox)

    def _schedule(self) -> None:
        """Have the wheel call at the nearest deadline; where one moved away, that call moves on."""
        heartbeat = self._heartbeat
        due = min(
            heartbeat.ping_at,
            heartbeat.pong_by,
            self._connect_by,
            self._upgrade_by,
            self._close_by,
            self._noop_at if self._wake is not None else inf,
        )
        if due != inf:
            self._host.timers.set(self, due)
        else:
            self._host.timers.drop(self)
