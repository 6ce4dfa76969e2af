"""The verbs of one connection: carried out in the order sent, answered in few writes.

A publish leaves for Redis at once, and its answer is written when the script has run; verbs that wait for something
go through a queue, and so does all that comes behind them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from hub.api.limits import ConnectionLimits
from hub.api.requests import PublishRequest, Request
from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.core.ws_frames import text_message
from hub.errors import HubError, Internal
from hub.pubsub.session import Session
from hub.store.results import NotOwner

log = logging.getLogger("hub.api")

FAILED = "the hub failed; this was logged"

# Takes an answer, its attachments already numbered in it.
Reply = Callable[[dict[str, Any], list[bytes]], None]
# Gets a publish's offset and whether its idempotency key had been seen, or what went wrong.
PublishCallback = Callable[[int | HubError, bool], None]


class Peer(Protocol):
    """What a lane needs of its connection; the engine's Connection is one."""

    # Writes finished frames to the socket, where nothing stands in the way; else None, and `write` knows what to do.
    direct: Callable[[bytes], None] | None

    def write(self, data: bytes, frames: list[PreparedMessage], /) -> None: ...


class Carrier(Protocol):
    """What carries verbs out."""

    def publish(
        self,
        session: Session,
        request: PublishRequest,
        attachments: Sequence[bytes],
        done: PublishCallback,
        /,
    ) -> None:
        """Send a message on its way; `done` hears how that went."""

    async def carry_out(self, lane: VerbPipeline, request: Request, reply: Reply, /) -> None:
        """Carry out any other verb. Raises HubError, NotOwner."""

    def lost(self, session: Session, refusal: NotOwner, /) -> None:
        """Hear that the session has another owner, or none."""

    def call_soon(self, work: Callable[[], None], /) -> object:
        """Call something at the end of this turn of the loop."""

    def spawn(self, work: Coroutine[Any, Any, None], /) -> asyncio.Task[None]:
        """Run something in the background."""


class VerbPipeline:
    """The verbs of one connection."""

    __slots__ = (
        "_answers",
        "_carrier",
        "_peer",
        "_queue",
        "_worker",
        "limits",
        "session",
    )

    def __init__(
        self, carrier: Carrier, peer: Peer, session: Session, limits: ConnectionLimits
    ) -> None:
        self.session = session
        # Asked before a verb is submitted, and told what is under way.
        self.limits = limits
        self._carrier = carrier
        self._peer = peer
        # Verbs that wait for one before them, each with its packet's id and its size; while there are any, a worker
        # takes them one by one.
        self._queue: deque[tuple[Request, Sequence[bytes], str, int]] = deque()
        self._worker: asyncio.Task[None] | None = None
        # Answers to publishes of this turn of the loop, as WebSocket frames; written together at its end.
        self._answers: list[bytes] = []

    def submit(self, request: Request, attachments: Sequence[bytes], ack: str, size: int) -> None:
        """Carry a verb of `size` bytes out once those before it have taken effect.

        `ack` is its packet's id; empty: no answer.
        """
        self.limits.enter(size)
        if self._worker is None and isinstance(request, PublishRequest):
            self._send(request, attachments, ack, size)
            return
        self._queue.append((request, attachments, ack, size))
        if self._worker is None:
            self._worker = self._carrier.spawn(self._work())

    def answer(self, ack: str, answer: dict[str, Any], attachments: list[bytes]) -> None:
        """Write an answer now, behind those that wait."""
        if not ack:
            return
        body = msgspec.json.encode([answer])
        if attachments:
            frame = PreparedMessage(f"6{len(attachments)}-{ack}{body.decode()}", *attachments)
        else:
            frame = PreparedMessage.text(b"3%b%b" % (ack.encode(), body))
        self._flush()
        self._peer.write(frame.wire, [frame])

    def _send(
        self, request: PublishRequest, attachments: Sequence[bytes], ack: str, size: int
    ) -> None:
        done = partial(self._published, ack, size)
        try:
            self._carrier.publish(self.session, request, attachments, done)
        except Exception:
            # A fault of the hub's own is answered too: what was entered would never leave.
            log.exception("a publish failed")
            done(Internal(FAILED), False)

    def _published(self, ack: str, size: int, result: int | HubError, duplicate: bool) -> None:
        self.limits.leave(size)
        if isinstance(result, HubError):
            self.answer(ack, result.answer(), [])
        elif ack:
            more = b',"duplicate":true' if duplicate else b""
            text = b'3%b[{"ok":true,"offset":"%d"%b}]' % (ack.encode(), result, more)
            if not self._answers:
                self._carrier.call_soon(self._flush)
            self._answers.append(text_message(text))

    def _flush(self) -> None:
        answers, self._answers = self._answers, []
        if answers:
            wire = b"".join(answers)
            if (direct := self._peer.direct) is not None:
                direct(wire)
            else:
                self._peer.write(wire, [PreparedMessage.finished(answer) for answer in answers])

    async def _work(self) -> None:
        try:
            while self._queue:
                request, attachments, ack, size = self._queue.popleft()
                if isinstance(request, PublishRequest):
                    self._send(request, attachments, ack, size)
                    continue
                try:
                    await self._carrier.carry_out(self, request, self._reply(ack))
                except HubError as error:
                    self.answer(ack, error.answer(), [])
                except NotOwner as refusal:
                    self._carrier.lost(self.session, refusal)
                except Exception:
                    log.exception("a verb failed")
                    self.answer(ack, Internal(FAILED).answer(), [])
                finally:
                    self.limits.leave(size)
        finally:
            self._worker = None

    def _reply(self, ack: str) -> Reply:
        return lambda answer, attachments: self.answer(ack, answer, attachments)
