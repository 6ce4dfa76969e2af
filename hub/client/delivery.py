"""Hands messages to handlers: in offset order, one at a time, each once, and moves the position.

What has arrived waits in a queue with a bound. A full queue stops the reading of the connection,
so that the hub holds the rest in the session's inbox; only while a verb waits for its answer does
reading go on, up to `HARD` times the bound, because the answer comes behind those messages.

While no connection is open (`hold`) nothing is handled: what one brings that breaks while it is
being opened moves nothing.
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
from hub.model import RESERVED_PREFIX, Gap, Meta, SessionInfo, is_offset, offset_int

HARD = 10
GAPS_KEPT = 1000
RETRY_FIRST, RETRY_LONGEST = 0.1, 5.0  # seconds between calls of a handler that raises

Handler = Callable[..., Any]

log = logging.getLogger("hub.client")


class HandlerFailed(HubError):
    """A handler raised as often as it may; the position stays before its message."""

    code = "internal"


class Delivery:
    """The queue between the connection and the handlers, and the loop that empties it."""

    def __init__(self, position: Position, *, manual: bool, bound: int, attempts: int) -> None:
        self.position = position
        self.handlers: dict[str, Handler] = {}
        self.on_gap: Handler | None = None
        # Newest last. A gap that contains an earlier one has taken its place.
        self.gaps: deque[Gap] = deque(maxlen=GAPS_KEPT)
        self._manual = manual
        self._bound = bound
        self._attempts = attempts
        # The newest message handed to a handler; what is not newer is a repeat.
        self._seen = 0
        self._queue: deque[list[Any]] = deque()
        # Verbs that wait for their answer. While there are any, a full queue does not stop the reading.
        self._answers_awaited = 0
        # Rooms of a lost session, and up to where each is lost; told before the queue is handled.
        self._lost: dict[str, str] = {}
        self._held = True
        # Set where `run` may have something to do.
        self._changed = asyncio.Event()
        self._emptied = asyncio.Event()
        self._closed = False

    async def put(self, event: list[Any]) -> None:
        """Queue an event that arrived, and return when the next one may be read.

        Raises ValueError where the queue has reached its hard bound: the connection has to go, and
        the next one brings the rest. While held, the rest is dropped and `release` raises: the
        answers that the opening waits for come behind it.
        """
        if not self._overrun:
            self._queue.append(event)
            self._changed.set()
        while len(self._queue) >= self._bound:
            if self._overrun and not self._held:
                raise ValueError("the handlers are too far behind")
            if self._answers_awaited:
                return
            self._emptied.clear()
            await self._emptied.wait()

    @property
    def _overrun(self) -> bool:
        return len(self._queue) >= self._bound * HARD

    def lost(self, room: str, until: str) -> None:
        """Have a gap told, from the position as it is then: what lies before `until` is lost."""
        self._lost[room] = until
        self._changed.set()

    @contextlib.contextmanager
    def reading_beyond_bound(self) -> Iterator[None]:
        """Let `put` return though the queue is full: an answer arrives after the events in it."""
        self._answers_awaited += 1
        self._emptied.set()
        try:
            yield
        finally:
            self._answers_awaited -= 1

    def hold(self) -> None:
        """Handle nothing until `release`, and forget what waits, which the next connection brings.

        Gaps of a lost session stay: the hub does not tell them again.
        """
        self._held = True
        self._queue.clear()
        self._emptied.set()

    def release(self) -> None:
        """Handle what has arrived: a connection is open.

        Raises Unavailable where more has come meanwhile than may wait: the next one brings it.
        """
        if self._overrun:
            raise Unavailable("too much has come while the connection was being opened")
        self._held = False
        self._changed.set()

    def close(self) -> None:
        """Let `run` return; a handler at work is cancelled with its task, which is the caller's to do."""
        self._closed = True
        self.hold()
        self._changed.set()

    async def run(self) -> None:
        """Handle events until closed, or until a handler fails for good (HandlerFailed)."""
        while not self._closed:
            if self._held or not (self._lost or self._queue):
                self._changed.clear()
                await self._changed.wait()
            elif self._lost:
                room = next(iter(self._lost))
                until = self._lost.pop(room)
                await self.told(Gap(room, "expired", self.position.offset or "0", until))
            else:
                event = self._queue.popleft()
                self._emptied.set()
                await self._handle(*event)

    async def told(self, gap: Gap) -> None:
        """Note a gap, and tell it unless it was told before."""
        if gap in self.gaps:
            return
        kept = [earlier for earlier in self.gaps if not gap.contains(earlier)]
        self.gaps.clear()
        self.gaps.extend([*kept, gap])
        if self.on_gap is not None:
            await self._call(self.on_gap, gap)

    async def _handle(self, event: str, *args: Any) -> None:
        offset = args[-1] if args and is_offset(args[-1]) else ""
        if event == "hub:session":
            session = msgspec.convert(args[0], SessionInfo)
            self.position.begin(session, offset, manual=self._manual)
            self._seen = offset_int(self.position.offset)
        elif event == "hub:gap":
            await self.told(msgspec.convert(args[0], Gap))
        elif offset and len(args) == 3 and not event.startswith(RESERVED_PREFIX):
            await self._deliver(event, args[0], args[1], offset)

    async def _deliver(self, event: str, data: Any, about: Any, offset: str) -> None:
        if offset_int(offset) <= self._seen:
            return
        meta = Meta(about["room"], about.get("from"), offset)
        if handler := self.handlers.get(event):
            await self._call(handler, data, meta)
        elif handler := self.handlers.get("*"):
            await self._call(handler, event, data, meta)
        self._seen = offset_int(offset)
        if not self._manual:
            self.position.move(offset)

    async def _call(self, handler: Handler, *args: Any) -> None:
        """Call a handler until it returns, with growing pauses, `attempts` times at most."""
        pause = RETRY_FIRST
        for attempt in range(1, self._attempts + 1):
            try:
                result = handler(*args)
                if inspect.isawaitable(result):
                    await result
                return
            except (Exception, asyncio.CancelledError) as error:  # whatever the application raises
                # A cancellation may also be that of something the handler awaited.
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                    raise
                name = getattr(handler, "__qualname__", repr(handler))
                log.exception("handler %s raised (%d of %d)", name, attempt, self._attempts)
                if attempt == self._attempts:
                    raise HandlerFailed(f"handler {name} raised {error!r}") from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_LONGEST)
