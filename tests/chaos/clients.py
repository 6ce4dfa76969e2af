"""The clients that applications use: the stock ones, as they are, and the hub's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import socketio.exceptions

from hub.client import HubClient
from hub.errors import HubError, Unavailable
from tests.chaos.cluster import SETTINGS
from tests.chaos.deadline import stack
from tests.chaos.history import Gap, Record
from tests.chaos.member import ATTEMPT, Member, Tap
from tests.support.hubs import secrets
from tests.support.js import JSClient
from tests.support.stock import Stock
from tests.support.times import MS


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
    """The stock Python client, which keeps nothing to send back; it has a name to be known by.

    With both transports it begins with polling and upgrades, as is its default.
    """

    kind = "stock python"
    returns = False

    def __init__(self, url: str, record: Record, transports: Sequence[str], client_id: str) -> None:
        super().__init__(url, record)
        self._transports = list(transports)
        self._client_id = client_id
        self._stock = Stock(SETTINGS["ping_interval"] + SETTINGS["ping_timeout"])
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
                    self.url, auth={"client_id": self._client_id}, transports=self._transports,
                    wait_timeout=ATTEMPT,
                )  # fmt: skip
                return
            except socketio.exceptions.ConnectionError:
                await asyncio.sleep(100 * MS)

    async def stop(self) -> None:
        await self._stock.sio.shutdown()

    def standing(self) -> str:
        """Its tasks say what they wait for, or what ended them: stock clients die of that in silence."""
        sio, eio = self._stock.sio, self._stock.sio.eio
        tasks = {
            "reads": eio.read_loop_task,
            "writes": eio.write_loop_task,
            "comes back": sio._reconnect_task,
        }
        lines = [f"{eio.state}, {eio.current_transport}, {self._stock.disconnects=}"]
        for what, task in tasks.items():
            if task is not None:
                lines.append(f"{what}: {task!r}\n{stack(task.get_coro())}")
        return "\n".join(lines)

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
        self.client = HubClient(
            url, client_id=client_id, answer_timeout=ATTEMPT,
            acks="manual" if record.manual else "auto",
        )  # fmt: skip
        self.client.on("m")(self._message)
        self.client.on_gap(self._gap)
        delivery = self.client._delivery
        handle_event = delivery._handle_event

        async def watched(event: str, *args: Any) -> None:
            await handle_event(event, *args)
            if event == "hub:session":
                # It may have handled more than the hub was told of; that stays its position.
                self.hear(event, [args[0], self.client.offset])

        delivery._handle_event = watched  # type: ignore[method-assign]

    def _message(self, data: Any, meta: Any) -> None:
        self.got(meta.room, data, meta.offset)

    def _gap(self, gap: Any) -> None:
        self.record.add(
            Gap(gap.room, gap.reason, int(gap.after), int(gap.before), gap.dropped)
        )  # fmt: skip

    async def start(self) -> None:
        await self.client.connect(wait=False)
        while not self.client.connected:
            with contextlib.suppress(Unavailable):
                await self.client.wait_connected()
        if pid := self.client._position.pid:
            secrets.add(pid)

    async def stop(self) -> None:
        if self.client.failure is not None:
            self.fault = repr(self.client.failure)
        await self.client.close(end=False)

    async def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        try:
            if verb == "ack":  # its answer says how much is stored, which `ack` does not
                return await self.client._call_verb(verb, **fields)
            said = await getattr(self.client, verb)(**fields)
        except HubError as error:
            return error.to_answer()
        return {"ok": True, "offset": said.offset if said is not None else ""}
