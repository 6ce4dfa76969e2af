"""Clients of every kind that join rooms, stay or wander, and write down what they are told.

A member's record holds what arrived in the order of its packets. Members come back by their own means: the stock
clients and HubClient as they are, the bare ones by a loop of a few lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import socketio.exceptions

from hub.client import HubClient
from hub.errors import HubError, Unavailable
from tests.chaos.history import (
    Began,
    Gap,
    Got,
    Joined,
    Joining,
    Leaving,
    Left,
    Proved,
    Record,
)
from tests.support.hubs import secrets
from tests.support.js import JSClient
from tests.support.raw import Raw
from tests.support.stock import Stock

# Seconds for one attempt to connect, and for one answer.
ATTEMPT = 4.0
# What ends a bare connection or an attempt at one.
LOST = (aiohttp.ClientError, OSError, TimeoutError, AssertionError)


class PutOut(Exception):
    """The hub has told a client never to come back, which it had no reason to."""


class Tap(list[Any]):
    """A list of the drivers' that passes on what is appended."""

    def __init__(self, hear: Callable[[Any], None]) -> None:
        super().__init__()
        self._hear = hear

    def append(self, item: Any) -> None:
        self._hear(item)


class Member:
    """A client; its rooms are joined as soon as it can, and again where it had left them."""

    kind = ""
    returns = True

    def __init__(self, url: str, record: Record) -> None:
        self.url = url
        self.record = record
        # Whether an earlier session can be continued.
        self._known = False
        # Set when the client was stopped for good by the hub.
        self.fault: str | None = None

    @property
    def name(self) -> str:
        return self.record.name

    async def start(self) -> None:
        """Begin to connect; return at once or when connected."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Cut the connection, and stay away."""
        raise NotImplementedError

    async def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """Ask once. Raises one of LOST where there is no answer."""
        raise NotImplementedError

    async def join(self, room: str) -> None:
        """Ask to join until that is answered."""
        self.record.add(Joining(room))
        answer = await self._insist("subscribe", room=room)
        self.record.add(Joined(room, int(answer["offset"])))

    async def leave(self, room: str) -> None:
        """Ask to leave until that is answered."""
        self.record.add(Leaving(room))
        await self._insist("unsubscribe", room=room)
        self.record.add(Left(room))

    async def _insist(self, verb: str, **fields: Any) -> dict[str, Any]:
        while True:
            try:
                answer = await self.ask(verb, **fields)
            except LOST:
                await asyncio.sleep(0.1)
                continue
            if answer["ok"]:
                return answer
            if not answer["error"]["retryable"]:
                raise AssertionError(f"{self.name}: {verb} {fields}: {answer}")
            await asyncio.sleep(random.uniform(0.1, 0.3))

    def hear(self, event: str, args: list[Any]) -> None:
        """Write an event of the hub's down."""
        if event == "hub:session":
            info = args[0]
            self.record.add(
                Began(int(args[-1]), info["recovered"], info["missed"], self._known, time.monotonic())
            )  # fmt: skip
            self._known = True
        elif event == "hub:gap":
            told = args[0]
            self.record.add(
                Gap(
                    told["room"], told["reason"], int(told["after"]), int(told["before"]), told["dropped"]
                )
            )  # fmt: skip
        elif event == "m":
            data, meta, offset = args
            self.record.add(Got(meta["room"], data["k"], int(offset)))

    def last(self, room: str) -> int:
        """Return the newest offset heard of in a room, in a message or a gap."""
        for event in reversed(self.record.events):
            if isinstance(event, Got) and event.room == room:
                return event.offset
            if isinstance(event, Gap) and event.room == room:
                return event.before - 1
            if isinstance(event, Joined) and event.room == room:
                return event.offset
        return 0


# -- bare


