"""The asyncio client: stays connected to a hub, and gives an application each message once.

It runs two tasks: one keeps the client connected, the other calls the handlers. A third one reports to the hub what has
been handled, if the client has a name and no position file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import msgspec

from hub.client.acknowledger import Acknowledger
from hub.client.address import HubAddress
from hub.client.connect_auth import ConnectAuth
from hub.client.delivery import Delivery, EventHandler
from hub.client.position import Position
from hub.client.reconnecting import ReconnectingHubConnection
from hub.client.stop_signals import stop_signals
from hub.errors import HubError, Internal, Unavailable
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

# Seconds. After a longer time the hub may have forgotten the idempotency id of a publish, and would store a
# retry as another message.
TIMEOUT_MAX = DEDUPE_LIFE * 0.75

DELIVERY_TASK = "hub-client-delivery"  # the name of the task that calls the handlers
STOP_TIMEOUT = 8.0  # seconds; container runtimes kill a program ten seconds after SIGTERM

Transport = Literal["polling", "websocket"]
TRANSPORTS = ("polling", "websocket")

AnyHandler = TypeVar("AnyHandler", bound=EventHandler)
WithMessages = TypeVar("WithMessages", Subscribed, History)
Answer = TypeVar("Answer", bound=msgspec.Struct)

log = logging.getLogger("hub.client")


class HubClient:
    """A client of the hub that reconnects by itself and receives what it missed.

    - `url`: the hub's address, `http://host:port`, with the hub's base path if it has one.
    - `client_id`: names a durable session. Without one the hub names the session.
    - `token`: sent in the CONNECT auth.
    - `acks`: with "auto" the position moves when a handler has returned, with "manual" by `ack` alone.
    - `position_file`: a file for pid and offset, so that another process can continue the session.
    - `transports`: a list of "polling" and "websocket". By default it connects with polling and upgrades.
    - `timeout`: seconds, up to 90. It bounds `connect`, and each verb with its retries.
    - `answer_timeout`: seconds. If a verb is not answered in this time, its connection counts as lost.
    - `queue`: at least 1. If so many messages wait for the handlers, the connection is not read.
    - `attempts`: at least 1. If a handler has raised so often in a row, the client ends (HandlerFailed).

    Raises BadRequest for a `client_id` that cannot be one, ValueError for another option that is not as above.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str | None = None,
        token: str | None = None,
        acks: Literal["auto", "manual"] = "auto",
        position_file: str | os.PathLike[str] | None = None,
        transports: Sequence[Transport] | None = None,
        timeout: float = 30.0,
        answer_timeout: float = 10.0,
        queue: int = 1000,
        attempts: int = 3,
    ) -> None:
        _check_options(acks, transports, timeout, answer_timeout, queue, attempts)
        self._client_id = check_client_id(client_id) if client_id is not None else None
        manual = acks == "manual"
        self._position = Position(client_id, position_file)
        self._delivery = Delivery(
            self._position, manual_acks=manual, max_queued=queue, attempts=attempts
        )
        # The next process of a named client without a file continues where the hub has been told.
        reports = client_id is not None and position_file is None and not manual
        auth = ConnectAuth(
            self._position, token=token, client_id=client_id, manual_acks=manual or reports
        )
        self._connection = ReconnectingHubConnection(
            HubAddress.parse(url),
            list(transports) if transports is not None else None,
            auth,
            self._position,
            self._delivery,
            timeout=timeout,
            answer_timeout=answer_timeout,
        )
        self._acknowledger = Acknowledger(self._connection, self._position) if reports else None
        # Why the client has ended by itself; None while it runs, and after `close`.
        self.failure: HubError | None = None
        self._ended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        # The event loop in which `connect` was called.
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- connecting and closing

    async def connect(self, *, wait: bool = True) -> Self:
        """Start, and return when `hub:session` has arrived. To be called once.

        If `wait` is false, return at once. The client then connects as soon as the hub can be reached.

        Raises Unavailable after `timeout`, and another HubError at once if the hub refuses. In both cases,
        and if the call is cancelled, the client has ended.
        """
        if self._loop is not None:
            raise RuntimeError("connect: it was called before; make another HubClient instead")
        self._loop = asyncio.get_running_loop()
        self._start_task(self._connection.run(), "hub-client-connection")
        if self._acknowledger is not None:
            self._start_task(self._acknowledger.run(), "hub-client-acknowledger")
        if wait:
            try:
                await self.wait_connected()
            except BaseException:
                await self.close(end=False)
                raise
        # Last, so that handlers registered before the caller awaits again miss nothing.
        self._start_task(self._delivery.run(), DELIVERY_TASK)
        return self

    async def wait_connected(self) -> None:
        """Wait until the client is connected. Raises Unavailable after `timeout`, and the error that ended it."""
        self._check_started("wait_connected")
        await self._connection.wait_connected_in_time()

    async def run(self, *rooms: str, stop_timeout: float = STOP_TIMEOUT) -> None:
        """Connect, subscribe to rooms, and receive messages until SIGTERM or SIGINT; then close.

        It waits for the hub as long as it takes. After the signal no further message is handled, and a
        handler that is running may finish within `stop_timeout` (seconds). A second signal cancels it.
        Outside the main thread and on Windows, signals are left as they are.

        Raises the HubError that ended the client, as `wait` does.
        """
        if self._loop is None:
            await self.connect(wait=False)
        working = asyncio.create_task(self._subscribe_and_wait(rooms), name="hub-client-run")
        try:
            with stop_signals() as stopped:
                await _first_of(working, stopped)
                if working.done():
                    await working
                else:
                    stopped.clear()
                    await self._finish_handling(stopped, stop_timeout)
        finally:
            working.cancel()
            await self.close()
            await asyncio.gather(working, return_exceptions=True)
        if self.failure is not None:
            raise self.failure

    async def close(self, *, end: bool | None = None) -> None:
        """Disconnect, and cancel a handler that is running; its message does not count as handled.

        If `end` is true, the session of a client without a `client_id` ends, and its position file is
        deleted. By default it ends if there is no position file. Any other session is parked.
        """
        if end is None:
            end = self._client_id is None and not self._position.has_file
        try:
            if self._acknowledger is not None:
                await self._acknowledger.finish()
            if self._connection.current is not None:
                await self._connection.current.close(end_session=end)
        finally:
            self._end(None, delete_position_file=end and self._client_id is None)
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            # A second cancellation would interrupt what the first one has started, such as closing the socket.
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def wait(self) -> None:
        """Wait until the client is closed. Raises the HubError that ended it otherwise.

        Replaced: a newer connection has the session. HandlerFailed: a handler used its attempts.
        Another HubError: the hub refused the client.
        """
        self._check_started("wait")
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

    # -- events

    def on(self, event: str) -> Callable[[AnyHandler], AnyHandler]:
        """Register the handler of an event: a function or coroutine function of `(data, meta)`.

        The handler of `"*"` gets `(event, data, meta)` of every message that has no other handler.
        """
        if not isinstance(event, str):
            raise TypeError('on: the name of an event is missing, as in @client.on("invoice")')

        def register(handler: AnyHandler) -> AnyHandler:
            self._delivery.handlers[event] = handler
            return handler

        return register

    def on_gap(self, handler: AnyHandler) -> AnyHandler:
        """Register the handler of gaps. It gets each `Gap` before any newer message."""
        self._delivery.gap_handler = handler
        return handler

    @property
    def gaps(self) -> list[Gap]:
        """Return the gaps reported so far, newest last, at most 1,000; one that contains others replaces them."""
        return list(self._delivery.gaps)

    @property
    def connected(self) -> bool:
        """Return whether the client is connected."""
        return self._connection.current is not None

    @property
    def session(self) -> SessionInfo | None:
        """Return the `hub:session` of the newest connection; None before the first."""
        return self._connection.session

    @property
    def resumed(self) -> Literal["pid", "name"] | None:
        """Return by what the newest connection continued an earlier session; None: it is a new one."""
        session = self._connection.session
        return session.resumed if session is not None else None

    @property
    def client_id(self) -> str | None:
        """Return the session's name: the one given, or the one that the hub made (None before that)."""
        session = self._connection.session
        return session.client_id if session is not None else self._client_id

    @property
    def offset(self) -> str:
        """Return the offset up to which every message has been handled; empty before the first connection."""
        return self._position.offset

    # -- verbs

    async def subscribe(
        self, room: str, *, history: int | None = None, since: str | None = None
    ) -> Subscribed:
        """Join a room, and return its last `history` messages or those after the offset `since`.

        They are in the answer only; no handler gets them. Raises a HubError.
        """
        answer = await self._call_verb("subscribe", room=room, history=history, since=since)
        self._connection.add_room(room)
        return _with_offsets(_converted(answer, Subscribed))

    async def unsubscribe(self, room: str) -> None:
        """Leave a room. Raises a HubError."""
        self._check_started("unsubscribe")
        self._connection.remove_room(room)
        await self._call_verb("unsubscribe", room=room)
        # A connection that was made meanwhile may have found the session still in the room.
        self._connection.remove_room(room)

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
        """Publish a message, and return when the hub has accepted it.

        - `data`: JSON, with up to 10 binary values.
        - `id`: the idempotency key. Without one, one is made.
        - `volatile`: if true, the message is not stored, and only connected sessions receive it.
        - `ttl`: seconds. After that the message is neither replayed nor part of `history`.
        - `echo`: if false, this client does not receive the message.

        While the outcome is unknown, the message is sent again with the same `id`. A volatile message is
        sent once. Raises Unavailable when `timeout` is over: the outcome is unknown. Raises BadRequest for
        data that cannot be sent and TooLarge for more bytes than the hub takes: nothing has been sent.
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
        answer = await self._call_verb("publish", retry=not volatile, nulls=("data",), **fields)
        return _converted(answer, Published)

    async def history(
        self,
        room: str,
        *,
        limit: int = 100,
        before: str | None = None,
        after: str | None = None,
    ) -> History:
        """Return up to `limit` messages of a room's log, oldest first.

        They are the newest ones, the newest before the offset `before`, or the oldest after `after`.
        Raises a HubError.
        """
        answer = await self._call_verb(
            "history", room=room, limit=limit, before=before, after=after
        )
        return _with_offsets(_converted(answer, History))

    async def ack(self, offset: str) -> None:
        """Acknowledge every message up to `offset`, and move the position there. Raises a HubError."""
        await self._call_verb("ack", offset=offset)
        self._position.advance(offset)

    # -- inside

    async def _call_verb(
        self, verb: str, *, retry: bool = True, nulls: tuple[str, ...] = (), **fields: Any
    ) -> dict[str, Any]:
        """Call a verb with the fields that are not None, and with those named in `nulls` in any case."""
        self._check_started(verb)
        given = {name: value for name, value in fields.items() if value is not None}
        given |= {name: fields[name] for name in nulls}
        return await self._connection.call_verb(verb, given, retry=retry)

    def _check_started(self, call: str) -> None:
        """Raise RuntimeError if this call cannot work here, however long it waits."""
        if self._loop is None:
            raise RuntimeError(f"{call}: call `await client.connect()` first")
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError(
                f"{call}: the client belongs to the event loop in which connect() was called"
            )

    async def _subscribe_and_wait(self, rooms: tuple[str, ...]) -> None:
        """Subscribe to rooms, however long the hub cannot be reached, and wait until the client ends."""
        for room in rooms:
            while True:
                await self._connection.wait_connected()
                try:
                    await self.subscribe(room)
                    break
                except HubError as error:
                    if not error.retryable:
                        raise
                    log.warning("%s; trying again", error)
        await self.wait()

    async def _finish_handling(self, stopped: asyncio.Event, timeout: float) -> None:
        """Hand out no further message, and wait for the handler that is running, or for another signal."""
        self._delivery.close()
        delivery = next((task for task in self._tasks if task.get_name() == DELIVERY_TASK), None)
        if delivery is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await _first_of(delivery, stopped)

    def _start_task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(self._run_task(work), name=name))

    async def _run_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Run one of the tasks. If one fails, the failure is logged and the client ends."""
        try:
            await work
        except HubError as error:
            log.error("the client has ended: %s", error)
            self._end(error)
        except Exception as error:
            log.exception("the client has ended: unexpected error")
            self._end(Internal(f"the client has ended: unexpected error: {error!r}"))

    def _end(self, failure: HubError | None, *, delete_position_file: bool = False) -> None:
        """End the client. Only the first call has an effect."""
        if self._ended.is_set():
            return
        self.failure = failure
        self._position.close(delete_file=delete_position_file, final=failure is not None)
        self._delivery.close()
        self._connection.stop(failure or Unavailable("the client is closed"))
        self._ended.set()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()


