"""The WebSocket handshake: takes a TCP connection over from aiohttp's handler (RFC 6455 §4).

From then on asyncio calls the `WebSocket` protocol directly. An idle connection has no task, no timer and none of
aiohttp's objects, and a write is one `transport.write`.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from base64 import b64decode, b64encode
from hashlib import sha1

from aiohttp import web
from multidict import CIMultiDictProxy

from hub.engineio.core.connection import Connection
from hub.engineio.core.interfaces import Host
from hub.engineio.transports.websocket import WebSocket

# A word in a header (RFC 9110 §5.6.2).
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def check_handshake(request: web.BaseRequest) -> str | None:
    """Return the Sec-WebSocket-Key; None: the request is no WebSocket handshake."""
    headers = request.headers
    if headers.get("Upgrade", "").strip().lower() != "websocket":
        return None
    # Some proxies add a header line instead of changing the client's.
    tokens = {token.strip().lower() for token in _all(headers, "Connection").split(",")}
    if "upgrade" not in tokens or headers.get("Sec-WebSocket-Version", "").strip() != "13":
        return None
    key = headers.get("Sec-WebSocket-Key", "").strip()
    try:
        if len(b64decode(key, validate=True)) != 16:
            return None
    except (binascii.Error, ValueError):
        return None
    return key


def _all(headers: CIMultiDictProxy[str], name: str) -> str:
    """Return the values of all header lines of one name, joined as if they had been one line."""
    return ",".join(headers.getall(name, ()))


def subprotocol_line(request: web.BaseRequest) -> bytes:
    """Return the header line that accepts the first subprotocol that the client offers; empty: it offers none.

    Clients that offer some end the connection if none is accepted, browsers among them. To the hub they mean nothing.
    """
    offered = _all(request.headers, "Sec-WebSocket-Protocol").partition(",")[0].strip()
    if not _TOKEN.fullmatch(offered):
        return b""
    return b"Sec-WebSocket-Protocol: %b\r\n" % offered.encode()


def wants_deflate(request: web.BaseRequest) -> bool:
    """Return whether the client offers permessage-deflate in a form that this engine supports."""
    for offer in request.headers.get("Sec-WebSocket-Extensions", "").split(","):
        name, *parameters = (part.strip().lower() for part in offer.split(";"))
        if name != "permessage-deflate":
            continue
        known = {"client_no_context_takeover", "server_no_context_takeover"}
        for parameter in parameters:
            key = parameter.partition("=")[0].strip()
            if key not in known and key != "client_max_window_bits":
                break
        else:
            return True
    return False


def take_over(request: web.BaseRequest) -> tuple[asyncio.Transport, bytes] | None:
    """Take the TCP connection from aiohttp's handler; return it and the input after the request. None: it is lost.

    This uses private parts of aiohttp. The handler is called as if its connection were lost, so that it ends and
    releases its parser, request and task.
    """
    handler = request.protocol
    transport = handler.transport
    if transport is None or transport.is_closing():
        return None
    tail: bytes = handler._message_tail
    handler._message_tail = b""
    handler.transport = None
    handler.connection_lost(None)
    return transport, tail


def accept(
    request: web.BaseRequest, key: str, host: Host, connection: Connection | None
) -> tuple[WebSocket, bytes, bytes] | None:
    """Return the WebSocket, the response 101 to write to it first, and the input for `start_reading`."""
    deflate = host.options.websocket_compression and wants_deflate(request)
    taken_over = take_over(request)
    if taken_over is None:
        return None
    transport, tail = taken_over
    digest = b64encode(sha1(key.encode() + _GUID, usedforsecurity=False).digest())
    extension = (
        b"Sec-WebSocket-Extensions: permessage-deflate; "
        b"server_no_context_takeover; client_no_context_takeover\r\n"
        if deflate
        else b""
    )
    response = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: "
        + digest
        + b"\r\n"
        + subprotocol_line(request)
        + extension
        + b"\r\n"
    )
    socket = WebSocket(host, transport, connection, deflate=deflate)
    transport.set_protocol(socket)
    return socket, response, tail
