"""The polling transport on aiohttp: a GET waits for packets, a POST brings packets."""

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
from hub.engineio.transports.http_responses import RawResponse, header_lines, post_response
from hub.engineio.transports.poll_fast_path import ParsedPoll, PollFastPath

# Packets of one body that are handled before other connections get their turn.
TURN = 64
# How long the rest of a refused body is read, so that its sender gets to read the response.
LINGER = 0.5
# Exceptions of aiohttp for a body that breaks off or is malformed.
_BROKEN = (ConnectionError, web.RequestPayloadError, HttpProcessingError, EOFError, ValueError)


async def poll(
    request: web.BaseRequest, connection: Connection, host: Host, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answer a GET with the queued packets, or wait until there are some. The response also has `headers`."""
    fast_path = PollFastPath.for_request(request)
    if fast_path is None:
        connection.on_poll_lost()
        return bad_request("Bad request", 3)
    future = fast_path.poll_future()

    def reply(text: str | None) -> None:
        if not future.done():
            future.set_result(text)

    keep = _keeps(request) and not request.body_exists
    parsed = ParsedPoll(request, connection, host.options, header_lines(headers, keep=keep))
    if keep:
        fast_path.learn(parsed, request)
    connection.poll(reply, parsed.mark, fast_path)
    try:
        text = await future
    except asyncio.CancelledError:
        connection.on_poll_lost()
        raise
    if text is None:
        if fast_path.lost:
            # The session ends: no client cuts a poll off and goes on. Nobody reads this response.
            connection.on_poll_lost()
        return bad_request("Session ID unknown", 1)
    if parsed.is_slow(text):
        data = await asyncio.to_thread(parsed.response, text)
    else:
        data = parsed.response(text)
    return RawResponse(data, keep=keep, written=fast_path.on_response_written)


def _keeps(request: web.BaseRequest) -> bool:
    """Return whether the connection stays open after the response; with HTTP/1.0 it never does."""
    return request.version == HttpVersion11 and request.keep_alive


async def post(
    request: web.BaseRequest, connection: Connection, host: Host, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answer a POST, once all packets of its body have been handled one after the other."""
    task = asyncio.current_task()
    assert task is not None
    reading = True

    def abort() -> None:
        # The session has ended, so the rest of this body is not needed.
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
        # The session ends: no client cuts a POST off and goes on.
        connection.abort(DisconnectReason.TRANSPORT_ERROR)
    keep = _keeps(request)
    return RawResponse(post_response(header_lines(headers, keep=keep)), keep=keep)


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
    """Return the whole body; None: it is longer than `limit`. Raises ConnectionResetError, ProtocolError."""
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
    """Return the exception to raise instead of aiohttp's, which the request's body keeps."""
    break_circle(error)
    lost = isinstance(error, ConnectionError)
    return ConnectionResetError() if lost else ProtocolError("malformed body")


def bad_request(message: str, code: int) -> web.Response:
    """Return HTTP 400 with the reference server's error code."""
    return web.json_response({"code": code, "message": message}, status=400)


def _too_large() -> web.Response:
    return web.json_response({"code": 3, "message": "Payload too large"}, status=413)


async def send_early_response(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Send a response while the request's body is still coming, and end the connection.

    The rest of the body is read and dropped for LINGER seconds; else the peer's connection could be reset before it has
    read the response. aiohttp would keep its task for ten seconds, even if the connection were lost.
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
    """Read the rest of a body and drop it."""
    try:
        while not body.at_eof():
            await body.readany()
    except _BROKEN as error:
        break_circle(error)
