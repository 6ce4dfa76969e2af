"""Keeps malformed HTTP out of the log and out of memory.

For each malformed request aiohttp logs a traceback with the client's bytes. It also keeps the exception. The exception's
traceback holds the stack frames, and those hold all that was read, up to a megabyte. These are reference circles, which
only the garbage collector frees; and a few hundred small objects do not make it run.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

logger = logging.getLogger("hub.engineio")

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
    """aiohttp's handler of one connection; it keeps nothing of malformed requests."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        try:
            return super().handle_error(request, status, exc, message)
        finally:
            if exc is not None:
                break_circle(exc)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        for message, _ in self._messages:
            # These errors are answered no more.
            if (error := getattr(message, "exc", None)) is not None:
                break_circle(error)


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
