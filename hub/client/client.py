"""The asyncio client: stays connected to a hub, and gives an application each message once.

One task keeps a connection, for as long as the hub does not refuse it; one calls the handlers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from hub.client.connect_auth import ConnectAuth
from hub.client.delivery import Delivery, Handler
from hub.client.position import Position
from hub.client.reconnecting import ReconnectingHubConnection
from hub.errors import HubError, Unavailable
from hub.model import (
    DEDUPE_LIFE,
    Gap,
    History,
    Message,
    Published,
    SessionInfo,
    Subscribed,
    check_client_id,
)

# A retry later than this might not be known for one: the hub forgets idempotency ids.
TIMEOUT_LONGEST = DEDUPE_LIFE * 0.75

AnyHandler = TypeVar("AnyHandler", bound=Handler)
Answer = TypeVar("Answer", Subscribed, History)

log = logging.getLogger("hub.client")


class HubClient:
    """A client of the hub that reconnects by itself and gets what it missed.

    `client_id` names a durable session; `acks="manual"` leaves the position to `ack`.
    `position_file` keeps pid and offset, so that another process can go on from there.
    `timeout` (seconds) bounds every verb, its retries included, and the first connect; a verb not
    answered within `answer_timeout` makes its connection count as dead. `queue` messages at most
    wait for the handlers; a handler that raises is called up to `attempts` times, then the client
    ends with HandlerFailed.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str | None = None,
        token: str | None = None,
        acks: str = "auto",
        position_file: str | os.PathLike[str] | None = None,
        transports: list[str] | None = None,
        timeout: float = 30.0,
        answer_timeout: float = 10.0,
        queue: int = 1000,
        attempts: int = 3,
    ) -> None:
        if acks not in ("auto", "manual"):
            raise ValueError("acks: auto or manual")
        if not 0 < timeout <= TIMEOUT_LONGEST:
            raise ValueError(f"timeout: above 0 and up to {TIMEOUT_LONGEST} seconds")
        if not answer_timeout > 0:
            raise ValueError("answer_timeout: above 0")
        if queue < 1:
            raise ValueError("queue: at least 1")
        if attempts < 1:
            raise ValueError("attempts: at least 1")
        self._named = check_client_id(client_id) if client_id is not None else None
        manual = acks == "manual"
        self._timeout = timeout
        self._position = Position(client_id, position_file)
        self._delivery = Delivery(self._position, manual=manual, bound=queue, attempts=attempts)
        auth = ConnectAuth(self._position, token=token, client_id=client_id, manual_acks=manual)
        self._connection = ReconnectingHubConnection(
            url,
            transports,
            auth,
            self._position,
            self._delivery,
            timeout=timeout,
            answer_timeout=answer_timeout,
        )
        # Why the client has ended for good; None while it runs, and after `close`.
        self.failure: HubError | None = None
        self._ended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # -- life

    async def connect(self) -> Self:
        """Start, and return when connected.

        Raises Unavailable after `timeout`, and at once what the hub refuses for good.
        """
        if self._tasks:
            raise RuntimeError("connect once")
        self._start(self._connection.run(), "hub-client-connection")
        try:
            async with asyncio.timeout(self._timeout):
                await self._connection.up()
        except TimeoutError:
            await self.close(end=False)
            raise self._connection.last_error or Unavailable("no connection in time") from None
        except HubError:
            await self.close(end=False)
            raise
        # Last, so that handlers registered before the caller awaits again miss nothing.
        self._start(self._delivery.run(), "hub-client-delivery")
        return self

    async def close(self, *, end: bool | None = None) -> None:
        """Disconnect, and cancel a handler that is at work; its message does not count as handled.

        `end` says whether a session without a name ends, which nothing can continue then; one with
        a name is parked in any case. By default it ends where there is no position file.
        """
        if end is None:
            end = self._named is None and not self._position.kept
        if self._connection.link is not None:
            await self._connection.link.shut(end=end)
        self._finish(None, forget=end and self._named is None)
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def wait(self) -> None:
        """Wait until the client is closed; raise what ended it, if something else did.

        Replaced: a newer connection has the session. HandlerFailed: a handler gave up.
        """
        await self._ended.wait()
        if self.failure is not None:
            raise self.failure

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # -- what an application hears

    def on(self, event: str) -> Callable[[AnyHandler], AnyHandler]:
        """Register the handler of an event, called with `(data, meta)`; it may be a coroutine.

        The handler of `"*"` gets `(event, data, meta)` of every message that has no other.
        """

        def register(handler: AnyHandler) -> AnyHandler:
            self._delivery.handlers[event] = handler
            return handler

        return register

    def on_gap(self, handler: AnyHandler) -> AnyHandler:
        """Register the handler that is told each gap, before any message newer than it."""
        self._delivery.on_gap = handler
        return handler

    @property
    def gaps(self) -> list[Gap]:
        """Return the gaps told so far, the newest last; one that contains another replaces it."""
        return list(self._delivery.gaps)

    @property
    def connected(self) -> bool:
        """Return whether a connection is up."""
        return self._connection.link is not None

    @property
    def session(self) -> SessionInfo | None:
        """Return what the hub said of the session when the newest connection was made."""
        return self._connection.session

    @property
    def recovered(self) -> bool:
        """Return whether the newest connection continued an earlier session."""
        session = self._connection.session
        return session is not None and session.recovered

    @property
    def client_id(self) -> str | None:
        """Return the session's name: the one given, or the one the hub made."""
        session = self._connection.session
        return session.client_id if session is not None else self._named

    @property
    def offset(self) -> str:
        """Return the offset up to which everything has been handled."""
        return self._position.offset

    # -- verbs

    async def subscribe(
        self, room: str, *, history: int | None = None, since: str | None = None
    ) -> Subscribed:
        """Join a room, with its last `history` messages or those after the offset `since`."""
        said = await self._ask("subscribe", room=room, history=history, since=since)
        self._connection.joined(room)
        return _with_offsets(msgspec.convert(said, Subscribed))

    async def unsubscribe(self, room: str) -> None:
        """Leave a room."""
        self._connection.left(room)
        await self._ask("unsubscribe", room=room)
        # A connection made meanwhile may have found the session still in the room.
        self._connection.left(room)

    async def publish(
        self,
        room: str,
        event: str,
        data: Any,
        *,
        id: str | None = None,
        volatile: bool = False,
        ttl: float | None = None,
        echo: bool = True,
    ) -> Published:
        """Publish a message and return when the hub has it.

        Retried with the same idempotency `id` (one is made) while the outcome is unknown; a
        volatile message is not. Raises Unavailable when `timeout` is over: outcome unknown;
        BadRequest and TooLarge, nothing being sent, for data that no hub, or not this one, takes.
        """
        fields = {
            "room": room,
            "event": event,
            "data": data,
            "id": id if id is not None or volatile else uuid.uuid4().hex,
            "volatile": volatile or None,
            "ttl": ttl,
            "echo": None if echo else False,
        }
        said = await self._ask("publish", retry=not volatile, nulls=("data",), **fields)
        return msgspec.convert(said, Published)

    async def history(
        self,
        room: str,
        *,
        limit: int = 100,
        before: str | None = None,
        after: str | None = None,
    ) -> History:
        """Return messages of a room's log: the last ones, or those next to `before` or `after`."""
        said = await self._ask("history", room=room, limit=limit, before=before, after=after)
        return _with_offsets(msgspec.convert(said, History))

    async def ack(self, offset: str) -> None:
        """Tell the hub that everything up to `offset` is processed."""
        await self._ask("ack", offset=offset)
        self._position.move(offset)

    # -- inside

    async def _ask(
        self, verb: str, *, retry: bool = True, nulls: tuple[str, ...] = (), **fields: Any
    ) -> dict[str, Any]:
        """Ask a verb with those fields that are not None, and with `nulls` in any case."""
        given = {name: value for name, value in fields.items() if value is not None}
        given |= {name: fields[name] for name in nulls}
        return await self._connection.ask(verb, given, retry=retry)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(self._guard(work), name=name))

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Run one of the two tasks; a failure of either ends the client, and is told."""
        try:
            await work
        except HubError as error:
            log.error("the client has ended: %s", error)
            self._finish(error)
        except Exception as error:
            log.exception("the client has ended by a fault of its own")
            self._finish(HubError(repr(error)))

    def _finish(self, failure: HubError | None, *, forget: bool = False) -> None:
        """End the client once; the first reason counts."""
        if self._ended.is_set():
            return
        self.failure = failure
        self._position.close(forget=forget)
        self._delivery.close()
        self._connection.stop(failure or Unavailable("the client is closed"))
        self._ended.set()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()


def _with_offsets(answer: Answer) -> Answer:
    """Give each message's `meta` its offset, as handlers get it."""
    messages = [_with_offset(message) for message in answer.messages]
    return msgspec.structs.replace(answer, messages=messages)


def _with_offset(message: Message) -> Message:
    meta = msgspec.structs.replace(message.meta, offset=message.offset)
    return msgspec.structs.replace(message, meta=meta)
