"""aiohttp's handler of one connection, with a bound on the head of a request; malformed HTTP stays out of log and memory.

For each malformed request aiohttp logs a traceback with the client's bytes. It also keeps the exception. The exception's
traceback holds the stack frames, and those hold all that was read, up to a megabyte. These are reference circles, which
only the garbage collector frees; and a few hundred small objects do not make it run.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD

logger = logging.getLogger("hub.engineio")

# The longest head of a request, in bytes; browsers and proxies fill it with cookies.
MAX_HEAD = 32 * 1024
# The most lines of a head.
MAX_HEADERS = 1000
HEAD_TOO_LARGE = f"The head of a request may have {MAX_HEAD // 1024} KiB, cookies included."
_HEAD_TOO_LARGE = (
    "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n"
    f"Content-Length: {len(HEAD_TOO_LARGE)}\r\nConnection: close\r\n\r\n{HEAD_TOO_LARGE}"
).encode()

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class MalformedRequests(logging.Filter):
    """Drops the log records of aiohttp's server about malformed requests; counts each, and logs a line at debug."""

    def __init__(self, counters: Counter[str]) -> None:
        super().__init__()
        self._counters = counters

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError | web.RequestPayloadError):
            return True
        self._counters["malformed HTTP"] += 1
        logger.debug("malformed HTTP: %s", type(error).__name__)
        return False

    def install(self, app: web.Application) -> None:
        """Filter aiohttp's logger until the application is cleaned up."""
        aiohttp = logging.getLogger("aiohttp.server")
        aiohttp.addFilter(self)

        async def remove(_: web.Application) -> None:
            aiohttp.removeFilter(self)

        app.on_cleanup.append(remove)


class RequestHandler(web.RequestHandler):
    """aiohttp's handler of one connection; it bounds heads, and keeps nothing of malformed requests."""

    __slots__ = ("_head_size", "_newest_body")

    def __init__(self, *args: Any, **options: Any) -> None:
        # aiohttp bounds one line of a head, and how many there are, and not the whole.
        super().__init__(
            *args,
            max_line_size=MAX_HEAD,
            max_field_size=MAX_HEAD,
            max_headers=MAX_HEADERS,
            **options,
        )
        # The body of the request that came last. Once it has ended, the next head begins.
        self._newest_body: StreamReader = EMPTY_PAYLOAD
        # Bytes of a head that has not ended.
        self._head_size = 0

    def data_received(self, data: bytes) -> None:
        before, in_head = self._request_count, self._newest_body.is_eof()
        super().data_received(data)
        if self._request_count != before:
            self._newest_body = self._messages[-1][1]
            self._head_size = 0
        elif in_head and not self._upgraded:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD and self.transport is not None:
                if self._current_request is None:
                    self.transport.write(_HEAD_TOO_LARGE)
                self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, LineTooLong):
            status, message = 431, HEAD_TOO_LARGE
        try:
            return ErrorResponse.like(super().handle_error(request, status, exc, message))
        finally:
            if exc is not None:
                break_circle(exc)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._newest_body = EMPTY_PAYLOAD  # a body refers to this object
        for message, _ in self._messages:
            # These errors are answered no more.
            if (error := getattr(message, "exc", None)) is not None:
                break_circle(error)


class ErrorResponse(web.Response):
    """The response to a request that no application gets to see; it does not tell aiohttp's version and Python's."""

    @classmethod
    def like(cls, response: web.StreamResponse) -> ErrorResponse:
        """Return a response like `response`, which ends the connection."""
        assert isinstance(response, web.Response)
        same = cls(body=response.body, status=response.status, headers=response.headers)
        same.force_close()
        return same

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall("Server", None)


def answer_http_errors(handle: Handle) -> Handle:
    """Return a handler that also answers the HTTP errors that `handle` raises, such as 404."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except web.HTTPException as error:
            break_circle(error)
            return web.Response(body=error.body, status=error.status, headers=error.headers)

    return answer


def break_circle(error: BaseException) -> None:
    """Remove the stack frames from an exception that somebody keeps."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
