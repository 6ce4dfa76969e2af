"""The verbs of one connection: carried out in the order sent, answered in few writes.

A publish leaves for Redis at once, and its answer is written when the script has run; verbs that wait for something
go through a queue, and so does all that comes behind them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec

from hub.engine.frame import Frame
from hub.errors import HubError, Internal
from hub.session import Session
from hub.store.store import NotOwner
from hub.verbs import Publish, Request

log = logging.getLogger("hub.lane")

# Takes an answer, its attachments already numbered in it.
Reply = Callable[[dict[str, Any], list[bytes]], None]
# Gets a publish's offset and whether its idempotency key had been seen, or what went wrong.
Published = Callable[[int | HubError, bool], None]


class Peer(Protocol):
    """What a lane needs of its connection; the engine's Connection is one."""

    def write(self, data: bytes, frames: list[Frame], /) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Carrier(Protocol):
    """What carries verbs out."""

    # How many verbs of one connection may wait for their answer; beyond it the connection is not read.
    pending_verbs: int

    def publish(
        self, session: Session, request: Publish, attachments: list[bytes], done: Published, /
    ) -> None:
        """Send a message on its way; `done` hears how that went."""

    async def carry_out(self, session: Session, request: Request, reply: Reply, /) -> None:
        """Carry out any other verb. Raises HubError, NotOwner."""

    def lost(self, session: Session, refusal: NotOwner, /) -> None:
        """Hear that the session has another owner, or none."""

    def spawn(self, work: Coroutine[Any, Any, None], /) -> asyncio.Task[None]:
        """Run something in the background."""


class Lane:
    """The verbs of one connection."""

    __slots__ = (
        "_answers",
        "_carrier",
        "_paused",
        "_peer",
        "_pending",
        "_queue",
        "_worker",
        "session",
    )

    def __init__(self, carrier: Carrier, peer: Peer, session: Session) -> None:
        self.session = session
        self._carrier = carrier
        self._peer = peer
        # Verbs that wait for one before them; while there are any, a worker takes them one by one.
        self._queue: deque[tuple[Request, list[bytes], str]] = deque()
        self._worker: asyncio.Task[None] | None = None
        # Verbs not answered yet.
        self._pending = 0
        self._paused = False
        # Answers of this turn of the loop, written together at its end.
        self._answers: list[Frame] = []

    def submit(self, request: Request, attachments: list[bytes], ack: str) -> None:
        """Carry a verb out once those before it have taken effect. `ack` is its packet's id; empty: no answer."""
        self._pending += 1
        if self._pending >= self._carrier.pending_verbs and not self._paused:
            self._paused = True
            self._peer.pause()
        if self._worker is None and isinstance(request, Publish):
            self._send(request, attachments, ack)
            return
        self._queue.append((request, attachments, ack))
        if self._worker is None:
            self._worker = self._carrier.spawn(self._work())

    def answer(self, ack: str, answer: dict[str, Any], attachments: list[bytes]) -> None:
        """Write an answer now, behind those that wait."""
        if not ack:
            return
        body = msgspec.json.encode([answer])
        if attachments:
            frame = Frame(f"6{len(attachments)}-{ack}{body.decode()}", *attachments)
        else:
            frame = Frame.text(b"3%b%b" % (ack.encode(), body))
        self._answers.append(frame)
        self._flush()

    def _send(self, request: Publish, attachments: list[bytes], ack: str) -> None:
        def done(result: int | HubError, duplicate: bool) -> None:
            self._answered()
            if isinstance(result, HubError):
                self.answer(ack, result.answer(), [])
            elif ack:
                more = b',"duplicate":true' if duplicate else b""
                text = b'3%b[{"ok":true,"offset":"%d"%b}]' % (ack.encode(), result, more)
                if not self._answers:
                    asyncio.get_running_loop().call_soon(self._flush)
                self._answers.append(Frame.text(text))

        self._carrier.publish(self.session, request, attachments, done)

    def _flush(self) -> None:
        answers, self._answers = self._answers, []
        if len(answers) == 1:
            self._peer.write(answers[0].wire, answers)
        elif answers:
            self._peer.write(b"".join([frame.wire for frame in answers]), answers)

    def _answered(self) -> None:
        self._pending -= 1
        if self._paused and self._pending <= self._carrier.pending_verbs // 2:
            self._paused = False
            self._peer.resume()

    async def _work(self) -> None:
        try:
            while self._queue:
                request, attachments, ack = self._queue.popleft()
                if isinstance(request, Publish):
                    self._send(request, attachments, ack)
                    continue
                try:
                    await self._carrier.carry_out(self.session, request, self._reply(ack))
                except HubError as error:
                    self.answer(ack, error.answer(), [])
                except NotOwner as refusal:
                    self._carrier.lost(self.session, refusal)
                except Exception:
                    log.exception("a verb failed")
                    self.answer(ack, Internal("the hub failed; this was logged").answer(), [])
                finally:
                    self._answered()
        finally:
            self._worker = None

    def _reply(self, ack: str) -> Reply:
        return lambda answer, attachments: self.answer(ack, answer, attachments)
