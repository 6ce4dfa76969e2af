"""The long-polling transport: GETs that wait for packets, POSTs that bring them, on aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from hub.engineio.core.connection import Connection
from hub.engineio.core.interfaces import Host
from hub.engineio.core.packet import ProtocolError, decode_payload
from hub.engineio.core.state import DisconnectReason
from hub.engineio.http_errors import break_circle
from hub.engineio.transports.http_responses import RawResponse, header_lines, taken
from hub.engineio.transports.poll_fast_path import Poll, PollFastPath

# Messages of one body handled in one go before other connections get their turn.
TURN = 64
# How long the rest of a refused body is read, so that its sender reads the answer.
LINGER = 0.5
# aiohttp's ways to say that the rest of a body does not come, or is malformed.
_BROKEN = (ConnectionError, web.RequestPayloadError, HttpProcessingError, EOFError, ValueError)


async def poll(
    request: web.BaseRequest, connection: Connection, host: Host, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answer a GET: at once with what is queued, or when something comes. `headers` go with the answer."""
    front = PollFastPath.of(request)
    if front is None:
        connection.on_poll_lost()
        return bad_request("Bad request", 3)
    answer = front.future()

    def wake(text: str | None) -> None:
        if not answer.done():
            answer.set_result(text)

    keep = _keeps(request) and not request.body_exists
    this = Poll(request, connection, host.options, header_lines(headers, keep=keep))
    if keep:
        front.learn(this, request)
    connection.poll(wake, this.mark)
    try:
        text = await answer
    except asyncio.CancelledError:
        connection.on_poll_lost()
        raise
    if text is None:
        if front.lost:
            # The session is over: no client gives up a poll and goes on. Nobody reads this answer.
            connection.on_poll_lost()
        return bad_request("Session ID unknown", 1)
    if this.takes_long(text):
        data = await asyncio.to_thread(this.answer, text)
    else:
        data = this.answer(text)
    return RawResponse(data, keep=keep, written=front.answered)


def _keeps(request: web.BaseRequest) -> bool:
    """Tell whether the connection stays open behind the answer; for HTTP/1.0 it never does."""
    return request.version == HttpVersion11 and request.keep_alive


async def post(
    request: web.BaseRequest, connection: Connection, host: Host, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Take a POST's body, packet after packet; the answer comes when all are handled."""
    task = asyncio.current_task()
    assert task is not None
    reading = True

    def abort() -> None:
        # The session ended meanwhile: nobody waits for the rest of this body.
        if reading and request.transport is not None:
            request.transport.abort()

    if not connection.begin_post(abort):
        return bad_request("Bad request", 3)
    try:
        try:
            body = await _read(request, host.options.max_payload)
        finally:
            reading = False
        if body is None:
            connection.fail("payload too big")
            return _too_large()
        packets = decode_payload(body, host.options.max_packets)
        connection.begin_handling()
        try:
            await _handle(connection, packets)
        finally:
            connection.end_handling()
    except ProtocolError as error:
        connection.fail(str(error))
        return bad_request("Bad request", 3)
    except asyncio.CancelledError:
        connection.abort(DisconnectReason.TRANSPORT_ERROR)
        raise
    except ConnectionError:
        connection.abort(DisconnectReason.TRANSPORT_ERROR)
        return bad_request("Bad request", 3)
    finally:
        connection.end_post()
    if connection.failed:
        return bad_request("Bad request", 3)
    if request.transport is None or request.transport.is_closing():
        # Nobody waits for the answer: the session is over, as no client gives up a POST and goes on.
        connection.abort(DisconnectReason.TRANSPORT_ERROR)
    keep = _keeps(request)
    return RawResponse(taken(header_lines(headers, keep=keep)), keep=keep)


async def _handle(connection: Connection, packets: list[str | bytes]) -> None:
    turn = 0
    for packet in packets:
        if connection.closed:
            return
        while connection.paused and not connection.closed:
            resumed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            connection.when_resumed(lambda resumed=resumed: resumed.set_result(None))  # type: ignore[misc]
            await resumed
        if wait := connection.message_rate.take():
            await asyncio.sleep(connection.throttle(wait))
        pending = connection.receive(packet)
        if pending is not None:
            await connection.settle(pending)
        turn += 1
        if turn == TURN:
            turn = 0
            await asyncio.sleep(0)


async def _read(request: web.BaseRequest, limit: int) -> bytes | None:
    """Return the whole body, None where it is longer than `limit`. Raises ConnectionResetError, ProtocolError."""
    if request.content_length is not None and request.content_length > limit:
        return None
    body = bytearray()
    try:
        while chunk := await request.content.readany():
            body += chunk
            if len(body) > limit:
                return None
    except _BROKEN as error:
        raise _own(error) from None
    return bytes(body)


def _own(error: Exception) -> Exception:
    """Return what to raise instead of an error of aiohttp's that a body ended with.

    The body keeps that error.
    """
    break_circle(error)
    lost = isinstance(error, ConnectionError)
    return ConnectionResetError() if lost else ProtocolError("malformed body")


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
            await _drop(request.content)
    if request.transport is not None:
        request.transport.close()
    if not request.content.is_eof():
        request.content.feed_eof()


async def _drop(body: StreamReader) -> None:
    """Read the rest of a body, or what comes of it."""
    try:
        while not body.at_eof():
            await body.readany()
    except _BROKEN as error:
        break_circle(error)