class _Bare(Raw):
    """A bare session that passes on what it hears, and notes which pings it answered."""

    def __init__(self, url: str, transport: str, member: Bare) -> None:
        super().__init__(url, transport)
        self._member = member
        self.events = Tap(lambda said: member.said(self, said))
        self.heard_at = time.monotonic()

    @property
    def _session_url(self) -> str:
        # Unique to each request, as the stock clients have it.
        return f"{super()._session_url}&t={time.monotonic_ns()}"

    async def _take(self, packet: str | bytes) -> None:
        self.heard_at = time.monotonic()
        offset = self._member.offset
        await super()._take(packet)
        if packet == "2":
            # Known to have been written before this ping; the hub counts from its own side of it.
            self._member.record.add(Proved(offset, time.monotonic()))
        self.packets.clear()
        self.control.clear()


class Bare(Member):
    """A client of a few lines over the wire itself, which comes back until it is stopped."""

    kind = "bare"

    def __init__(
        self, url: str, record: Record, transport: str, client_id: str | None = None
    ) -> None:
        super().__init__(url, record)
        self.returns = record.returns
        self.kind = f"bare {transport}"
        self._transport = transport
        self._client_id = client_id
        self._pid: str | None = None
        # The last string that an event ended in: its position.
        self.offset = 0
        # Seconds to stay away after the next loss.
        self.pause = 0.0
        # Does not read for now, and so cannot tell a dead connection from a live one.
        self._held = False
        self.session: _Bare | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled() and (error := self._task.exception()):
            raise error

    async def quit(self) -> None:
        """Say a deliberate goodbye, which ends an anonymous session."""
        with contextlib.suppress(*LOST, RuntimeError):
            if self.session is not None and self.session.reply is not None:
                await self.session.send("41")
        await self.stop()

    def cut(self, pause: float) -> None:
        """Lose the connection, and come back later."""
        self.pause = pause
        if self.session is not None:
            self.session.closed = True

    def hold(self) -> None:
        """Stop reading."""
        self._held = True
        if self.session is not None:
            self.session.hold()

    def go_on(self) -> None:
        """Undo `hold`."""
        self._held = False
        if self.session is not None:
            self.session.heard_at = time.monotonic()
            self.session.go_on()

    def said(self, session: _Bare, said: tuple[str, list[Any], Any]) -> None:
        event, args, _ = said
        if session is not self.session:
            return
        if event == "41":
            self.fault = "was told 41"
            return
        self.hear(event, args)
        self.offset = int(args[-1])

    async def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        session = self.session
        if session is None or session.closed or session.reply is None:
            raise TimeoutError
        try:
            async with asyncio.timeout(ATTEMPT):
                return await session.ask(verb, fields)
        except RuntimeError as error:  # it was dropped meanwhile
            raise TimeoutError from error

    async def _run(self) -> None:
        delay = 0.05
        while self.fault is None:
            self.session = session = _Bare(self.url, self._transport, self)
            try:
                async with asyncio.timeout(ATTEMPT):
                    await session.open()
                    reply = await session.connect(self._auth())
                if "sid" not in reply:
                    self.fault = f"was refused: {reply}"
                    return
                self._pid = reply.get("pid")
                delay = 0.05
                patience = (
                    session.handshake["pingInterval"] + session.handshake["pingTimeout"]
                ) / 1000
                while not session.closed:
                    silent = time.monotonic() - session.heard_at
                    if silent > patience and not self._held:
                        break
                    await asyncio.sleep(0.05)
            except LOST:
                pass
            finally:
                with contextlib.suppress(*LOST):
                    await session.drop()
            pause, self.pause = self.pause, 0.0
            await asyncio.sleep(pause + delay * random.uniform(0.5, 1))
            delay = min(2 * delay, 0.5)

    def _auth(self) -> dict[str, Any]:
        auth: dict[str, Any] = {}
        if self._client_id is not None:
            auth["client_id"] = self._client_id
        if self._pid is not None and (self.returns or self._client_id is None):
            auth["pid"] = self._pid
        if self._pid is not None and self.returns:
            auth["offset"] = str(self.offset)
        # A session that nobody told us of is none to be continued.
        self._known = self._known and self._pid is not None
        return auth


