"""Keeps malformed HTTP out of the log: aiohttp writes a traceback with the client's bytes for each."""

from __future__ import annotations

import logging
from collections import Counter

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

logger = logging.getLogger("hub.engine")


class MalformedRequests(logging.Filter):
    """Drops such records of aiohttp's server; counts them, and says so in a line at debug."""

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
