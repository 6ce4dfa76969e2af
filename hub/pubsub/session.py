"""One session on the node that serves it: what was written to its client, and what waits.

    PARKED ──a batch is asked for──▶ REPLAYING ──nothing left──▶ LIVE
      ▲                                  │                         │
      └──────────── more left ───────────┴─ buffer full, bus lost ─┘          any ──▶ CLOSED

Only a LIVE session gets messages as they come. Everything else that happens to a session ends in a replay from the last
offset that was written to it: a session begins so, and a slow reader, a broken bus and a lapsed lease are mended so.
Messages that arrive while a batch is asked for are buffered, since the batch may be the last one; others are not.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Any, Protocol

from hub.engineio.core.connection import Connection
from hub.engineio.core.interfaces import ConnectionEvents
from hub.engineio.core.prepared import PreparedMessage
from hub.message import StoredMessage, event_frame
from hub.store.results import ReplayBatch, ReplayCursor, SessionClaim

# What is buffered while a replay call or a subscribe is in progress: messages, and bytes of them. Beyond either bound the
# messages are read from the logs instead.
BUFFERED, BUFFERED_BYTES = 5000, 4 * 1024 * 1024


class SlowReaders(Protocol):
    """Takes care of clients that do not keep up: `hub.pubsub.sessions.Sessions`."""

    def park_slow(self, session: Session, /) -> None:
        """Park a session whose socket buffer is full; it is replayed when the buffer has drained."""


class SessionState(enum.Enum):
    REPLAYING = "replaying"
    LIVE = "live"
    PARKED = "parked"
    CLOSED = "closed"


class MessageBuffer(list[StoredMessage]):
    """Messages that wait, and the bytes of their bodies."""

    size = 0


class Session(ConnectionEvents):
    """A session and the connection that owns it. The session listens to its connection's buffer and pings."""

    __slots__ = (
        "_at_answer",
        "_at_ping",
        "_delivery_resumed",
        "_drained",
        "acked",
        "buffered_in_replay",
        "buffered_in_subscribe",
        "claim",
        "client_id",
        "connection",
        "connection_id",
        "data_only",
        "dirty",
        "fast_path",
        "joins",
        "manual_acks",
        "named",
        "needs_park",
        "needs_replay",
        "order",
        "pauses",
        "position_at_bus_loss",
        "replay_cursor",
        "reset_from",
        "sent",
        "slow_readers",
        "state",
        "task",
    )

    def __init__(
        self,
        connection: Connection,
        connection_id: str,
        claim: SessionClaim,
        *,
        named: bool,
        data_only: bool = False,
        manual_acks: bool = False,
        offsetless: bool = False,
        slow_readers: SlowReaders,
    ) -> None:
        self.connection = connection
        # Names the connection in every script, which refuses any but the owner. No two sessions have the same.
        self.connection_id = connection_id
        self.claim = claim
        self.client_id = claim.client_id
        # True: the client gave its name, so the session is parked and not ended when the client disconnects.
        self.named = named
        # True: events go out as `(data)` alone, without meta and offset.
        self.data_only = data_only
        # True: only the verb `ack` moves the session's position.
        self.manual_acks = manual_acks
        self.slow_readers = slow_readers
        self.state = SessionState.PARKED
        # Its connection's place among those that claimed sessions on this node.
        self.order = 0
        # True: live, not paused, events in full: messages may be written without a second look.
        self.fast_path = False
        # The offset at which each room was joined, or the end of a reported gap; nothing up to it is delivered.
        self.joins = dict(claim.rooms)
        # Everything up to this offset was written to the connection.
        self.sent = claim.position
        # Everything up to this offset is known to have arrived.
        self.acked = claim.position
        # True: `acked` has moved since it was last written to Redis.
        self.dirty = False
        self._at_ping = claim.position
        # How far everything was written when the last poll was answered; None: the client returns its offset, or may.
        self._at_answer = claim.position if offsetless else None
        # Kept by the loss detector: how far the session was when the bus was last lost, and from where it counts what
        # Redis has lost (None: Redis has not changed since the session is here).
        self.position_at_bus_loss = claim.position
        self.reset_from: int | None = None
        # Of the last batch, if more is left; it goes with `sent`, the position that this batch led to.
        self.replay_cursor: ReplayCursor | None = None
        # True: something may have been missed, so the session has to be replayed again before it goes live.
        self.needs_replay = False
        # True: its socket buffer was full, so it has to be parked before it is replayed.
        self.needs_park = False
        # Messages received while the replay call that may be the last one is in progress; None: there were too many.
        self.buffered_in_replay: MessageBuffer | None = MessageBuffer()
        # How many subscribes are in progress, and the messages received meanwhile; None: there were too many.
        self.pauses = 0
        self.buffered_in_subscribe: MessageBuffer | None = MessageBuffer()
        # The task that replays the session; at most one.
        self.task: asyncio.Task[None] | None = None
        self._drained = asyncio.Event()
        self._drained.set()
        self._delivery_resumed = asyncio.Event()
        self._delivery_resumed.set()

    # -- writing

    def write(self, *frames: PreparedMessage) -> None:
        """Write frames in one piece."""
        self.connection.write(b"".join([frame.wire for frame in frames]), frames)

    def send_event(self, event: str, data: Any, *before: PreparedMessage) -> None:
        """Write one of the hub's own events after `before`. It ends with the position, and does not move it."""
        self.write(*before, event_frame(event, data, None if self.data_only else self.sent))

    def deliver(self, message: StoredMessage) -> None:
        """Write a live message, or buffer it, or leave it to the replay that will come."""
        if self.pauses:  # rule: sub_holds_all
            self.buffered_in_subscribe = _buffer(self.buffered_in_subscribe, message)
        elif self.state is SessionState.LIVE:
            # A message up to `sent` was written already; one up to the join was published before it.
            join = self.joins.get(message.room)
            if (
                join is None
                or message.offset <= self.sent  # rule: sent_filter
                or message.offset <= join
            ):
                return
            if message.skip_client != self.client_id:
                self.write(message.data_only_frame if self.data_only else message.frame)
            self.sent = message.offset
        elif self.state is SessionState.REPLAYING:
            self.buffered_in_replay = _buffer(
                self.buffered_in_replay, message
            )  # rule: buffer_replay

    def write_batch(self, batch: ReplayBatch) -> None:
        """Write what a replay handed out: gaps first, each ending with the position before it."""
        self._write_gaps(batch)  # rule: gap_early/1, gap_offset/2
        joins = self.joins
        frames = [
            m.data_only_frame if self.data_only else m.frame
            for m in batch.messages
            if m.offset > joins.get(m.room, m.offset)  # rule: gen_in_key/3, replay_filters/2
        ]
        if frames:
            self.connection.write(b"".join([frame.wire for frame in frames]), frames)
        self.sent = max(self.sent, batch.position)  # rule: gap_early/2, gap_offset/1
        self.replay_cursor = batch.cursor

    def _write_gaps(self, batch: ReplayBatch) -> None:
        """Write the gaps of a batch, but for rooms that were left while the batch was in progress."""
        for gap in batch.gaps:
            if gap.room in self.joins:
                self.send_event(
                    "hub:gap",
                    {
                        "room": gap.room, "reason": gap.reason, "after": str(gap.after), "before": str(gap.before),
                        "dropped": gap.dropped,
                    },
                )  # fmt: skip

    # -- moves

    def begin_batch(self) -> None:
        """Note that a replay call goes out: what is received from now on is buffered."""
        self.state = SessionState.REPLAYING
        self.fast_path = False
        self.needs_replay = False
        self.buffered_in_replay = MessageBuffer()

    def end_batch(self) -> None:
        """Note that the call is over. Unless it made the session live, what is received now is for the next call to read."""
        if self.state is SessionState.REPLAYING:
            self.state = SessionState.PARKED
        self.buffered_in_replay = MessageBuffer()

    def go_live(self, live_from: int) -> None:
        """Take up the live stream after the offset `live_from`, unless something was missed meanwhile."""
        self.sent = max(self.sent, live_from)
        buffered, self.buffered_in_replay = self.buffered_in_replay, MessageBuffer()
        if self.needs_replay or buffered is None:
            return
        self.state = SessionState.LIVE
        self.fast_path = not self.pauses and not self.data_only
        # A socket buffer that is full already: the client counts as slow at once, and nothing more is written.
        if not self._drained.is_set():
            self.slow_readers.park_slow(self)
        for message in sorted(buffered, key=_offset):
            self.deliver(message)

    def go_away(self) -> None:
        """Stop being live: what is received now is for a replay to read."""
        if self.state is SessionState.LIVE:
            self.state = SessionState.PARKED
        self.fast_path = False

    def pause_delivery(self) -> None:
        """Buffer every live message until a subscribe is answered; it is owed a `resume_delivery`."""
        self.pauses += 1
        self.fast_path = False
        self._delivery_resumed.clear()

    def resume_delivery(self) -> bool:
        """Deliver what was buffered. False: it was too much, and a replay must read it."""
        self.pauses -= 1
        if self.pauses:
            return True
        self._delivery_resumed.set()
        buffered, self.buffered_in_subscribe = self.buffered_in_subscribe, MessageBuffer()
        if buffered is None:
            self.needs_replay = True
            return self.state is not SessionState.LIVE
        self.fast_path = self.state is SessionState.LIVE and not self.data_only
        for message in sorted(buffered, key=_offset):
            self.deliver(message)
        return True

    def close(self) -> None:
        """Serve the connection no more; tasks that wait for the session go on."""
        self.state = SessionState.CLOSED
        self.fast_path = False
        self.connection.listener = None
        self._drained.set()
        self._delivery_resumed.set()

    @property
    def closed(self) -> bool:
        return self.state is SessionState.CLOSED

    async def wait_drained(self) -> None:
        """Wait until the socket's buffer is below the low mark."""
        await self._drained.wait()

    async def wait_delivery_resumed(self) -> None:
        """Wait until no subscribe is in progress."""
        while self.pauses and not self.closed:
            await self._delivery_resumed.wait()

    @property
    def offsetless(self) -> bool:
        """Return whether the client returns no offset, so that what has arrived is for the hub to find out."""
        return self._at_answer is not None

    def ping_unproven(self) -> None:
        """Ping the client, unless all that was written is known to have arrived."""
        if self.acked < self.sent:
            self.connection.ping_now()

    def commit(self, offset: int) -> None:
        """Note that everything up to an offset has arrived; not more than was sent counts."""
        offset = min(offset, self.sent)
        if offset > self.acked:
            self.acked = offset
            self.dirty = True

    # -- what the connection reports (ConnectionEvents)

    def on_high(self) -> None:
        """The socket's buffer has passed the high mark."""
        self._drained.clear()
        if self.state is SessionState.LIVE:
            self.slow_readers.park_slow(self)

    def on_low(self) -> None:
        """The socket's buffer has fallen below the low mark."""
        self._drained.set()

    def on_ping(self) -> None:
        """A ping was written."""
        self._at_ping = self.sent

    def on_pong(self) -> None:
        """The ping was answered, which proves that everything written before it has arrived."""
        if not self.manual_acks:
            self.commit(self._at_ping)

    def on_poll_answered(self) -> None:
        """The response to a poll has all that was written."""
        if self._at_answer is not None:
            self._at_answer = self.sent

    def on_poll(self) -> None:
        """The client polls again, which proves that it has got the response before."""
        if self._at_answer is not None:
            self.commit(self._at_answer)


def _offset(message: StoredMessage) -> int:
    return message.offset


def _buffer(buffer: MessageBuffer | None, message: StoredMessage) -> MessageBuffer | None:
    """Add one more message; None: it would be too much."""
    if buffer is None or len(buffer) >= BUFFERED or buffer.size >= BUFFERED_BYTES:
        return None
    buffer.append(message)
    buffer.size += len(message.body)
    return buffer
