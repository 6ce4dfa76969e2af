"""One session on the node that serves it: what was written to its client, and what waits.

    PARKED ──a batch is asked for──▶ REPLAYING ──nothing left──▶ LIVE
      ▲                                  │                         │
      └──────────── more left ───────────┴─ buffer full, bus lost ─┘          any ──▶ CLOSED

Only a LIVE session gets messages as they come. Whatever else happens to it ends in a replay from the last
offset that was written: that is how it begins, and how a slow reader, a broken bus or a lapsed lease are mended.
What is heard while a batch is on its way is kept, as it may be the last one; what is heard in between is not.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hub.engineio.core.prepared import PreparedMessage
from hub.message import StoredMessage, event_frame
from hub.store.results import ReplayBatch, SessionClaim

# What is kept while a replay call or a subscription is under way: messages, and bytes of them. Past either they are
# read from the logs instead.
KEPT, KEPT_BYTES = 5000, 4 * 1024 * 1024


class Peer(Protocol):
    """What a session needs of its connection; the engine's Connection is one."""

    listener: Any
    # Writes finished frames to the socket, where nothing stands in the way; else None, and `write` knows what to do.
    direct: Callable[[bytes], None] | None

    @property
    def closed(self) -> bool: ...

    @property
    def buffered(self) -> int: ...

    def write(self, wire: bytes, frames: Sequence[PreparedMessage]) -> None: ...


class SessionState(enum.Enum):
    REPLAYING = "replaying"
    LIVE = "live"
    PARKED = "parked"
    CLOSED = "closed"


class MessageBuffer(list[StoredMessage]):
    """Messages that wait, and the bytes of their bodies."""

    size = 0


