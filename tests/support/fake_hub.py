"""A hub for the client's unit tests that does what a test tells it to, and remembers what it heard.

WebSocket only, no rooms and no memory: not a model of the hub, just the other end of the wire.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import WSMsgType, web

from tests.support.socketio_wire import (
    ACK,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    OPEN,
    Packet,
    Wire,
    encode,
)
from tests.support.times import MS

Verb = Callable[["Peer", str, dict[str, Any]], dict[str, Any] | None]


class Peer:
    """One connection of a client."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self.ws = ws
        self.wire = Wire()
        self.auth: dict[str, Any] = {}
        # Whether the client has said goodbye for good (41).
        self.goodbye = False

    async def send(self, event: str, *args: Any) -> None:
        await self.write(EVENT, [event, *args])

    async def write(self, type: str, data: Any, number: int | None = None) -> None:
        for packet in encode(type, data, number):
            if isinstance(packet, bytes):
                await self.ws.send_bytes(packet)
            else:
                await self.ws.send_str(packet)

    async def message(self, offset: int, data: Any = None, event: str = "m") -> None:
        await self.send(event, data, {"room": "r"}, str(offset))


class FakeHub:
    """The server; `verbs` are `(verb, fields)` in the order heard."""

    def __init__(self, base_path: str = "") -> None:
        self._base_path = base_path
        self.peers: list[Peer] = []
        self.verbs: list[tuple[str, dict[str, Any]]] = []
        # So many handshakes get 503, with this `Retry-After`.
        self.refuse = 0
        self.retry_after: str | None = None
        # When each handshake came, by the loop's clock.
        self.handshakes: list[float] = []
        # True: no packet is answered.
        self.silent = False
        # True: each connection is closed right after `hub:session`.
        self.short = False
        # What CONNECT_ERROR says, where it is to be said.
        self.error: dict[str, Any] | None = None
        # Told in the handshake, where it is to be told.
        self.max_payload: int | None = None
        self.pid = "s1.secret"
        self.session: dict[str, Any] = {
            "protocol": 1, "client_id": "c", "resumed": None, "missed": 0, "rooms": [],
            "head": "1000",
        }  # fmt: skip
        self.offset = "10"
        # Answers a verb; None leaves it unanswered.
        self.answer: Verb = lambda _peer, _verb, _fields: {
            "ok": True, "room": "r", "offset": "11",
        }  # fmt: skip
        # Sent right after hub:session.
        self.replay: list[tuple[int, Any]] = []
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get(f"{self._base_path}/socket.io/", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=100 * MS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}{self._base_path}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for peer in self.peers:
            await peer.ws.close()
        assert self._runner
        await self._runner.cleanup()

    def asked(self, verb: str) -> list[dict[str, Any]]:
        """Return the fields of each such verb heard."""
        return [fields for name, fields in self.verbs if name == verb]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.handshakes.append(asyncio.get_running_loop().time())
        if self.refuse:
            self.refuse -= 1
            headers = {"Retry-After": self.retry_after} if self.retry_after else {}
            return web.json_response({"message": "not now"}, status=503, headers=headers)
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        peer = Peer(ws)
        shake = {"sid": "e", "upgrades": [], "pingInterval": 25000, "pingTimeout": 20000}
        if self.max_payload is not None:
            shake["maxPayload"] = self.max_payload
        await ws.send_str(OPEN + json.dumps(shake))
        async for message in ws:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                continue
            if (packet := peer.wire.receive(message.data)) is not None:
                await self._take(peer, packet)
        return ws

    async def _take(self, peer: Peer, packet: Packet) -> None:
        if self.silent:
            return
        if packet.type == CONNECT:
            peer.auth = packet.data or {}
            self.peers.append(peer)
            if self.error is not None:
                await peer.write(CONNECT_ERROR, self.error)
                return
            await peer.write(CONNECT, {"sid": "x", "pid": self.pid})
            await peer.send("hub:session", self.session, self.offset)
            for offset, data in self.replay:
                await peer.message(offset, data)
            if self.short:
                await peer.ws.close(code=1013)
        elif packet.type == DISCONNECT:
            peer.goodbye = True
        elif packet.type == EVENT:
            verb, fields = packet.data
            self.verbs.append((verb, fields))
            if packet.number is None:
                return
            said = self.answer(peer, verb, fields)
            if said is not None:
                await peer.write(ACK, [said], packet.number)
