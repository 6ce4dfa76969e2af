"""The synchronous publisher: a `HubClient` on a thread of its own, for code that has no loop.

Any number of threads may publish at once; each call returns when the hub has its message.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from hub.client.client import HubClient
from hub.errors import Unavailable
from hub.model import Published

T = TypeVar("T")


class Publisher:
    """Publishes into rooms from scripts and web backends.

    Takes what `HubClient` takes. Connects at the first call, and again in a forked process, whose
    parent's connection is not its own.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._url = url
        self._options = options
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: HubClient | None = None
        self._owner = 0
        self._closed = False

    def publish(
        self,
        room: str,
        event: str,
        data: Any,
        *,
        id: str | None = None,
        volatile: bool = False,
        ttl: float | None = None,
        echo: bool = True,
    ) -> Published:
        """Publish a message; see `HubClient.publish`. Raises a HubError."""
        client = self._connected()
        return self._wait(
            client.publish(room, event, data, id=id, volatile=volatile, ttl=ttl, echo=echo)
        )

    def close(self) -> None:
        """Disconnect and end the thread. No call can follow."""
        with self._lock:
            self._closed = True
            self._stop()

    def __enter__(self) -> Self:
        self._connected()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _connected(self) -> HubClient:
        with self._lock:
            if self._closed:
                raise Unavailable("the publisher is closed")
            if self._owner != os.getpid():
                self._loop = self._client = None
            elif self._client is not None and self._client.failure is not None:
                self._stop()
            if self._client is None:
                self._start()
            assert self._client is not None
            return self._client

    def _start(self) -> None:
        self._owner = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="hub-publisher", daemon=True
        )
        self._thread.start()
        try:
            self._client = self._wait(self._connect())
        except BaseException:
            self._stop()
            raise

    async def _connect(self) -> HubClient:
        return await HubClient(self._url, **self._options).connect()

    def _stop(self) -> None:
        if self._loop is None or self._owner != os.getpid():
            return
        if self._client is not None:
            self._wait(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._client = None

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise Unavailable("the publisher is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
