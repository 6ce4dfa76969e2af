"""One Engine.IO session as the layers above see it: states, heartbeat, output; without any I/O.

Transports call in with what arrived (`receive`, `poll`, `probe`, `lost`); what goes out leaves
through a `Socket` (WebSocket) or a waiting poll's callback. Time comes from the host's clock and wheel.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Any, Protocol

from hub.engine import packet as packets
from hub.engine import wire
from hub.engine.frame import Frame
from hub.engine.options import EngineOptions
from hub.engine.packet import ProtocolError, encode_binary, encode_payload
from hub.engine.state import MOVES, Goodbye, Reason, State
from hub.engine.wheel import Wheel

logger = logging.getLogger("hub.engine")

PING_WIRE = wire.frame(wire.TEXT, b"2")
PROBED_WIRE = wire.frame(wire.TEXT, packets.PROBED.encode())

# A deadline that is noticed later than this was missed because the event loop was held up; what the
# peer sent meanwhile may lie unread, so it gets as long again.
LATE = 0.25
# After the probe a poll is ended at once, but not more often than this: the client asks again until
# it has paused, and would spin if the answer to its probe is swallowed on the way.
NOOP_EVERY = 0.1
# How long a peer that broke the protocol, timed out or said goodbye may keep its socket.
CUT_AFTER = 0.5

# Takes the body of a polling answer, or None for HTTP 400.
Wake = Callable[[str | None], None]


class Socket(Protocol):
    """What a WebSocket transport does for its connection."""

    deflate: bool

    @property
    def buffered(self) -> int: ...
    @property
    def handling(self) -> bool: ...
    def write(self, data: bytes) -> None: ...
    def close(self, code: int) -> None: ...
    def abort(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Host(Protocol):
    """What a connection needs of the server that holds it."""

    options: EngineOptions
    counters: Counter[str]
    wheel: Wheel
    tick: float

    def clock(self) -> float: ...
    def deliver(self, sid: str, data: str | bytes) -> Awaitable[None] | None: ...
    def ended(self, connection: Connection, reason: str) -> None: ...
    def forget(self, connection: Connection) -> None: ...


class Connection:
    """One session. `data` is free for the layers above, `listener` hears high, low, ping, pong."""

    __slots__ = (
        "__weakref__",
        "_close_by",
        "_congested",
        "_connect_by",
        "_direct",
        "_environ",
        "_handling",
        "_host",
        "_noop_at",
        "_out",
        "_out_bytes",
        "_paused",
        "_ping_at",
        "_ping_marked",
        "_pong_by",
        "_posting",
        "_probed",
        "_probing",
        "_reason",
        "_resumed",
        "_socket",
        "_unanswered",
        "_upgrade_by",
        "_wake",
        "_window",
        "_window_count",
        "data",
        "failed",
        "listener",
        "remote",
        "sid",
        "slot",
        "state",
    )

    def __init__(
        self, host: Host, sid: str, remote: str, environ: Callable[[], dict[str, Any]]
    ) -> None:
        options = host.options
        now = host.clock()
        self._host = host
        self.sid = sid
        self.remote = remote
        self._environ = environ
        self.data: dict[str, Any] = {}
        self.listener: object | None = None
        self.state = State.OPENING
        # -- output
        # The socket of a session on WebSocket, and its write method while it takes everything.
        self._socket: Socket | None = None
        self._direct: Callable[[bytes], None] | None = None
        # What waits for a poll or the end of an upgrade: frames, and control packets as str.
        # Bound: buffer_limit bytes, beyond it the session is closed.
        self._out: deque[Frame | str] = deque()
        self._out_bytes = 0
        self._congested = False
        self._wake: Wake | None = None
        # -- input
        self._paused = False
        # Called at resume(), by the polling request that waits for it.
        self._resumed: Callable[[], None] | None = None
        self._handling = False
        # Ends the polling request whose body is being read or handled.
        self._posting: Callable[[], None] | None = None
        # Messages since the time in _window, for events_per_second.
        self._window = now
        self._window_count = 0
        # -- upgrade
        self._probing: Socket | None = None
        self._probed = False
        # -- deadlines, all on one clock; inf: none
        self.slot = 0
        self._ping_at = now + options.ping_interval
        self._pong_by = inf
        self._connect_by = now + options.connect_timeout if options.connect_timeout else inf
        self._upgrade_by = inf
        self._noop_at = inf
        self._close_by = inf
        # Pings on their way or with the client, and whether the listener heard the first of them.
        self._unanswered = 0
        self._ping_marked = False
        # Whether the peer broke the protocol.
        self.failed = False
        # Why the session ended, until the layer above has been told.
        self._reason: str | None = None

    # ---------------------------------------------------------------- what the layers above see

    @property
    def transport(self) -> str:
        return "polling" if self._socket is None else "websocket"

    @property
    def closed(self) -> bool:
        return self.state is State.CLOSED or self.state is State.CLOSING

    @property
    def environ(self) -> dict[str, Any]:
        """The handshake request, WSGI-like, built anew on each access."""
        return self._environ()

    @property
    def buffered(self) -> int:
        """Bytes not yet taken by the peer."""
        return self._out_bytes if self._socket is None else self._socket.buffered

    def write(self, data: bytes, frames: Sequence[Frame]) -> None:
        """Send frames; `data` is their joined `wire`. Never blocks; drops on a closed connection."""
        direct = self._direct
        if direct is not None:
            direct(data)
        else:
            self._write_aside(data, frames)

    def send(self, frame: Frame) -> None:
        """Send one frame."""
        self.write(frame.wire, (frame,))

    def establish(self) -> None:
        """Lift the connect timeout: the layer above has what it waited for."""
        if self._connect_by != inf:
            self._connect_by = inf
            self._schedule()

    def unestablish(self) -> None:
        """Start the connect timeout again."""
        if not self.closed and self._host.options.connect_timeout:
            self._connect_by = self._host.clock() + self._host.options.connect_timeout
            self._schedule()

    def pause(self) -> None:
        """Stop reading from this client; its pings go on, its pongs are not missed."""
        if not self._paused:
            self._paused = True
            if self._socket is not None:
                self._socket.pause()

    def resume(self) -> None:
        """Read again from this client."""
        if self._paused:
            self._paused = False
            if self._pong_by != inf:
                self._pong_by = self._host.clock() + self._host.options.ping_timeout
                self._schedule()
            if self._socket is not None:
                self._socket.resume()
            elif (resumed := self._resumed) is not None:
                self._resumed = None
                resumed()

    def close(self, goodbye: Goodbye = Goodbye.GOING_AWAY) -> None:
        """End the session: what was written leaves first, within close_timeout. Idempotent."""
        if self.closed:
            return
        self._leave(
            Reason.SERVER_DISCONNECT, goodbye.value, self._host.options.close_timeout, flush=True
        )

    # ---------------------------------------------------------------- opening

    def open(self, socket: Socket | None) -> None:
        """Send the handshake over `socket`, or queue it for the poll that asked."""
        options = self._host.options
        self._move(State.OPEN)
        hello = "0" + json.dumps(
            {
                "sid": self.sid,
                "upgrades": [] if socket is not None else ["websocket"],
                "pingInterval": round(options.ping_interval * 1000),
                "pingTimeout": round(options.ping_timeout * 1000),
                "maxPayload": options.max_payload,
            },
            separators=(",", ":"),
        )
        if socket is None:
            self._out.appendleft(hello)
            self._out_bytes += len(hello)
        else:
            socket.write(wire.frame(wire.TEXT, hello.encode()))
            self._take_over(socket)
        self._schedule()

    def refuse(self) -> None:
        """Forget a session that the layer above did not want; it is not told of an end."""
        self._move(State.CLOSED)
        self._release()

    # ---------------------------------------------------------------- input

    def receive(self, packet: str | bytes) -> Awaitable[None] | None:
        """Take one packet that came over the session's transport.

        Returns an awaitable where the layer above has not finished with it; the transport awaits it
        (through `settle`) before it hands over the next packet. Closes the session at an illegal one.
        """
        if self.closed:
            return None
        if not isinstance(packet, str):
            return self._deliver(packet)
        kind = packet[:1]
        if kind == packets.MESSAGE:
            return self._deliver(packet[1:])
        if packet == packets.PONG:
            self._pong()
        elif packet == packets.CLOSE:
            self._peer_closed()
        elif packet != packets.NOOP:
            self.fail("unexpected packet")
        return None

    async def settle(self, pending: Awaitable[None]) -> None:
        """Await what `receive` returned."""
        try:
            await pending
        except ProtocolError as error:
            self.fail(str(error))
        except Exception:
            logger.exception("a message handler failed")

    def begin(self) -> None:
        """Note that input is being handled: the end is told to the layer above afterwards."""
        self._handling = True

    def done(self) -> None:
        """Note that no input is being handled any more."""
        self._handling = False
        if self._reason is not None:
            self._tell()
        elif self._pong_by != inf:
            # Its pong may have waited behind what was handled.
            self._pong_by = max(self._pong_by, self._host.clock() + self._host.options.ping_timeout)
            self._schedule()

    def spend(self) -> float:
        """Count one message; return how many seconds to wait before the next (events_per_second)."""
        limit = self._host.options.events_per_second
        self._window_count += 1
        if not limit or self._window_count < limit:
            return 0.0
        now = self._host.clock()
        wait = self._window + 1.0 - now
        self._window_count = 0
        self._window = now if wait <= 0 else now + wait
        if wait > 0:
            self._host.counters["events throttled"] += 1
            return wait
        return 0.0

    @property
    def paused(self) -> bool:
        return self._paused

    def when_resumed(self, call: Callable[[], None]) -> None:
        """Call once after resume(), or at the end."""
        self._resumed = call

    # ---------------------------------------------------------------- polling

    def poll(self, wake: Wake) -> None:
        """Answer a poll now, or later through `wake`. Two at once end the session."""
        if self._wake is not None:
            first, self._wake = self._wake, None
            first(packets.CLOSE)
            wake(None)
            self.fail("two polls at once")
            return
        if self._host.clock() >= self._pong_by:
            self.expire(self._host.clock())
        if self.state is State.CLOSED or self._socket is not None:
            wake(None)
            return
        self._wake = wake
        if self._out:
            self._answer()
        elif self.state is State.UPGRADING and self._probed:
            self._schedule_noop()
        elif self.state is State.CLOSING:
            self._finish()

    def unpoll(self) -> None:
        """Note that the waiting poll was cut off."""
        self._wake = None
        if not self.closed:
            self._leave(Reason.TRANSPORT_ERROR, 1002, CUT_AFTER, flush=False)

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
        """Take a WebSocket to be probed; False: not now, and the session stays as it is."""
        if self.state is not State.OPEN or self._socket is not None:
            return False
        self._move(State.UPGRADING)
        self._probing = socket
        self._probed = False
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
            if self._wake is not None:
                self._schedule_noop()
        elif packet == packets.UPGRADE and self._probed and self._posting is None:
            self._finish_upgrade(socket)
        else:
            self._host.counters["upgrade abused"] += 1
            logger.debug("%s: unexpected packet in an upgrade", self.sid)
            self.abandon_upgrade(socket)

    def abandon_upgrade(self, socket: Socket) -> None:
        """Give up an upgrade, on either side's account; the session stays on polling."""
        if socket is not self._probing:
            return
        self._probing = None
        self._upgrade_by = self._noop_at = inf
        self._move(State.OPEN)
        self._schedule()
        socket.close(1002)

    def _finish_upgrade(self, socket: Socket) -> None:
        self._probing = None
        self._upgrade_by = self._noop_at = inf
        self._move(State.OPEN)
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake(packets.NOOP)
        out, self._out, self._out_bytes = self._out, deque(), 0
        self._take_over(socket)
        for entry in out:
            if isinstance(entry, str):
                if entry == packets.PING:
                    self._unanswered += 1
                socket.write(wire.frame(wire.TEXT, entry.encode()))
            else:
                self._write_socket(socket, entry.wire, (entry,))
        # If the queue was above the high mark, low() comes from the socket or, if it takes all, here.
        if self._congested and socket.buffered <= self._host.options.buffer_low:
            self.drained()
        if self._paused:
            socket.pause()
        self._schedule()

    def _take_over(self, socket: Socket) -> None:
        self._socket = socket
        if not socket.deflate and not self._congested:
            self._direct = socket.write

    # ---------------------------------------------------------------- the end

    def fail(self, why: str, code: int = 1002) -> None:
        """End the session of a peer that broke the protocol: one line at debug, counted."""
        self._host.counters[why] += 1
        self.failed = True
        if not self.closed:
            logger.debug("%s: %s", self.sid, why)
            self._leave(Reason.TRANSPORT_ERROR, code, CUT_AFTER, flush=False)

    def lost(self, reason: str) -> None:
        """Note that the session's socket is gone."""
        if self.state is State.CLOSED:
            return
        told = self.state is State.CLOSING
        self._move(State.CLOSED)
        self._release()
        if not told:
            self._end(reason)

    def _peer_closed(self) -> None:
        if self._socket is None:
            # The poll that waits, or the one that is on its way, gets a noop.
            self._out.clear()
            self._out.append(packets.NOOP)
        self._leave(Reason.TRANSPORT_CLOSE, 1000, CUT_AFTER, flush=True)

    def _leave(self, reason: str, code: int, within: float, *, flush: bool) -> None:
        """Go from any open state to closing, and on polling with nothing to flush to closed."""
        probing, self._probing = self._probing, None
        self._move(State.CLOSING)
        self._direct = None
        self._ping_at = self._pong_by = self._connect_by = self._upgrade_by = self._noop_at = inf
        self._close_by = self._host.clock() + within
        if probing is not None:
            probing.close(code)
        if self._socket is not None:
            self._socket.close(code)
            self._schedule()
        else:
            if not flush:
                self._out.clear()
            if self._wake is not None and self._out:
                self._answer()
            if self._out:
                self._schedule()
            else:
                self._finish()
        self._end(reason)

    def _finish(self) -> None:
        """Go from closing to closed."""
        self._move(State.CLOSED)
        self._release()

    def _release(self) -> None:
        """Let go of everything; the one place where a session is cleaned up."""
        self._host.wheel.drop(self)
        self._direct = None
        self._out.clear()
        self._out_bytes = 0
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
            probing.close(1002)
        if resumed is not None:
            resumed()
        if posting is not None:
            posting()
        self._host.forget(self)

    def _end(self, reason: str) -> None:
        self._reason = reason
        if not self._handling:
            self._tell()

    def _tell(self) -> None:
        reason, self._reason = self._reason, None
        if reason is not None:
            self._host.ended(self, reason)

    def _move(self, state: State) -> None:
        if state not in MOVES[self.state]:
            raise RuntimeError(f"no way from {self.state.value} to {state.value}")
        self.state = state

    # ---------------------------------------------------------------- output

    def _write_aside(self, data: bytes, frames: Sequence[Frame]) -> None:
        if self.closed:
            return
        if self._socket is not None:
            self._write_socket(self._socket, data, frames)
            return
        self._out.extend(frames)
        self._queued(len(data))

    def _write_socket(self, socket: Socket, data: bytes, frames: Sequence[Frame]) -> None:
        if socket.buffered + len(data) > self._host.options.buffer_limit:
            self.fail("output buffer full", Goodbye.TRY_AGAIN.value)
            return
        if socket.deflate:
            threshold = self._host.options.compression_threshold
            data = b"".join([frame.deflated(threshold) for frame in frames])
        socket.write(data)

    def _queued(self, size: int) -> None:
        self._out_bytes += size
        options = self._host.options
        if self._out_bytes > options.buffer_limit:
            self.fail("output buffer full")
            return
        if self._wake is not None:
            self._answer()
        if self._out_bytes > options.buffer_high and not self._congested:
            self.congested()

    def _answer(self) -> None:
        """Give the waiting poll what it may carry."""
        wake, self._wake = self._wake, None
        if wake is None:
            return
        out = self._out
        taken: list[str] = []
        room = self._host.options.answer_packets
        size = 0
        while out and room and size <= self._host.options.max_payload:
            entry = out[0]
            if isinstance(entry, str):
                out.popleft()
                self._out_bytes -= len(entry)
                if entry == packets.PING:
                    self._unanswered += 1
                taken.append(entry)
                room -= 1
                continue
            parts = entry.packets
            if len(parts) > room:
                if taken:
                    break
                # More than fit in any answer: the only frames that are ever split.
                parts = parts[:room]
                out[0] = rest = Frame(*entry.packets[room:])
                self._out_bytes -= len(entry.wire) - len(rest.wire)
            else:
                out.popleft()
                self._out_bytes -= len(entry.wire)
            room -= len(parts)
            size += len(entry.wire)
            taken.extend(
                packets.MESSAGE + part if isinstance(part, str) else encode_binary(part)
                for part in parts
            )
        if not out:
            self._out_bytes = 0
        wake(encode_payload(taken))
        if self._congested and self._out_bytes <= self._host.options.buffer_low:
            self.drained()

    def congested(self) -> None:
        """Note that the high mark was passed."""
        self._direct = None
        if not self._congested:
            self._congested = True
            self._notify("high")

    def drained(self) -> None:
        """Note that what waited fell below the low mark."""
        if self._congested:
            self._congested = False
            if self._socket is not None and not self._socket.deflate and not self.closed:
                self._direct = self._socket.write
            self._notify("low")

    def _notify(self, name: str) -> None:
        method = getattr(self.listener, name, None)
        if method is not None:
            method()

    # ---------------------------------------------------------------- heartbeat and deadlines

    def _deliver(self, data: str | bytes) -> Awaitable[None] | None:
        try:
            return self._host.deliver(self.sid, data)
        except ProtocolError as error:
            self.fail(str(error))
        except Exception:
            logger.exception("a message handler failed")
        return None

    def _ping(self, now: float) -> None:
        options = self._host.options
        # From the time it was due, so that the heartbeat does not drift by the wheel's ticks.
        due = max(self._ping_at, now - 2 * self._host.tick)
        self._ping_at = due + options.ping_interval
        if self._pong_by == inf:
            self._pong_by = due + options.ping_timeout
        if not self._ping_marked and not self._unanswered:
            self._ping_marked = True
            self._notify("ping")
            if self.closed:
                return
        if self._socket is not None:
            self._unanswered += 1
            self._socket.write(PING_WIRE)
        elif packets.PING not in self._out:
            self._out.append(packets.PING)
            self._queued(1)

    def _pong(self) -> None:
        if not self._unanswered:
            # Before any ping was taken it proves nothing.
            self._host.counters["stray pong"] += 1
            return
        self._unanswered -= 1
        if not self._unanswered:
            self._pong_by = inf
            if self._ping_at == inf:
                self._ping_at = self._host.clock()
            self._schedule()
        if self._ping_marked:
            self._ping_marked = False
            self._notify("pong")

    def expire(self, now: float) -> None:
        """Do what is due: the wheel's call."""
        if self.state is State.CLOSING:
            if now >= self._close_by:
                self._finish()
                return
        elif now >= self._pong_by and self._pong_due(now):
            self._leave(Reason.PING_TIMEOUT, 1001, CUT_AFTER, flush=False)
            return
        elif now >= self._connect_by:
            self._host.counters["connect timeout"] += 1
            logger.debug("%s: connect timeout", self.sid)
            self._leave(Reason.SERVER_DISCONNECT, 1002, CUT_AFTER, flush=False)
            return
        if now >= self._upgrade_by and self._probing is not None:
            self._host.counters["upgrade timeout"] += 1
            self.abandon_upgrade(self._probing)
        if now >= self._noop_at and self._wake is not None:
            self._schedule_noop()
        if now >= self._ping_at:
            if self._pong_by != inf and not self._blocked:
                # Not before the pong of the last one: ping_timeout is longer than ping_interval.
                self._ping_at = inf
            else:
                self._ping(now)
        self._schedule()

    @property
    def _blocked(self) -> bool:
        """Whether a pong may have arrived that we did not look at."""
        return self._paused or self._handling

    def _pong_due(self, now: float) -> bool:
        if self._blocked:
            self._pong_by = now + self._host.options.ping_timeout
        elif now - self._pong_by > LATE:
            self._pong_by = now + LATE
        else:
            return True
        return False

    def _schedule_noop(self) -> None:
        now = self._host.clock()
        if now >= self._noop_at:
            self._noop_at = now + NOOP_EVERY
            wake, self._wake = self._wake, None
            if wake is not None:
                wake(packets.NOOP)
        self._schedule()

    def _schedule(self) -> None:
        due = min(self._ping_at, self._pong_by, self._connect_by, self._upgrade_by, self._close_by)
        if self._wake is not None and self._noop_at < due:
            due = self._noop_at
        if due != inf:
            self._host.wheel.set(self, due)
        else:
            self._host.wheel.drop(self)
