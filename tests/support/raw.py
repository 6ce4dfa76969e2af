"""A bare Engine.IO and Socket.IO driver over aiohttp, for tests that look at the wire itself.

It answers pings unless told otherwise, and keeps every packet as it came.
"""

from __future__ import annotations

import asyncio
import io
from typing import Any

import aiohttp

from tests.support.hubs import secrets
from tests.support.socketio_wire import (
    ACK,
    CLOSE,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    OPEN,
    Packet,
    Wire,
    encode,
    is_message,
    join_payload,
    split_payload,
)
from tests.support.times import eventually


class Raw:
    """One Engine.IO session; `packets` holds what came, without the Engine.IO type for messages.

    `events` holds `(name, args, ack number)`; `closed` says that the transport has ended.
    """

    def __init__(self, url: str, transport: str = "websocket", *, pong: bool = True) -> None:
        self.url = url
        self.transport = transport
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
        self._wire = Wire(pong=pong)
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
        opened = self._wire.receive(split_payload(first)[0])
        assert opened is not None
        assert opened.type == OPEN, first
        self.handshake = opened.data
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
        payload = io.BytesIO(join_payload(packets).encode())
        async with self._http.post(self.session_url, data=payload) as answer:
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
            packets = split_payload(text)
            self.payloads.append(len(packets))
            for packet in packets:
                await self._take(packet)
                if packet == CLOSE:
                    return

    async def _take(self, packet: str | bytes) -> None:
        if isinstance(packet, str) and not is_message(packet):
            self.control.append(packet)
        else:
            self.packets.append(packet if isinstance(packet, bytes) else packet[1:])
        received = self._wire.receive(packet)
        if due := self._wire.due():
            await self.send(*due)
        if received is not None:
            self._got(received)

    # -- Socket.IO

    async def connect(self, auth: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Send CONNECT and return its reply."""
        given = {**(auth or {}), **more}
        await self.send(*encode(CONNECT, given or None))
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
        await self.send(*encode(EVENT, [verb, *args]))

    async def ask(self, verb: str, *args: Any) -> Any:
        """Send an event and return the first argument of its acknowledgement."""
        number, packets = self._wire.ask(verb, *args)
        await self.send(*packets)
        return await self.answer(number)

    async def ask_text(self, text: str, *attachments: bytes, kind: str = "2") -> Any:
        """Send an event whose JSON is given as text, and return its acknowledgement."""
        number = self._wire.number()
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

    def _got(self, packet: Packet) -> None:
        if packet.type in (CONNECT, CONNECT_ERROR):
            self.reply = packet.data
        elif packet.type == DISCONNECT:
            self.events.append((DISCONNECT, [], None))
        elif packet.type == EVENT:
            self.events.append((packet.data[0], packet.data[1:], packet.number))
        elif packet.type == ACK and packet.number is not None:
            self.answers[packet.number] = packet.data[0] if packet.data else None
