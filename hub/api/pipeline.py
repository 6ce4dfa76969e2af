"""The verbs of one connection: carried out in the order sent, answered in few writes.

A publish leaves for Redis at once, and is answered when its script has run. A verb that waits for something goes through
a queue, and so does everything that comes after it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hub.api.limits import ConnectionLimits, Cost
from hub.api.requests import VerbRequest
from hub.engineio.core.connection import Connection
from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.core.ws_frames import text_message
from hub.errors import HubError, Internal
from hub.node.node import Node
from hub.pubsub.session import Session
from hub.store.publishing import PublishListener
from hub.store.results import NotOwner

log = logging.getLogger("hub.api")

FAILED = "the hub failed; this was logged"

# Carries a verb out; `hub.api.registry` says which verb has which. It gets a call and its request, or lists of both
# (`Verb.together`). A coroutine function is awaited before the connection's next verb begins, and answers by `Call.reply`.
# A plain function only starts what it has to do, and answers later by `Call.on_published`.
Handler = Callable[[Any, Any], Awaitable[None] | None]
# Calls that are carried out together: one script of as many rooms keeps Redis for less than 5 ms.
TOGETHER = 50


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb: what it is called, what it takes, who carries it out, and what it counts as."""

    name: str
    request: type[VerbRequest]
    handler: Handler
    cost: Cost = Cost.SINGLE
    # Not None: its handler gets calls that wait one after the other together, if this is true of the request of each of
    # them; TOGETHER at most. It is called with lists, of one call where there are no others.
    together: Callable[[Any], bool] | None = None
    # True: it costs Cost.STREAMED.
    streamed: bool = field(init=False)
    # True: verbs that come after it wait until it is done.
    waits: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "streamed", self.cost is Cost.STREAMED)
        object.__setattr__(self, "waits", inspect.iscoroutinefunction(self.handler))


class Call(PublishListener):
    """One verb of one connection, in progress."""

    __slots__ = ("ack", "attachments", "pipeline", "size")

    def __init__(
        self, pipeline: VerbPipeline, ack: str, attachments: Sequence[bytes], size: int
    ) -> None:
        self.pipeline = pipeline
        # The id of its packet; empty: the client wants no answer, or has got it.
        self.ack = ack
        self.attachments = attachments
        # Bytes that it came in.
        self.size = size

    @property
    def node(self) -> Node:
        return self.pipeline.node

    @property
    def session(self) -> Session:
        return self.pipeline.session

    @property
    def limits(self) -> ConnectionLimits:
        return self.pipeline.limits

    def reply(self, answer: dict[str, Any], attachments: Sequence[bytes] = ()) -> None:
        """Write the answer, after those that wait. The placeholders in it count the attachments from 0.

        A second answer to the same call is dropped.
        """
        if ack := self._take_ack():
            self.pipeline.write_answer(ack, answer, attachments)

    def reply_soon(self, answer: dict[str, Any]) -> None:
        """Write the answer together with others, at the latest at the end of this turn of the loop."""
        if ack := self._take_ack():
            text = b"3%b%b" % (ack.encode(), msgspec.json.encode([answer]))
            self.pipeline.write_answer_soon(text_message(text))

    def fail(self, verb: str, error: HubError) -> None:
        """Answer with what went wrong, after the answers that wait."""
        self.pipeline.write_error(self._take_ack(), verb, error)

    def _take_ack(self) -> str:
        """Return the id of its packet, once; empty: no answer is wanted any more."""
        ack, self.ack = self.ack, ""
        return ack

    def on_published(self, result: int | HubError, duplicate: bool) -> None:
        """Answer a publish with its offset and whether its idempotency key was known, or with what went wrong."""
        pipeline = self.pipeline
        pipeline.limits.leave(self.size)
        if isinstance(result, HubError):
            pipeline.write_error(self.ack, "publish", result)
        elif self.ack:
            more = b',"duplicate":true' if duplicate else b""
            text = b'3%b[{"ok":true,"offset":"%d"%b}]' % (self.ack.encode(), result, more)
            pipeline.write_answer_soon(text_message(text))


