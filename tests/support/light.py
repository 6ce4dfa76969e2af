"""A Socket.IO client that is one asyncio protocol: cheap enough for one process to be thousands of them.

It knows WebSocket alone, keeps the data and the last offset of what it hears, and checks nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any, Self

from tests.support.socketio_wire import ACK, CONNECT, DISCONNECT, EVENT, OPEN, Wire, encode

_REQUEST = (
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "{more}\r\n"
)


# Opcodes of WebSocket frames.
_TEXT, _BINARY, _CLOSE = 1, 2, 8


class Refused(Exception):
    """The handshake was not answered with 101; `status` says how, `retry_after` when to try again."""

    def __init__(self, head: bytes) -> None:
        lines = head.decode().split("\r\n")
        super().__init__(lines[0])
        self.status = int(lines[0].split()[1])
        hints = [line.split(": ")[1] for line in lines if line.lower().startswith("retry-after:")]
        self.retry_after = float(hints[0]) if hints else None


class Light(asyncio.Protocol):
    """One connection. `heard` holds the data of each message, `gaps` what `hub:gap` told; `closed` is done at its end."""

    def __init__(self, host: str, port: int, address: str = "") -> None:
        loop = asyncio.get_running_loop()
        self.host, self.port = host, port
        # Whom a proxy between would say this is.
        self.address = address
        self.heard: list[Any] = []
        self.gaps: list[dict[str, Any]] = []
        self.session: dict[str, Any] = {}
        self.offset: str | None = None
        self.pid: str | None = None
        # The close code, 0 where there was none.
        self.closed: asyncio.Future[int] = loop.create_future()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._connected: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._wire = Wire()
        self._code = 0
        self._buffer = b""
        self._head = True
        self._transport: asyncio.Transport

    @classmethod
    async def open(cls, host: str, port: int, address: str = "") -> Self:
        """Shake hands. Raises Refused, OSError."""
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: cls(host, port, address), host, port)
        await client._opened
        return client

    async def connect(self, **auth: Any) -> Self:
        """Send CONNECT and wait for its reply. Raises ConnectionError where the connection ends instead."""
        self.send(*encode(CONNECT, {key: value for key, value in auth.items() if value}))
        reply = await self._connected
        self.pid = reply.get("pid")
        return self

    def send(self, *packets: str | bytes) -> None:
        """Send Engine.IO packets; bytes are attachments."""
        for packet in packets:
            if isinstance(packet, bytes):
                self._write(_BINARY, packet)
            else:
                self._write(_TEXT, packet.encode())

    def ask(self, verb: str, **fields: Any) -> asyncio.Future[Any]:
        """Send a verb; the future holds its answer."""
        number, packets = self._wire.ask(verb, fields)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self.send(*packets)
        return answer

    def leave(self) -> None:
        """Disconnect deliberately."""
        self.send(DISCONNECT)
        self._write(_CLOSE)

    def cut(self) -> None:
        """Cut the connection without a word."""
        self._transport.abort()

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        more = f"X-Forwarded-For: {self.address}\r\n" if self.address else ""
        transport.write(_REQUEST.format(host=self.host, port=self.port, more=more).encode())

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(self._code)
        for waiting in (self._opened, self._connected, *self._answers.values()):
            if not waiting.done():
                waiting.set_exception(ConnectionError(f"closed with {self._code}"))
                waiting.exception()  # somebody may have given up on it

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._head:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            self._head, self._buffer = False, rest
            if not head.startswith(b"HTTP/1.1 101 "):
                self._opened.set_exception(Refused(head))
                self._transport.close()
                return
        buffer, start = self._buffer, 0
        while len(buffer) >= start + 2:
            size, body = buffer[start + 1], start + 2
            if size >= 126:
                body += 2 if size == 126 else 8
                if len(buffer) < body:
                    break
                size = int.from_bytes(buffer[start + 2 : body], "big")
            if len(buffer) < body + size:
                break
            self._frame(buffer[start] & 0x0F, buffer[body : body + size])
            start = body + size
        self._buffer = buffer[start:]

    def _write(self, opcode: int, data: bytes = b"") -> None:
        size = len(data)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        # A mask of zeros masks nothing.
        self._transport.write(bytes([0x80 | opcode]) + length + b"\0\0\0\0" + data)

    # -- what the hub says

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == _CLOSE:
            self._code = int.from_bytes(payload[:2], "big")
            if not self._transport.is_closing():
                self._write(_CLOSE)
                self._transport.close()
        elif opcode == _TEXT:
            self._packet(payload.decode())
        elif opcode == _BINARY:
            self._packet(payload)

    def _packet(self, packet: str | bytes) -> None:
        received = self._wire.receive(packet)
        self.send(*self._wire.due())
        if received is None:
            return
        if received.type == OPEN:
            self._opened.set_result(None)
        elif received.type == CONNECT:
            self._connected.set_result(received.data)
        elif received.type == EVENT:
            event, *args = received.data
            if args and isinstance(args[-1], str):
                self.offset = args[-1]
            if event == "hub:session":
                self.session = args[0]
            elif event == "hub:gap":
                self.gaps.append(args[0])
            else:
                self.heard.append(args[0])
        elif received.type == ACK and received.number is not None:
            answer = self._answers.pop(received.number)
            if not answer.done():
                answer.set_result(received.data[0])
