"""Polls that come again on their TCP connection, and so are answered without aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.core.state import CloseCode
from hub.engineio.options import EngineOptions
from hub.engineio.server import EngineServer
from tests.conformance import engineio_server
from tests.conformance.conftest import Peer, Serve, serving, until
from tests.support.times import MS, UNIT


class Line:
    """One TCP connection on which a session is polled, byte by byte as told."""

    def __init__(
        self, peer: Peer, sid: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.peer = peer
        self.sid = sid
        self.reader = reader
        self.writer = writer
        self._count = 0

    def poll(self, t: str | None = None, *more: str) -> bytes:
        """Return a poll; `t`: a new one for None, none at all for an empty one."""
        self._count += 1
        t = f"t{self._count}" if t is None else t
        stamp = f"&t={t}" if t else ""
        query = f"EIO=4&transport=polling{stamp}&sid={self.sid}"
        lines = [f"GET /engine.io/?{query} HTTP/1.1", "Host: x", *more, "", ""]
        return "\r\n".join(lines).encode()

    async def waiting_poll(self, t: str | None = None) -> None:
        """Send a poll, and return when the server holds it because there is nothing to answer."""
        self.write(self.poll(t))
        await self.peer.holds_poll(self.sid)

    def post(self, body: str) -> bytes:
        query = f"EIO=4&transport=polling&sid={self.sid}"
        return (
            f"POST /engine.io/?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def write(self, *chunks: bytes) -> None:
        self.writer.write(b"".join(chunks))

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, header and body of the next answer."""
        async with asyncio.timeout(2 * UNIT):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:-2])
            body = await self.reader.readexactly(int(headers["Content-Length"]))
        return int(head[0].split()[1]), headers, body

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        self.write(request)
        return await self.answer()


