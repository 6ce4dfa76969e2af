"""A WebSocket client that reads only when told, over a TCP connection that holds little."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

from tests.support.socketio_wire import CONNECT, EVENT, encode

# Bytes that the kernel holds for a client that does not read: few, because so few fit into a segment and into its buffer.
SEGMENT, BUFFER = 1400, 8192


class Narrow:
    """One Engine.IO session over a WebSocket. `packets` holds the text packets that were read, `answers` those to verbs."""

    def __init__(self) -> None:
        self.packets: list[str] = []
        self.answers: dict[int, Any] = {}
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket()
        self._received = bytearray()
        self._sending = asyncio.Lock()
        self._pongs = 0

    async def open(self, port: int, **auth: Any) -> Narrow:
        """Connect, and read until the session is there."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._socket.setblocking(False)
        await self._loop.sock_connect(self._socket, ("127.0.0.1", port))
        await self._loop.sock_sendall(
            self._socket,
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        )
        while b"\r\n\r\n" not in self._received:
            self._received += await self._loop.sock_recv(self._socket, 4096)
        del self._received[: self._received.index(b"\r\n\r\n") + 4]
        await self.send(*encode(CONNECT, auth or None))
        while not any(packet.startswith('42["hub:session"') for packet in self.packets):
            await self.read()
        return self

    async def send(self, *packets: Any) -> None:
        """Send text packets; this waits as long as the hub reads nothing."""
        async with self._sending:
            frames = b"".join(
                _frame(packet.encode()) for packet in [*packets, *self._pongs * ["3"]]
            )
            self._pongs = 0
            await self._loop.sock_sendall(self._socket, frames)

    async def ask(self, first: int, count: int, verb: str, fields: dict[str, Any]) -> None:
        """Send a verb `count` times, with the acknowledgement ids from `first` on."""
        for number in range(first, first + count):
            await self.send(*encode(EVENT, [verb, fields], number))

    async def read(self, size: int = 4096) -> int:
        """Read up to so many bytes, and return how many came; 0: the connection has ended."""
        try:
            data = await self._loop.sock_recv(self._socket, size)
        except ConnectionError:
            data = b""
        self._received += data
        while (packet := self._take()) is not None:
            self.packets.append(packet)
            self._pongs += packet == "2"
            if packet.startswith("43"):
                number, _, rest = packet[2:].partition("[")
                self.answers[int(number)] = json.loads("[" + rest)[0]
        if self._pongs and not self._sending.locked():
            await self.send()
        return len(data)

    def close(self) -> None:
        self._socket.close()

    def _take(self) -> str | None:
        data = self._received
        if len(data) < 2:
            return None
        size, start = data[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start])
        if len(data) < start + size:
            return None
        packet = bytes(data[start : start + size])
        closing = data[0] == 0x88
        del data[: start + size]
        return "" if closing else packet.decode()


def _frame(payload: bytes) -> bytes:
    size = len(payload)
    head = bytes([0x81, 0x80 | size]) if size < 126 else b"\x81\xfe" + size.to_bytes(2)
    return head + bytes(4) + payload
