"""Calls the handlers of messages, in offset order, one at a time, once for each, and moves the position.

Events that have arrived wait in a queue with a bound. A full queue stops the reading of the connection,
and the hub then keeps further messages in the session's inbox. While a verb waits for its answer, reading
continues up to the hard bound, because the answer arrives after those messages.

While no connection is open the delivery is paused. So a connection that breaks while it is being opened
changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from hub.client.position import Position
from hub.errors import HubError, Unavailable
from hub.model import RESERVED_PREFIX, Gap, Meta, SessionInfo, is_event, is_offset, offset_int

HARD_BOUND_FACTOR = 10  # hard bound of the queue / its bound
MAX_GAPS = 1000  # gaps that `HubClient.gaps` keeps
RETRY_MIN, RETRY_MAX = 0.1, 5.0  # seconds between calls of a handler that raises

EventHandler = Callable[..., Any]

log = logging.getLogger("hub.client")


class HandlerFailed(HubError):
    """A handler raised at each of its attempts. The position stays before the message."""

    code = "internal"


class Delivery:
    """The queue between the connection and the handlers, and the loop that empties it."""

    def __init__(
        self, position: Position, *, manual_acks: bool, max_queued: int, attempts: int
    ) -> None:
        self.position = position
        # By event name; "*" has the handler of events without one.
        self.handlers: dict[str, EventHandler] = {}
        self.gap_handler: EventHandler | None = None
        # Newest last. A gap replaces those that it contains.
        self.gaps: deque[Gap] = deque(maxlen=MAX_GAPS)
        self._manual_acks = manual_acks
        self._max_queued = max_queued
        self._attempts = attempts
        # Offset of the newest message that was handled; one that is not newer is a repeat.
        self._newest_handled = 0
        # Events as they arrived, each its name and its arguments; up to the hard bound.
        self._queue: deque[list[Any]] = deque()
        # Rooms of a lost session, each with the offset before which its messages are lost. Their gaps are
        # reported before the queue is handled.
        self._lost_rooms: dict[str, str] = {}
        # True while no connection is open.
        self._paused = True
        # Verbs that wait for their answer. While there are any, a full queue does not stop the reading.
        self._answers_awaited = 0
        # Set when `run` may have something to do.
        self._work_arrived = asyncio.Event()
        # Set when a reader that waits in `enqueue` may continue.
        self._reading_resumed = asyncio.Event()
        self._closed = False

    async def enqueue(self, event: list[Any]) -> None:
        """Queue an event that arrived, and return when the next one may be read.

        Raises ValueError where the queue has reached its hard bound: the connection has to be closed, and
        the next one brings the rest. While paused, the rest is dropped and `resume` raises, because the
        answers that the opening of the connection waits for arrive after it.
        """
        if not self._at_hard_bound:
            self._queue.append(event)
            self._work_arrived.set()
        while len(self._queue) >= self._max_queued:
            if self._at_hard_bound and not self._paused:
                raise ValueError("the handlers are too slow for the messages that wait")
            if self._answers_awaited:
                return
            self._reading_resumed.clear()
            await self._reading_resumed.wait()

    @property
    def _at_hard_bound(self) -> bool:
        return len(self._queue) >= self._max_queued * HARD_BOUND_FACTOR

    @contextlib.contextmanager
    def reading_beyond_bound(self) -> Iterator[None]:
        """Let `enqueue` return though the queue is full: an answer arrives after the events in it."""
        self._answers_awaited += 1
        self._reading_resumed.set()
        try:
            yield
        finally:
            self._answers_awaited -= 1

    def add_lost_room(self, room: str, before: str) -> None:
        """Report a gap of a room soon: from the position of that time to the offset `before`."""
        self._lost_rooms[room] = before
        self._work_arrived.set()

    def pause(self) -> None:
        """Handle nothing until `resume`, and drop the queue, which the next connection brings again.

        Lost rooms stay: the hub does not report their gaps.
        """
        self._paused = True
        self._queue.clear()
        self._reading_resumed.set()

    def resume(self) -> None:
        """Handle what has arrived: a connection is open.

        Raises Unavailable where more has arrived than the queue may hold; the next connection brings it.
        """
        if self._at_hard_bound:
            raise Unavailable("too many messages arrived while the connection was being opened")
        self._paused = False
        self._work_arrived.set()

    def close(self) -> None:
        """Let `run` return when the handler that is running has; to stop it earlier, cancel its task."""
        self._closed = True
        self.pause()
        self._work_arrived.set()

    async def run(self) -> None:
        """Handle events until closed; raise HandlerFailed when a handler has used its attempts."""
        while not self._closed:
            if self._paused or not (self._lost_rooms or self._queue):
                self._work_arrived.clear()
                await self._work_arrived.wait()
            elif self._lost_rooms:
                room = next(iter(self._lost_rooms))
                before = self._lost_rooms.pop(room)
                await self._report_gap(Gap(room, "expired", self.position.offset or "0", before))
            else:
                event = self._queue.popleft()
                self._reading_resumed.set()
                await self._handle_event(*event)

    async def _report_gap(self, gap: Gap) -> None:
        """Keep a gap and call its handler, unless it was reported before."""
        if gap in self.gaps:
            return
        others = [earlier for earlier in self.gaps if not gap.contains(earlier)]
        self.gaps.clear()
        self.gaps.extend([*others, gap])
        if self.gap_handler is not None:
            await self._call_handler(self.gap_handler, gap)

    async def _handle_event(self, event: str, *args: Any) -> None:
        offset = args[-1] if args and is_offset(args[-1]) else ""
        if event == "hub:session":
            session = msgspec.convert(args[0], SessionInfo)
            self.position.start_from(session, offset, manual_acks=self._manual_acks)
            self._newest_handled = offset_int(self.position.offset)
        elif event == "hub:gap":
            gap = self._part_not_handled(msgspec.convert(args[0], Gap))
            if gap is not None:
                await self._report_gap(gap)
        elif offset and len(args) == 3 and not event.startswith(RESERVED_PREFIX):
            await self._handle_message(event, args[0], args[1], offset)

    def _part_not_handled(self, gap: Gap) -> Gap | None:
        """Return the part of a gap that is newer than everything handled; None: there is none.

        With manual acknowledgements the hub counts a gap from the newest one that it has received. Messages
        after that may have arrived over an earlier connection and been handled.
        """
        if self._newest_handled <= offset_int(gap.after):
            return gap
        if self._newest_handled + 1 >= offset_int(gap.before):
            return None
        # How many messages are lost of this part nobody knows.
        return msgspec.structs.replace(gap, after=str(self._newest_handled), dropped=None)

    async def _handle_message(
        self, event: str, data: Any, wire_meta: dict[str, Any], offset: str
    ) -> None:
        if offset_int(offset) <= self._newest_handled:
            return
        meta = Meta(wire_meta["room"], wire_meta.get("from"), offset)
        if not is_event(event):
            log.warning(
                "skipping a message of room %r: its event is named %r", meta.room, event[:64]
            )
        elif handler := self.handlers.get(event):
            await self._call_handler(handler, data, meta)
        elif handler := self.handlers.get("*"):
            await self._call_handler(handler, event, data, meta)
        self._newest_handled = offset_int(offset)
        if not self._manual_acks:
            self.position.advance(offset)

    async def _call_handler(self, handler: EventHandler, *args: Any) -> None:
        """Call a handler until it returns, with growing pauses, `attempts` times at most."""
        pause = RETRY_MIN
        for attempt in range(1, self._attempts + 1):
            try:
                result = handler(*args)
                if inspect.isawaitable(result):
                    await result
                return
            except (Exception, asyncio.CancelledError) as error:  # whatever the application raises
                # A CancelledError may also come from something that the handler awaited.
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                    raise
                name = getattr(handler, "__qualname__", repr(handler))
                log.exception("handler %s raised (%d of %d)", name, attempt, self._attempts)
                if attempt == self._attempts:
                    raise HandlerFailed(f"handler {name} raised {error!r}") from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_MAX)
