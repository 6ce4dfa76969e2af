"""The raw client: a few lines over the wire itself, WebSocket or polling, that come back until they are stopped."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from typing import Any

from tests.chaos.history import Began, Proved, Record
from tests.chaos.member import ATTEMPT, LOST, Member, Tap
from tests.support.raw import Raw
from tests.support.times import MS, UNIT

# Seconds between two looks at a connection.
LOOK = 100 * MS
# Seconds, from and to, after which one that was put out by its rival takes the session over again.
RIVALRY = (UNIT, 4 * UNIT)


_numbers = itertools.count(1)


class _Bare(Raw):
    """A bare session that passes on what it hears, and notes which pings it answered."""

    def __init__(self, url: str, transport: str, member: Bare) -> None:
        super().__init__(url, transport)
        self._member = member
        self.events = Tap(lambda said: member.said(self, said))
        self.heard_at = time.monotonic()
        self.number = next(_numbers)

    @property
    def session_url(self) -> str:
        # Unique to each request, as the stock clients have it.
        return f"{super().session_url}&t={time.monotonic_ns()}"

    async def _take(self, packet: str | bytes) -> None:
        self.heard_at = time.monotonic()
        offset = self._member.offset
        await super()._take(packet)
        if packet == "2":
            # Known to have been written before this ping; the hub counts from its own side of it.
            self._member.proved(self, offset)
        self.packets.clear()
        self.control.clear()


class Bare(Member):
    """A client of a few lines, named or not; `rival`: another one of its name takes turns with it."""

    kind = "bare"

    def __init__(
        self, url: str, record: Record, transport: str, client_id: str | None = None, *,
        rival: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(url, record)
        self.returns = record.returns
        self.kind = f"bare {transport}"
        self._transport = transport
        self._client_id = client_id
        self._rival = rival
        self._pid: str | None = None
        # The last string that an event ended in: its position.
        self.offset = 0
        # Seconds to stay away after the next loss.
        self.pause = 0.0
        # Does not read for now, and so cannot tell a dead connection from a live one.
        self._held = False
        # Has said goodbye, or is about to: it does not come back.
        self._parting = False
        self.session: _Bare | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._parting = False
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled() and (error := self._task.exception()):
            raise error

    async def quit(self) -> None:
        """Say a deliberate goodbye, which ends an anonymous session."""
        self._parting = True
        try:
            with contextlib.suppress(*LOST, RuntimeError):
                if self.session is not None and self.session.reply is not None:
                    await self.session.send("41")
        finally:
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
            self._put_out()
            return
        self.hear(event, args)
        self.offset = int(args[-1])

    def proved(self, session: _Bare, offset: int) -> None:
        """A ping was answered, which proves what came before it."""
        if session is self.session:
            self.record.add(Proved(offset, time.monotonic()))

    def _put_out(self) -> None:
        if self._rival:
            self.cut(random.uniform(*RIVALRY))
        else:
            self.fault = "was told 41"

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
        delay = 50 * MS
        while self.fault is None and not self._parting:
            self.session = session = _Bare(self.url, self._transport, self)
            self._asked = time.monotonic()
            try:
                async with asyncio.timeout(ATTEMPT):
                    await session.open()
                    reply = await session.connect(self._auth())
                if "sid" not in reply:
                    self.fault = f"was refused: {reply}"
                    return
                self._pid = reply.get("pid")
                delay = 50 * MS
                patience = (
                    session.handshake["pingInterval"] + session.handshake["pingTimeout"]
                ) / 1000
                while not session.closed:
                    silent = time.monotonic() - session.heard_at
                    if silent > patience and not self._held:
                        break
                    await asyncio.sleep(LOOK)
            except LOST:
                pass
            finally:
                if session.reply is not None:  # also where the request that asked for it hangs
                    self._pid = session.reply.get("pid", self._pid)
                with contextlib.suppress(*LOST):
                    await session.drop()
            pause, self.pause = self.pause, 0.0
            await asyncio.sleep(pause + delay * random.uniform(0.5, 1))
            delay = min(2 * delay, 500 * MS)

    def _auth(self) -> dict[str, Any]:
        auth: dict[str, Any] = {}
        if self._client_id is not None:
            auth["client_id"] = self._client_id
        if self._pid is not None and (self.returns or self._client_id is None):
            auth["pid"] = self._pid
        if self._pid is not None and self.returns:
            auth["offset"] = str(self.offset)
        if self.record.manual:
            auth["acks"] = "manual"
        # A session that nobody told us of is none to be continued.
        self._known = self._known and self._pid is not None
        return auth


class Twin(Bare):
    """One of several clients of one name that keep nothing, and share one record: the session's.

    Which of two connections is the newer one only the hub knows, so each has a number in the record, and what
    arrives over either has reached the session.
    """

    def __init__(self, url: str, record: Record, transport: str, name: str) -> None:
        super().__init__(url, record, transport, name, rival=True)

    def said(self, session: _Bare, said: tuple[str, list[Any], Any]) -> None:
        self._via = session.number
        self._known = any(isinstance(event, Began) for event in self.record.events[:100])
        super().said(session, said)

    def proved(self, session: _Bare, offset: int) -> None:
        """It may prove something to the hub, or have been replaced."""
