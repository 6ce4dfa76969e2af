"""A TCP proxy that breaks connections in the ways that networks do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from types import TracebackType
from typing import Any, Self

CHUNK = 65536


class _Pair:
    """A client's connection, and the one to the hub that belongs to it."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.writers = (near, far)
        self.tasks: list[asyncio.Task[None]] = []


class Proxy:
    """Passes bytes between clients and one port, until told otherwise.

    `cut` resets, `blackhole` swallows both ways and closes nothing, `stall` stops one way without
    closing, `delay` makes each chunk late (seconds); `refuse` closes whatever connects.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.delay = 0.0
        self.refuse = False
        # How often connections were cut, in whatever way.
        self._cuts = 0
        # How often it was told to do each kind of harm.
        self.strikes: Counter[str] = Counter()
        # Connections made so far.
        self.count = 0
        self._pairs: set[_Pair] = set()
        self._lost: set[_Pair] = set()
        self._tasks: set[asyncio.Future[Any]] = set()
        # Cleared: bytes to the client, or to the hub, wait.
        self._flow = {"down": asyncio.Event(), "up": asyncio.Event()}
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        for flow in self._flow.values():
            flow.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server
        self._server.close()
        self.cut()
        for pair in self._lost:
            for writer in pair.writers:
                _reset(writer)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted is closed in the next turn of the loop

    def cut(self) -> int:
        """Reset every connection, both ways; return how many there were."""
        self.strikes["cut"] += 1
        pairs = self._take()
        for pair in pairs:
            for writer in pair.writers:
                _reset(writer)
        return len(pairs)

    def cut_client_side(self) -> int:
        """Reset the clients' connections while the hub's side stays open and silent: half-open."""
        return self._cut_side(0)

    def cut_hub_side(self) -> int:
        """Reset the hub's connections while the clients' side stays open and silent."""
        return self._cut_side(1)

    def _cut_side(self, side: int) -> int:
        self.strikes[("cut client side", "cut hub side")[side]] += 1
        pairs = self._take()
        self._lost |= pairs
        for pair in pairs:
            for task in pair.tasks:
                task.cancel()
            _reset(pair.writers[side])
        return len(pairs)

    def blackhole(self) -> int:
        """Swallow what either side sends on the present connections; close nothing."""
        self.strikes["blackhole"] += 1
        pairs = self._take()
        self._lost |= pairs
        return len(pairs)

    def stall(self, way: str) -> None:
        """Stop passing bytes `down` to the clients or `up` to the hub."""
        self.strikes[f"stall {way}"] += 1
        self._flow[way].clear()

    def flow(self, way: str) -> None:
        """Undo `stall`."""
        self._flow[way].set()

    def _late(self, pair: _Pair, way: str, data: bytes) -> float:
        """Return by how many seconds a chunk is to be late."""
        return self.delay

    def _through(self, pair: _Pair, way: str, data: bytes) -> bytes:
        """Return what of a chunk is passed on."""
        return data

    def _take(self) -> set[_Pair]:
        self._cuts += 1
        pairs, self._pairs = self._pairs, set()
        return pairs

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        if self.refuse:
            _reset(writer)
            return
        cuts = self._cuts
        making = asyncio.ensure_future(asyncio.open_connection("127.0.0.1", self.target))
        self._keep(making)
        try:
            far_reader, far_writer = await making
        except (OSError, asyncio.CancelledError):
            _reset(writer)
            return
        if self._cuts != cuts:  # while this one was being made
            _reset(writer)
            _reset(far_writer)
            return
        pair = _Pair(writer, far_writer)
        self._pairs.add(pair)
        pair.tasks = [
            asyncio.create_task(self._pass(pair, reader, far_writer, "up")),
            asyncio.create_task(self._pass(pair, far_reader, writer, "down")),
        ]
        for task in pair.tasks:
            self._keep(task)

    def _keep(self, task: asyncio.Future[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass(
        self, pair: _Pair, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str
    ) -> None:
        try:
            while data := await source.read(CHUNK):
                if late := self._late(pair, way, data):
                    await asyncio.sleep(late)
                await self._flow[way].wait()
                if pair in self._lost:
                    continue
                sink.write(self._through(pair, way, data))
                await sink.drain()
        except OSError:
            pass
        except asyncio.CancelledError:
            if pair not in self._lost:
                _reset(sink)
            raise
        if pair not in self._lost:
            self._pairs.discard(pair)
            with contextlib.suppress(OSError):
                sink.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection by RST, as if the cable had been pulled and put back elsewhere."""
    with contextlib.suppress(OSError):
        raw = writer.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