class VerbPipeline:
    """The verbs of one connection."""

    __slots__ = (
        "_answers",
        "_connection",
        "_loop",
        "_queue",
        "_worker",
        "limits",
        "node",
        "session",
    )

    def __init__(
        self, node: Node, connection: Connection, session: Session, limits: ConnectionLimits
    ) -> None:
        self.node = node
        self.session = session
        # Counts the connection's verbs: how often they are asked, and how many are in progress.
        self.limits = limits
        self._connection = connection
        # Kept: up to Python 3.11 asking for the running loop asks the kernel for the process id each time.
        self._loop = limits.loop
        # Verbs that wait for one before them; while there are any, a worker takes them one by one.
        self._queue: deque[tuple[Verb, Call, VerbRequest]] = deque()
        self._worker: asyncio.Task[None] | None = None
        # Answers to publishes of this turn of the loop, as WebSocket frames; written together at its end.
        self._answers: list[bytes] = []

    def submit(
        self, verb: Verb, request: VerbRequest, attachments: Sequence[bytes], ack: str, size: int
    ) -> None:
        """Carry a verb of `size` bytes out once those before it have taken effect.

        `ack` is its packet's id; empty: no answer.
        """
        self.limits.enter(size)
        call = Call(self, ack, attachments, size)
        if self._worker is None and not verb.waits:
            self._start(verb, call, request)
            return
        self._queue.append((verb, call, request))
        if self._worker is None:
            self._worker = self.node.tasks.spawn(self._work())

    def _start(self, verb: Verb, call: Call, request: VerbRequest) -> None:
        """Start a verb that does not wait."""
        try:
            verb.handler(call, request)
        except Exception:
            # A fault of the hub's own is answered too: otherwise the verb would count as in progress for ever.
            log.exception("a %s failed", verb.name)
            call.on_published(Internal(FAILED), False)

    async def _work(self) -> None:
        try:
            while self._queue:
                verb, call, request = self._queue.popleft()
                if not verb.waits:
                    self._start(verb, call, request)
                elif verb.together is None:
                    await self._carry_out(verb, [call], verb.handler(call, request))
                else:
                    calls, requests = self._take_together(verb, call, request)
                    await self._carry_out(verb, calls, verb.handler(calls, requests))
        finally:
            self._worker = None

    def _take_together(
        self, verb: Verb, call: Call, request: VerbRequest
    ) -> tuple[list[Call], list[VerbRequest]]:
        """Return a call and those that are to be carried out together with it, taken from the queue, and their requests."""
        calls, requests, queue = [call], [request], self._queue
        fits = verb.together
        assert fits is not None
        if fits(request):
            while queue and queue[0][0] is verb and fits(queue[0][2]) and len(calls) < TOGETHER:
                _, call, request = queue.popleft()
                calls.append(call)
                requests.append(request)
        return calls, requests

    async def _carry_out(
        self, verb: Verb, calls: list[Call], pending: Awaitable[None] | None
    ) -> None:
        """Await a handler, and answer what it leaves unanswered with what went wrong."""
        assert pending is not None
        try:
            await pending
        except HubError as error:
            # Not kept in a variable: its traceback holds this frame, which would be a circle.
            self._fail(verb, calls, error)
        except NotOwner as refusal:
            self.node.sessions.on_not_owner(self.session, refusal)
        except Exception:
            log.exception("a %s failed", verb.name)
            self._fail(verb, calls, Internal(FAILED))
        finally:
            for call in calls:
                self.limits.leave(call.size)

    def _fail(self, verb: Verb, calls: list[Call], error: HubError) -> None:
        """Answer calls with what went wrong, those that have no answer yet."""
        for call in calls:
            call.fail(verb.name, error)

    # -- answers

    def write_error(self, ack: str, verb: str, error: HubError) -> None:
        """Log at debug that a verb failed, and answer it if the client wants an answer."""
        if log.isEnabledFor(logging.DEBUG):
            fields = {"client_id": self.session.client_id, "verb": verb[:64], "code": error.code}
            log.debug("a verb failed", extra={**fields, "error": error.message})
        if ack:
            self.write_answer(ack, error.to_answer())

    def write_answer(
        self, ack: str, answer: dict[str, Any], attachments: Sequence[bytes] = ()
    ) -> None:
        """Write an answer now, after those that wait."""
        body = msgspec.json.encode([answer])
        if attachments:
            frame = PreparedMessage(f"6{len(attachments)}-{ack}{body.decode()}", *attachments)
        else:
            frame = PreparedMessage.text(b"3%b%b" % (ack.encode(), body))
        self.flush()
        self._connection.write(frame.wire, [frame])

    def write_answer_soon(self, frame: bytes) -> None:
        """Write an answer, a WebSocket frame, together with others at the end of this turn of the loop."""
        if not self._answers:
            self._loop.call_soon(self.flush)
        self._answers.append(frame)

    def flush(self) -> None:
        """Write the answers that wait."""
        answers, self._answers = self._answers, []
        if answers:
            wire = b"".join(answers)
            if (write_direct := self._connection.write_direct) is not None:
                write_direct(wire)
            else:
                self._connection.write(
                    wire, [PreparedMessage.from_frame(answer) for answer in answers]
                )