# -- the others


class JS(Member):
    """The stock JavaScript client, in Node."""

    kind = "js"

    def __init__(self, url: str, record: Record) -> None:
        super().__init__(url, record)
        self.client = JSClient()
        self.client.events = Tap(lambda said: self.hear(*said))
        self._counting = Tap(self._disconnected)
        self.client.disconnects = self._counting

    def _disconnected(self, reason: str) -> None:
        if reason == "io server disconnect":
            self.fault = "was told 41"

    async def start(self) -> None:
        await self.client.connect(self.url, wait=False, randomizationFactor=0.5)

    async def stop(self) -> None:
        await self.client.close()

    async def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        return await self.client.do(
            "ask", name=verb, args=[fields], timeout=int(ATTEMPT * 1000)
        )  # fmt: skip


class StockPython(Member):
    """The stock Python client, which keeps nothing to send back; it has a name to be known by."""

    kind = "stock python"
    returns = False

    def __init__(self, url: str, record: Record, transport: str, client_id: str) -> None:
        super().__init__(url, record)
        self._transport = transport
        self._client_id = client_id
        self._stock = Stock()
        for event in ("hub:session", "hub:gap", "m"):
            self._stock.sio.on(event, self._hears(event))
        self._stock.disconnects = Tap(self._disconnected)
        self._stock.sio.on("disconnect", self._stock.disconnects.append)

    def _hears(self, event: str) -> Callable[..., None]:
        return lambda *args: self.hear(event, list(args))

    def _disconnected(self, reason: str) -> None:
        if reason == self._stock.sio.reason.SERVER_DISCONNECT:
            self.fault = "was told 41"

    async def start(self) -> None:
        while True:
            try:
                await self._stock.sio.connect(
                    self.url, auth={"client_id": self._client_id}, transports=[self._transport],
                    wait_timeout=ATTEMPT,
                )  # fmt: skip
                return
            except socketio.exceptions.ConnectionError:
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        await self._stock.sio.shutdown()

    async def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        try:
            return await self._stock.sio.call(verb, fields, timeout=ATTEMPT)
        except socketio.exceptions.SocketIOError as error:
            raise TimeoutError from error


class Python(Member):
    """The hub's own client."""

    kind = "HubClient"

    def __init__(self, url: str, record: Record, client_id: str | None = None) -> None:
        super().__init__(url, record)
        self.client = HubClient(url, client_id=client_id, answer_timeout=ATTEMPT)
        self.client.on("m")(self._message)
        self.client.on_gap(self._gap)
        delivery = self.client._delivery
        handle = delivery._handle

        async def watched(event: str, *args: Any) -> None:
            await handle(event, *args)
            if event == "hub:session":
                # It may have handled more than the hub was told of; that stays its position.
                self.hear(event, [args[0], self.client.offset])

        delivery._handle = watched  # type: ignore[method-assign]

    def _message(self, data: Any, meta: Any) -> None:
        self.record.add(Got(meta.room, data["k"], int(meta.offset)))

    def _gap(self, gap: Any) -> None:
        self.record.add(
            Gap(gap.room, gap.reason, int(gap.after), int(gap.before), gap.dropped)
        )  # fmt: skip

    async def start(self) -> None:
        while True:
            try:
                await self.client.connect()
                break
            except Unavailable:
                self.client._tasks.clear()
        if pid := self.client._position.pid:
            secrets.add(pid)

    async def stop(self) -> None:
        if self.client.failure is not None:
            self.fault = repr(self.client.failure)
        await self.client.close(end=False)

    async def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        try:
            said = await getattr(self.client, verb)(**fields)
        except HubError as error:
            return error.answer()
        return {"ok": True, "offset": said.offset if said is not None else ""}