def _check_options(
    acks: object,
    transports: Sequence[str] | None,
    timeout: float,
    answer_timeout: float,
    queue: int,
    attempts: int,
) -> None:
    """Raise ValueError for an option that a client cannot work with."""
    if acks not in ("auto", "manual"):
        raise ValueError(f'acks: "auto" or "manual" is needed, not {acks!r}')
    if transports is not None and (
        isinstance(transports, str) or not transports or not {*transports} <= {*TRANSPORTS}
    ):
        raise ValueError(
            f'transports: a list of "polling" and "websocket" is needed, not {transports!r}'
        )
    if not 0 < timeout <= TIMEOUT_MAX:
        raise ValueError(
            f"timeout: more than 0 and at most {TIMEOUT_MAX:g} seconds are needed, not {timeout!r}"
        )
    if not answer_timeout > 0:
        raise ValueError(f"answer_timeout: more than 0 seconds are needed, not {answer_timeout!r}")
    if queue < 1:
        raise ValueError(f"queue: at least 1 is needed, not {queue!r}")
    if attempts < 1:
        raise ValueError(f"attempts: at least 1 is needed, not {attempts!r}")


async def _first_of(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Wait until a task has ended or an event is set. Raises nothing that the task raised."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _converted(answer: dict[str, Any], kind: type[Answer]) -> Answer:
    """Return an answer as its type. Raises Internal if the hub answered something else."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise Internal(f"the hub's answer is not understood: {error}") from None


def _with_offsets(answer: WithMessages) -> WithMessages:
    """Return an answer in which each message's `meta` has the offset, as handlers get it."""
    messages = [_with_offset(message) for message in answer.messages]
    return msgspec.structs.replace(answer, messages=messages)


def _with_offset(message: Message) -> Message:
    meta = msgspec.structs.replace(message.meta, offset=message.offset)
    return msgspec.structs.replace(message, meta=meta)