@pytest.fixture
async def line_of(
    engine_of: Serve,
) -> AsyncIterator[Any]:
    """Open a session and a line for it, and have its poll known: the next one comes again."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            *more: str, t: str | None = None, **given: Any
        ) -> tuple[Line, EngineServer, Any]:
            peer, engine = await engine_of(**given)
            line = await stack.enter_async_context(opened(peer))
            connection = engine.connections[line.sid]
            # The first makes the engine look at the connection, the second is known from then on.
            for _ in range(2):
                connection.send(PreparedMessage("x"))
                assert (await line.ask(line.poll(t, *more)))[2] == b"4x"
            return line, engine, connection

        yield start


@contextlib.asynccontextmanager
async def opened(peer: Peer) -> AsyncIterator[Line]:
    sid = await peer.open()
    reader, writer = await peer.raw()
    try:
        yield Line(peer, sid, reader, writer)
    finally:
        writer.close()


@pytest.mark.parametrize("t", [None, "", "1700000000"])
async def test_a_poll_that_comes_again_is_not_handled_by_aiohttp(
    line_of: Any, t: str | None
) -> None:
    line, _, connection = await line_of(t=t)
    handled = line.peer.handled
    for number in range(5):
        await line.waiting_poll(t)
        connection.send(PreparedMessage(str(number)))
        assert (await line.answer())[2] == f"4{number}".encode()
    assert line.peer.handled == handled


async def test_its_answer_is_the_same(line_of: Any) -> None:
    line, _, connection = await line_of("Origin: http://a", cors=("http://a",))
    answers = []
    for other in ("X-Other: 1", "Origin: http://a", "Origin: http://a"):
        connection.send(PreparedMessage("x"))
        status, headers, body = await line.ask(line.poll(None, other, "Origin: http://a"))
        headers.pop("Date")
        answers.append((status, headers, body))
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][1]["Access-Control-Allow-Origin"] == "http://a"


async def test_large_answers_are_compressed(line_of: Any) -> None:
    line, _, connection = await line_of("Accept-Encoding: gzip, deflate")
    handled = line.peer.handled
    for size in (10, 5000, 300_000):
        connection.send(PreparedMessage("x" * size))
        _, headers, body = await line.ask(line.poll(None, "Accept-Encoding: gzip, deflate"))
        assert headers.get("Content-Encoding") == ("gzip" if size > 10 else None)
        assert (gzip.decompress(body) if size > 10 else body) == b"4" + b"x" * size
    assert line.peer.handled == handled


async def test_messages_of_one_turn_share_an_answer(line_of: Any) -> None:
    line, _, connection = await line_of()
    await line.waiting_poll()
    connection.send(PreparedMessage("a"))
    connection.send(PreparedMessage("b"))
    assert (await line.answer())[2] == b"4a\x1e4b"


async def test_the_same_stamp_again_ends_the_session(line_of: Any) -> None:
    line, engine, connection = await line_of()
    connection.send(PreparedMessage("x"))
    assert (await line.ask(line.poll("same")))[0] == 200
    assert (await line.ask(line.poll("same")))[0] == 400
    assert engine.counters["a poll was repeated"] == 1
    assert not engine.connections


async def test_two_polls_at_once_end_the_session(line_of: Any) -> None:
    line, engine, _ = await line_of()
    await line.waiting_poll()
    assert (await line.peer.poll(line.sid))[0] == 400
    assert (await line.answer())[::2] == (200, b"1")
    assert (await line.ask(line.poll()))[0] == 400
    assert not engine.connections


async def test_other_requests_on_the_connection_go_their_way(line_of: Any) -> None:
    line, _, connection = await line_of()
    for number in range(4):
        assert (await line.ask(line.post(f"4{number}")))[2] == b"ok"
        assert (await line.ask(line.poll()))[2] == f"4{number}".encode()
        connection.send(PreparedMessage("x"))
        assert (await line.ask(line.poll()))[2] == b"4x"
    assert (await line.ask(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 404


async def test_what_is_sent_behind_a_waiting_poll_is_answered_behind_it(line_of: Any) -> None:
    line, _, connection = await line_of()
    await line.waiting_poll()
    line.write(line.post("4back"), line.poll())
    await asyncio.sleep(50 * MS)  # in which nothing of it is dealt with
    connection.send(PreparedMessage("x"))
    assert (await line.answer())[2] == b"4x"
    assert (await line.answer())[2] == b"ok"
    assert (await line.answer())[2] == b"4back"


async def test_a_poll_behind_one_that_aiohttp_holds_waits_for_it(line_of: Any) -> None:
    line, _, connection = await line_of()
    assert (await line.ask(line.post("4x")))[2] == b"ok"
    assert (await line.ask(line.poll()))[2] == b"4x"
    assert (await line.ask(line.post("3")))[2] == b"ok"
    # The post made this a new request for the engine.
    await line.waiting_poll()
    line.write(line.poll())
    await asyncio.sleep(20 * MS)  # in which the second is not answered
    for message in ("a", "b"):
        connection.send(PreparedMessage(message))
        assert (await line.answer())[2] == b"4" + message.encode()


async def test_a_request_in_two_parts_is_not_taken_for_a_poll(line_of: Any) -> None:
    line, _, connection = await line_of()
    poll = line.poll()
    line.write(poll[: poll.index(b"Host")] + b"X: ")
    await asyncio.sleep(20 * MS)  # so that it arrives by itself
    # Its first line is the value of X.
    line.write(poll)
    connection.send(PreparedMessage("x"))
    assert (await line.answer())[2] == b"4x"
    # What came was not the whole of a poll, so the next one is not the same again.
    for handled in (1, 0):
        before = line.peer.handled
        connection.send(PreparedMessage("x"))
        assert (await line.ask(line.poll()))[2] == b"4x"
        assert line.peer.handled == before + handled


@pytest.mark.parametrize("header", ["Connection: close", "Content-Length: 1"])
async def test_the_connection_ends_behind_some_polls(engine_of: Serve, header: str) -> None:
    peer, engine = await engine_of()
    async with opened(peer) as line:
        engine.connections[line.sid].send(PreparedMessage("x"))
        _, headers, body = await line.ask(line.poll(None, header))
        assert (headers.get("Connection"), body) == ("close", b"4x")
        async with asyncio.timeout(2 * UNIT):
            assert await line.reader.read() == b""


async def test_every_poll_that_expects_it_is_told_to_continue(engine_of: Serve) -> None:
    peer, engine = await engine_of()
    async with opened(peer) as line:
        for _ in range(4):
            engine.connections[line.sid].send(PreparedMessage("x"))
            line.write(line.poll(None, "Expect: 100-continue"))
            assert await line.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert (await line.answer())[2] == b"4x"


async def test_a_cut_poll_ends_its_session_at_once(line_of: Any) -> None:
    line, engine, _ = await line_of()
    ends: list[str] = []
    engine.on("disconnect", lambda sid, reason: ends.append(reason))
    await line.waiting_poll()
    line.writer.transport.abort()
    await until(lambda: ends == ["transport error"])
    assert not engine.connections


async def test_the_end_of_the_session_answers_a_waiting_poll(line_of: Any) -> None:
    line, _, connection = await line_of()
    await line.waiting_poll()
    connection.close(CloseCode.RESTART)
    status, headers, body = await line.answer()
    assert (status, body) == (400, b'{"code": 1, "message": "Session ID unknown"}')
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert (await line.ask(line.poll()))[0] == 400


async def test_a_poll_after_an_upgrade_is_refused(line_of: Any) -> None:
    line, _, connection = await line_of()
    async with line.peer.upgraded(line.sid):
        await until(lambda: connection.transport == "websocket")
        _, _, body = await line.ask(line.poll())
        assert body == b'{"code": 3, "message": "Bad request"}'


async def test_who_does_not_read_answers_gets_no_more_of_them(line_of: Any) -> None:
    line, _, connection = await line_of()
    transport = line.writer.transport
    transport.pause_reading()
    for _ in range(14):
        connection.send(PreparedMessage("x" * 999_000))
    for _ in range(14):
        line.write(line.poll())
        await asyncio.sleep(20 * MS)
    assert connection.buffered > 4_000_000
    transport.resume_reading()
    read = 0
    while read < 14 * 999_000:
        read += (await line.answer())[2].count(b"x")
    assert not connection.buffered


async def test_an_idle_connection_is_closed_and_a_polled_one_is_not() -> None:
    options = EngineOptions(
        connect_timeout=0, ping_interval=200 * MS, ping_timeout=200 * MS, close_timeout=500 * MS
    )
    app, _ = engineio_server.application(options)
    async with serving(app, "engine.io", keepalive_timeout=500 * MS) as peer, opened(peer) as line:
        for _ in range(6):
            assert (await line.ask(line.poll()))[2] == b"2"
            assert (await peer.post(line.sid, "3"))[0] == 200
        # All but two of them, the posts and the session's handshake passed aiohttp by.
        assert peer.handled == 2 + 6 + 1
        async with asyncio.timeout(1500 * MS):
            assert await line.reader.read() == b""


async def test_polls_longer_than_the_keep_alive_are_handled_by_aiohttp() -> None:
    # With the default ping_timeout, 20 s, a poll may take 80 s; here none does.
    app, engine = engineio_server.application(EngineOptions(connect_timeout=0, ping_interval=60))
    async with serving(app, "engine.io", keepalive_timeout=75) as peer, opened(peer) as line:
        for _ in range(3):
            before = peer.handled
            engine.connections[line.sid].send(PreparedMessage("x"))
            assert (await line.ask(line.poll()))[2] == b"4x"
            assert peer.handled == before + 1
