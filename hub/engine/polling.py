"""The long-polling transport: GETs that wait for packets, POSTs that bring them, on aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from hub.engine.connection import Connection
from hub.engine.packet import ProtocolError, decode_payload
from hub.engine.ports import Host
from hub.engine.state import Reason

logger = logging.getLogger("hub.engine")

# Messages of one body handled in one go before other connections get their turn.
TURN = 64
# How long the rest of a refused body is read, so that its sender reads the answer.
LINGER = 0.5
# Answers above this are compressed outside the event loop.
_COMPRESS_INLINE = 64 * 1024


class _Watch(asyncio.Protocol):
    """Stands before aiohttp's protocol while a poll waits, to hear at once that it was cut off."""

    __slots__ = ("_inner", "_lost", "_transport")

    def __init__(self, request: web.BaseRequest, lost: asyncio.Future[str | None]) -> None:
        transport = request.transport
        assert transport is not None
        self._transport: asyncio.Transport = transport
        self._inner = request.protocol
        self._lost = lost
        transport.set_protocol(self)

    def restore(self) -> None:
        if not self._transport.is_closing() and self._transport.get_protocol() is self:
            self._transport.set_protocol(self._inner)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        self._inner.eof_received()
        return None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._lost.done():
            self._lost.set_exception(ConnectionResetError())
        self._inner.connection_lost(exc)


async def poll(request: web.BaseRequest, connection: Connection, host: Host) -> web.Response:
    """Answer a GET: at once with what is queued, or when something comes."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str | None] = loop.create_future()

    def wake(body: str | None) -> None:
        if not answer.done():
            answer.set_result(body)

    transport = request.transport
    if transport is None or transport.is_closing():
        connection.unpoll()
        return bad_request("Bad request", 3)
    connection.poll(wake, _mark(request.query.get("t", "")))
    if not answer.done():
        watch = _Watch(request, answer)
        try:
            await asyncio.wait((answer,))
        except asyncio.CancelledError:
            connection.unpoll()
            raise
        finally:
            watch.restore()
    if answer.exception() is not None:
        # The session is over: no client gives up a poll and goes on. Nobody reads this answer.
        connection.unpoll()
        return bad_request("Bad request", 3)
    body = answer.result()
    if body is None:
        return bad_request("Session ID unknown", 1)
    return await _respond(request, body.encode(), host)


def _mark(t: str) -> str:
    """Return what is unique to a request: clients put it into `t` against caches; some only the second."""
    return "" if t.isdigit() and len(t) <= 10 else t


async def _respond(request: web.BaseRequest, body: bytes, host: Host) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    options = host.options
    if (
        options.http_compression
        and len(body) >= options.compression_threshold
        and "gzip" in request.headers.get("Accept-Encoding", "")
    ):
        headers["Content-Encoding"] = "gzip"
        if len(body) > _COMPRESS_INLINE:
            body = await asyncio.to_thread(gzip.compress, body, 1)
        else:
            body = gzip.compress(body, 1)
    return web.Response(body=body, content_type="text/plain", charset="utf-8", headers=headers)


async def post(request: web.BaseRequest, connection: Connection, host: Host) -> web.Response:
    """Take a POST's body, packet after packet; the answer comes when all are handled."""
    task = asyncio.current_task()
    assert task is not None
    reading = True

    def abort() -> None:
        # The session ended meanwhile: nobody waits for the rest of this body.
        if reading and request.transport is not None:
            request.transport.abort()

    if not connection.post(abort):
        return bad_request("Bad request", 3)
    try:
        body = await _read(request, host.options.max_payload)
        reading = False
        if body is None:
            connection.fail("payload too big")
            return _too_large()
        packets = decode_payload(body, host.options.max_packets)
        connection.begin()
        try:
            await _handle(connection, packets)
        finally:
            connection.done()
    except ProtocolError as error:
        connection.fail(str(error))
        return bad_request("Bad request", 3)
    except asyncio.CancelledError:
        connection.lost(Reason.TRANSPORT_ERROR)
        raise
    except ConnectionError:
        connection.lost(Reason.TRANSPORT_ERROR)
        return bad_request("Bad request", 3)
    except (web.RequestPayloadError, HttpProcessingError, EOFError, ValueError):
        # aiohttp's ways to say that a body is malformed.
        connection.fail("malformed body")
        return bad_request("Bad request", 3)
    finally:
        reading = False
        connection.posted()
    if connection.failed:
        return bad_request("Bad request", 3)
    return web.Response(text="ok", content_type="text/html")


async def _handle(connection: Connection, packets: list[str | bytes]) -> None:
    turn = 0
    for packet in packets:
        if connection.closed:
            return
        while connection.paused and not connection.closed:
            resumed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            connection.when_resumed(lambda resumed=resumed: resumed.set_result(None))  # type: ignore[misc]
            await resumed
        wait = connection.spend()
        if wait:
            await asyncio.sleep(wait)
        pending = connection.receive(packet)
        if pending is not None:
            await connection.settle(pending)
        turn += 1
        if turn == TURN:
            turn = 0
            await asyncio.sleep(0)


async def _read(request: web.BaseRequest, limit: int) -> bytes | None:
    """Return the whole body, None where it is longer than `limit`."""
    if request.content_length is not None and request.content_length > limit:
        return None
    body = bytearray()
    while chunk := await request.content.readany():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def bad_request(message: str, code: int) -> web.Response:
    """Return HTTP 400 with the reference server's error code."""
    return web.json_response({"code": code, "message": message}, status=400)


def _too_large() -> web.Response:
    return web.json_response({"code": 3, "message": "Payload too large"}, status=413)


async def answer_early(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Send an answer while the body is still coming, and end the connection.

    For a moment the rest is read and dropped, so that the peer is not reset before it has read the
    answer. aiohttp would hold its task for ten seconds, though the connection be lost.
    """
    response.force_close()
    with contextlib.suppress(ConnectionError, TimeoutError):
        await response.prepare(request)
        await response.write_eof()
        async with asyncio.timeout(LINGER):
            while not request.content.at_eof():
                await request.content.readany()
    if request.transport is not None:
        request.transport.close()
    if not request.content.is_eof():
        request.content.feed_eof()
