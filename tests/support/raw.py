"""A bare Engine.IO and Socket.IO driver over aiohttp, for tests that look at the wire itself.

It answers pings unless told otherwise, and keeps every packet as it came.
"""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
from typing import Any

import aiohttp

from tests.support.hubs import secrets
from tests.support.times import eventually

SEPARATOR = "\x1e"


class Raw:
    """One Engine.IO session; `packets` holds what came, without the Engine.IO type for messages.

    `events` holds `(name, args, ack number)`; `closed` says that the transport has ended.
    """

    def __init__(self, url: str, transport: str = "websocket", *, pong: bool = True) -> None:
        self.url = url
        self.transport = transport
        self.pong = pong
        self.handshake: dict[str, Any] = {}
        self.reply: dict[str, Any] | None = None
        # Socket.IO packets as they came: str, or bytes for attachments.
        self.packets: list[str | bytes] = []
        # The Engine.IO packets that are no messages.
        self.control: list[str] = []
        self.events: list[tuple[str, list[Any], int | None]] = []
        self.answers: dict[int, Any] = {}
        self.closed = False
        self.close_code: int | None = None
        # Of the last request, where the transport is polling.
        self.status = 0
        # How many packets each polling answer held.
        self.payloads: list[int] = []
        self._ids = itertools.count(1)
        self._pending: tuple[str, int] | None = None
        self._attachments: list[bytes] = []
        self._http: aiohttp.ClientSession | None = None
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None
        self._reading = asyncio.Event()
        self._reading.set()

    # -- Engine.IO

    async def open(self) -> Raw:
        """Shake hands and begin to read."""
        self._http = aiohttp.ClientSession()
        if self.transport == "websocket":
            self._ws = await self._http.ws_connect(
                f"{self.url}/socket.io/?EIO=4&transport=websocket", max_msg_size=0
            )
            first = await self._ws.receive_str()
        else:
            async with self._http.get(f"{self.url}/socket.io/?EIO=4&transport=polling") as answer:
                first = await answer.text()
                assert answer.status == 200, (answer.status, first)
        assert first[0] == "0", first
        self.handshake = json.loads(first[1:].split(SEPARATOR)[0])
        self._reader = asyncio.create_task(self._read())
        return self

    @property
    def session_url(self) -> str:
        return f"{self.url}/socket.io/?EIO=4&transport=polling&sid={self.handshake['sid']}"

    async def send(self, *packets: str | bytes) -> None:
        """Send Engine.IO packets, together where the transport can; bytes are attachments."""
        if self._ws is not None:
            for packet in packets:
                if isinstance(packet, bytes):
                    await self._ws.send_bytes(packet)
                else:
                    await self._ws.send_str(packet)
            return
        assert self._http
        payload = SEPARATOR.join(
            "b" + base64.b64encode(packet).decode() if isinstance(packet, bytes) else packet
            for packet in packets
        )
        async with self._http.post(self.session_url, data=io.BytesIO(payload.encode())) as answer:
            self.status = answer.status
            await answer.read()

    def hold(self) -> None:
        """Stop reading: the hub's bytes pile up on the way."""
        self._reading.clear()

    def go_on(self) -> None:
        """Undo `hold`."""
        self._reading.set()

    async def drop(self) -> None:
        """Cut the connection without a word."""
        if self._reader:
            self._reader.cancel()
            await asyncio.wait([self._reader])
            if not self._reader.cancelled():
                self._reader.result()
        if self._ws is not None and (transport := self._ws.get_extra_info("transport_")):
            transport.abort()
        if self._ws is not None and not self._ws.closed:
            response = self._ws._response
            if response.connection is not None and response.connection.transport is not None:
                response.connection.transport.abort()
            response.close()
        if self._http is not None:
            await self._http.close()
        self.closed = True

    async def _read(self) -> None:
        try:
            if self._ws is not None:
                await self._read_websocket(self._ws)
            else:
                await self._read_polling()
        except (aiohttp.ClientError, ConnectionError):
            pass
        finally:
            self.closed = True

    async def _read_websocket(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await self._reading.wait()
            message = await ws.receive()
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                self.close_code = ws.close_code
                return
            await self._take(message.data)

    async def _read_polling(self) -> None:
        assert self._http
        while True:
            await self._reading.wait()
            async with self._http.get(self.session_url) as answer:
                self.status = answer.status
                text = await answer.text()
                if answer.status != 200:
                    return
            packets = text.split(SEPARATOR)
            self.payloads.append(len(packets))
            for packet in packets:
                is_binary = packet[:1] == "b"
                await self._take(base64.b64decode(packet[1:]) if is_binary else packet)
                if packet == "1":
                    return

    async def _take(self, packet: str | bytes) -> None:
        if isinstance(packet, str) and packet[:1] != "4":
            self.control.append(packet)
            if packet == "2" and self.pong:
                await self.send("3")
            return
        message = packet if isinstance(packet, bytes) else packet[1:]
        self.packets.append(message)
        self._parse(message)

    # -- Socket.IO

    async def connect(self, auth: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Send CONNECT and return its reply."""
        given = {**(auth or {}), **more}
        await self.send("40" + (json.dumps(given) if given else ""))
        await eventually(lambda: self.reply is not None or self.closed)
        assert self.reply is not None, "closed instead of a CONNECT reply"
        if "pid" in self.reply:
            secrets.add(self.reply["pid"])
        return self.reply

    async def session(self) -> tuple[dict[str, Any], str]:
        """Wait for `hub:session` and return what it says and its offset."""
        args = await eventually(lambda: next(iter(self.named("hub:session")), None))
        return args[0], args[-1]

    async def emit(self, verb: str, *args: Any) -> None:
        """Send an event without asking for an acknowledgement."""
        await self.send(*encode([verb, *args]))

    async def ask(self, verb: str, *args: Any) -> Any:
        """Send an event and return the first argument of its acknowledgement."""
        number = next(self._ids)
        await self.send(*encode([verb, *args], number))
        return await self.answer(number)

    async def ask_text(self, text: str, *attachments: bytes, kind: str = "2") -> Any:
        """Send an event whose JSON is given as text, and return its acknowledgement."""
        number = next(self._ids)
        count = f"{len(attachments)}-" if kind == "5" else ""
        await self.send(f"4{kind}{count}{number}{text}", *attachments)
        return await self.answer(number)

    async def answer(self, number: int) -> Any:
        """Wait for an acknowledgement and return its first argument."""
        await eventually(
            lambda: number in self.answers or self.closed, what=lambda: self.packets[-3:]
        )
        assert number in self.answers, f"closed instead of an answer ({self.close_code})"
        return self.answers.pop(number)

    async def join(self, *rooms: str) -> None:
        """Subscribe to rooms."""
        for room in rooms:
            answer = await self.ask("subscribe", {"room": room})
            assert answer["ok"] is True, answer

    async def publish(self, room: str, data: Any, event: str = "m", **more: Any) -> str:
        """Publish and return the offset."""
        fields = {"room": room, "event": event, "data": data, **more}
        answer = await self.ask("publish", fields)
        assert answer["ok"] is True, answer
        return str(answer.get("offset", ""))

    def named(self, name: str) -> list[list[Any]]:
        """Return the arguments of each event of that name."""
        return [args for event, args, _ in self.events if event == name]

    def data(self, name: str = "m") -> list[Any]:
        """Return the data of each message of that name."""
        return [args[0] for args in self.named(name)]

    def _parse(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            assert self._pending is not None, "an attachment that nothing announced"
            self._attachments.append(message)
            header, count = self._pending
            if len(self._attachments) == count:
                self._pending = None
                self._got(header, [bytes(part) for part in self._attachments])
            return
        assert self._pending is None, f"{message!r} between a packet and its attachments"
        if message[0] in "56":
            count, _, rest = message[1:].partition("-")
            self._pending, self._attachments = (message[0] + rest, int(count)), []
        else:
            self._got(message, [])

    def _got(self, message: str, attachments: list[bytes]) -> None:
        kind, rest = message[0], message[1:]
        digits = len(rest) - len(rest.lstrip("0123456789"))
        number = int(rest[:digits]) if digits else None
        body = json.loads(rest[digits:]) if rest[digits:] else None
        body = _fill(body, attachments)
        if kind in "04":
            self.reply = body
        elif kind == "1":
            self.events.append(("41", [], None))
        elif kind in "25":
            self.events.append((body[0], body[1:], number))
        elif kind in "36" and number is not None:
            self.answers[number] = body[0] if body else None


def encode(event: list[Any], number: int | None = None) -> list[str | bytes]:
    """Return the Engine.IO packets of a Socket.IO event."""
    attachments: list[bytes] = []

    def take(value: Any) -> Any:
        if isinstance(value, bytes):
            attachments.append(value)
            return {"_placeholder": True, "num": len(attachments) - 1}
        if isinstance(value, list | tuple):
            return [take(item) for item in value]
        if isinstance(value, dict):
            return {key: take(item) for key, item in value.items()}
        return value

    text = json.dumps(take(event), separators=(",", ":"))
    kind = f"45{len(attachments)}-" if attachments else "42"
    return [f"{kind}{'' if number is None else number}{text}", *attachments]


def _fill(value: Any, attachments: list[bytes]) -> Any:
    if isinstance(value, list):
        return [_fill(item, attachments) for item in value]
    if isinstance(value, dict):
        if value.get("_placeholder") is True:
            return attachments[value["num"]]
        return {key: _fill(item, attachments) for key, item in value.items()}
    return value
