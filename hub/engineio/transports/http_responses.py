"""HTTP responses of the polling transport as bytes, each written in one piece."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from http import HTTPStatus

from aiohttp import web

# Payloads of up to this many characters are cached for the next client: a message of a room has many readers.
_CACHED = 16 * 1024


def poll_response(text: str, headers: bytes, zip_from: int | None) -> bytes:
    """Return the response 200 to a GET; a payload of at least `zip_from` bytes is compressed (None: none is)."""
    make = _cached_payload if len(text) <= _CACHED else _payload
    return _head(HTTPStatus.OK, int(time.time())) + make(text, headers, zip_from)


def refusal_response(message: str, code: int, headers: bytes) -> bytes:
    """Return the response 400 with the reference server's error code."""
    body = json.dumps({"code": code, "message": message}).encode()
    return _head(HTTPStatus.BAD_REQUEST, int(time.time())) + _rest(
        b"application/json", headers, body
    )


def post_response(headers: bytes) -> bytes:
    """Return the response 200 to a POST."""
    return _head(HTTPStatus.OK, int(time.time())) + _rest(b"text/html", headers, b"ok")


def header_lines(headers: Mapping[str, str], *, keep: bool) -> bytes:
    """Return header lines. Their values come from parsed requests, so they hold no line end.

    `keep`: the connection stays open after the response.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return lines.encode() if keep else lines.encode() + b"Connection: close\r\n"


class RawResponse(web.StreamResponse):
    """A finished response for aiohttp to write.

    `keep`: the connection stays open after it. `written` is called when it was written.
    """

    def __init__(
        self, data: bytes, *, keep: bool, written: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self._data = data
        self._written = written
        self._keep = keep

    @property
    def keep_alive(self) -> bool:
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        transport.write(self._data)
        if self._written is not None:
            self._written()
        await request.writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: all is written."""


class Detached(web.StreamResponse):
    """Tells aiohttp to write nothing: the TCP connection is no longer aiohttp's."""

    async def prepare(self, request: web.BaseRequest) -> None:
        raise ConnectionResetError


@lru_cache(maxsize=2)
def _head(status: HTTPStatus, now: int) -> bytes:
    """Return the lines that are the same in all responses of one second."""
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now))
    return f"HTTP/1.1 {status.value} {status.phrase}\r\nDate: {date}\r\n".encode()


def _payload(text: str, headers: bytes, zip_from: int | None) -> bytes:
    body = text.encode()
    headers = b"Cache-Control: no-store\r\n" + headers
    if zip_from is not None and len(body) >= zip_from:
        body = gzip.compress(body, 1)
        headers += b"Content-Encoding: gzip\r\n"
    return _rest(b"text/plain", headers, body)


_cached_payload = lru_cache(maxsize=32)(_payload)


def _rest(kind: bytes, headers: bytes, body: bytes) -> bytes:
    return b"Content-Type: %b; charset=utf-8\r\n%bContent-Length: %d\r\n\r\n%b" % (
        kind,
        headers,
        len(body),
        body,
    )
