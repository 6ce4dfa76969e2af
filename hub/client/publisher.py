"""The synchronous publisher: a `HubClient` on a thread of its own, for code that has no loop.

Any number of threads may publish at once; each call returns when the hub has its message.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from hub.client.client import HubClient
from hub.errors import Unavailable
from hub.model import Published

WIND_UP = 5.0  # seconds that calls under way are given to end when their client is closed

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
        with self._lock:
            # Under the lock, so that nothing is submitted to a loop that has been stopped.
            published = self._submit(
                self._connected().publish(
                    room, event, data, id=id, volatile=volatile, ttl=ttl, echo=echo
                )
            )
        return _result(published)

    def close(self) -> None:
        """Disconnect and end the thread. Calls under way raise Unavailable, and any that follow."""
        with self._lock:
            self._closed = True
            self._stop()

    def __enter__(self) -> Self:
        with self._lock:
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
        """Return the client, connected; only under the lock."""
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
            self._client = _result(self._submit(self._connect()))
        except BaseException:
            self._stop()
            raise

    async def _connect(self) -> HubClient:
        return await HubClient(self._url, **self._options).connect()

    def _stop(self) -> None:
        if self._loop is None or self._owner != os.getpid():
            return
        _result(self._submit(self._wind_up()))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._client = None

    async def _wind_up(self) -> None:
        """Close the client, and see every call under way to its end."""
        if self._client is not None:
            await self._client.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            _, late = await asyncio.wait(left, timeout=WIND_UP)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop)


def _result(future: concurrent.futures.Future[T]) -> T:
    """Wait for what was submitted."""
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        raise Unavailable("the publisher is closed") from None