class Session:
    """A session and the connection that owns it. It listens to its connection's buffer and pings.

    `on_slow` is called when the client does not keep up. `bare`: the client wants `(data)` alone; `manual`: only
    its acknowledgements prove anything.
    """

    __slots__ = (
        "_at_ping",
        "_drained",
        "_freed",
        "at_loss",
        "bare",
        "client_id",
        "connection",
        "data",
        "direct",
        "dirty",
        "doubtful",
        "held",
        "holding",
        "joins",
        "kept",
        "manual",
        "named",
        "on_slow",
        "order",
        "parking",
        "peer",
        "proven",
        "sent",
        "stale",
        "state",
        "taken",
        "task",
    )  # fmt: skip

    def __init__(
        self,
        peer: Peer,
        connection: str,
        taken: SessionClaim,
        *,
        named: bool,
        bare: bool = False,
        manual: bool = False,
        on_slow: Callable[[Session], None],
    ) -> None:
        self.peer = peer
        # Names the connection in every script, which refuses any but the owner.
        self.connection = connection
        self.taken = taken
        self.client_id = taken.client_id
        self.named = named
        self.bare = bare
        self.manual = manual
        self.on_slow = on_slow
        self.state = SessionState.PARKED
        # Its connection's place among those that took sessions on this node.
        self.order = 0
        # Live, nothing held, plain: messages may be written without a second look.
        self.direct = False
        # The offset at which each room was joined, or the end of a gap that was told; nothing up to it is delivered.
        self.joins = dict(taken.rooms)
        # Everything up to here was written to the connection.
        self.sent = taken.position
        # Everything up to here is known to have arrived; written back while `dirty`.
        self.proven = taken.position
        self.dirty = False
        self._at_ping = taken.position
        # Where it was when the bus was last lost, or what logs have led to since; and the same when Redis last changed, of
        # which this node may be told late what was forgotten. None: it has not since it is here.
        self.at_loss = taken.position
        self.doubtful: int | None = None
        # Something may have been missed: be replayed again before going live.
        self.stale = False
        # Its buffer was full: it is to be parked before it is replayed.
        self.parking = False
        # Heard while the replay call that may be the last one is under way; None: too much.
        self.kept: MessageBuffer | None = MessageBuffer()
        # Subscriptions under way, and what was heard meanwhile; None: too much.
        self.holding = 0
        self.held: MessageBuffer | None = MessageBuffer()
        # The task that catches up, at most one.
        self.task: asyncio.Task[None] | None = None
        self._drained = asyncio.Event()
        self._drained.set()
        self._freed = asyncio.Event()
        self._freed.set()

    # -- writing

    def write(self, *frames: PreparedMessage) -> None:
        """Write frames in one piece."""
        self.peer.write(b"".join([frame.wire for frame in frames]), frames)

    def tell(self, event: str, data: Any, *before: PreparedMessage) -> None:
        """Write one of the hub's own events behind `before`; it ends with the position, and moves nothing."""
        self.write(*before, event_frame(event, data, None if self.bare else self.sent))

    def deliver(self, message: StoredMessage) -> None:
        """Write a live message, or keep it, or leave it to the replay that is to come."""
        if self.holding:  # rule: sub_holds_all
            self.held = _keep(self.held, message)
        elif self.state is SessionState.LIVE:
            # What is not above the last written offset was written; what is not above the join came before it.
            join = self.joins.get(message.room)
            if (
                join is None
                or message.offset <= self.sent  # rule: sent_filter
                or message.offset <= join
            ):
                return
            if message.skip != self.client_id:
                self.write(message.bare_frame if self.bare else message.frame)
            self.sent = message.offset
        elif self.state is SessionState.REPLAYING:
            self.kept = _keep(self.kept, message)  # rule: buffer_replay

    def write_batch(self, batch: ReplayBatch) -> None:
        """Write what a replay handed out: gaps first, each ending with the position before it."""
        self._tell_gaps(batch)  # rule: gap_early/1, gap_offset/2
        joins = self.joins
        frames = [
            m.bare_frame if self.bare else m.frame
            for m in batch.messages
            if m.offset > joins.get(m.room, m.offset)  # rule: gen_in_key/3, replay_filters/2
        ]
        if frames:
            self.peer.write(b"".join([frame.wire for frame in frames]), frames)
        self.sent = max(self.sent, batch.position)  # rule: gap_early/2, gap_offset/1

    def _tell_gaps(self, batch: ReplayBatch) -> None:
        """Write the gaps of a batch, but for rooms that were left while the batch was in progress."""
        for gap in batch.gaps:
            if gap.room in self.joins:
                self.tell(
                    "hub:gap",
                    {
                        "room": gap.room, "reason": gap.reason, "after": str(gap.after), "before": str(gap.before),
                        "dropped": gap.dropped,
                    },
                )  # fmt: skip

    # -- moves

    def begin_batch(self) -> None:
        """A replay call goes out: from now on what is heard is kept."""
        self.state = SessionState.REPLAYING
        self.direct = False
        self.stale = False
        self.kept = MessageBuffer()

    def end_batch(self) -> None:
        """The call is over. If that did not make it live, what comes now is for the next one to read."""
        if self.state is SessionState.REPLAYING:
            self.state = SessionState.PARKED
        self.kept = MessageBuffer()

    def go_live(self, live_from: int) -> None:
        """Take up the live stream behind `live_from`, unless something was missed meanwhile."""
        self.sent = max(self.sent, live_from)
        kept, self.kept = self.kept, MessageBuffer()
        if self.stale or kept is None:
            return
        self.state = SessionState.LIVE
        self.direct = not self.holding and not self.bare
        # A buffer that is full already gets the slow reader's treatment: nothing more is written.
        if not self._drained.is_set():
            self.on_slow(self)
        for message in sorted(kept, key=_offset):
            self.deliver(message)

    def go_away(self) -> None:
        """Stop being live: what comes now is for a replay to read."""
        if self.state is SessionState.LIVE:
            self.state = SessionState.PARKED
        self.direct = False

    def hold(self) -> None:
        """Hold every live message back, until a subscription is answered."""
        self.holding += 1
        self.direct = False
        self._freed.clear()

    def release(self) -> bool:
        """Deliver what was held; False: it was too much, and a replay must read it."""
        self.holding -= 1
        if self.holding:
            return True
        self._freed.set()
        held, self.held = self.held, MessageBuffer()
        if held is None:
            self.stale = True
            return self.state is not SessionState.LIVE
        self.direct = self.state is SessionState.LIVE and not self.bare
        for message in sorted(held, key=_offset):
            self.deliver(message)
        return True

    def close(self) -> None:
        self.state = SessionState.CLOSED
        self.direct = False
        self.peer.listener = None
        self._drained.set()
        self._freed.set()

    @property
    def closed(self) -> bool:
        return self.state is SessionState.CLOSED

    async def drained(self) -> None:
        """Wait until the socket's buffer is below the low mark."""
        await self._drained.wait()

    async def freed(self) -> None:
        """Wait until no subscription is under way."""
        while self.holding and not self.closed:
            await self._freed.wait()

    def prove(self, offset: int) -> None:
        """Everything up to an offset has arrived; not more than was sent counts."""
        offset = min(offset, self.sent)
        if offset > self.proven:
            self.proven = offset
            self.dirty = True

    # -- what the connection tells (engine)

    def high(self) -> None:
        self._drained.clear()
        if self.state is SessionState.LIVE:
            self.on_slow(self)

    def low(self) -> None:
        self._drained.set()

    def ping(self) -> None:
        self._at_ping = self.sent

    def pong(self) -> None:
        """The answer to a ping proves that everything written before that ping arrived."""
        if not self.manual:
            self.prove(self._at_ping)


def _offset(message: StoredMessage) -> int:
    return message.offset


def _keep(kept: MessageBuffer | None, message: StoredMessage) -> MessageBuffer | None:
    """Keep one more; None: what there is would be too much."""
    if kept is None or len(kept) >= KEPT or kept.size >= KEPT_BYTES:
        return None
    kept.append(message)
    kept.size += len(message.body)
    return kept
