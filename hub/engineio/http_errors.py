"""Keeps bad HTTP out of log and memory.

aiohttp writes a traceback with the client's bytes for each malformed request. And it keeps the exceptions that it makes
of bad ones, whose tracebacks keep the frames that met them: circles, which hold all that was read, up to a megabyte for
each, until the garbage collector is called for. A few hundred small objects do not call for it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

logger = logging.getLogger("hub.engineio")

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class MalformedRequests(logging.Filter):
    """Drops the records of aiohttp's server about them; counts them, and says so in a line at debug."""

    def __init__(self, counters: Counter[str]) -> None:
        super().__init__()
        self._counters = counters

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be logged."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError | web.RequestPayloadError):
            return True
        self._counters["malformed HTTP"] += 1
        logger.debug("malformed HTTP: %s", type(error).__name__)
        return False

    def install(self, app: web.Application) -> None:
        """Stand before aiohttp's logger until the application is cleaned up."""
        aiohttp = logging.getLogger("aiohttp.server")
        aiohttp.addFilter(self)

        async def remove(_: web.Application) -> None:
            aiohttp.removeFilter(self)

        app.on_cleanup.append(remove)


class Handler(web.RequestHandler):
    """aiohttp's handler of one connection, keeping nothing of bad requests."""

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
            # Nobody is going to be told of these.
            if (error := getattr(message, "exc", None)) is not None:
                break_circle(error)


def answering(handle: Answer) -> Answer:
    """Return a handler that answers what `handle` raises as an HTTP error, such as a path that is not there."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except web.HTTPException as error:
            break_circle(error)
            return web.Response(body=error.body, status=error.status, headers=error.headers)

    return answer


def break_circle(error: BaseException) -> None:
    """Let an exception that somebody keeps hold nothing of where it was met."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
