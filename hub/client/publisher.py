"""The synchronous publisher: a `HubClient` on a thread of its own, for code without an event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from hub.client.client import HubClient, Transport
from hub.errors import Unavailable
from hub.model import Published

CLOSE_TIMEOUT = 5.0  # seconds for calls in progress to end when their client is closed

T = TypeVar("T")


class Publisher:
    """Publishes into rooms from scripts and web backends.

    Connects at the first call, and again in a forked process, which cannot use its parent's connection.
    Any number of threads may publish at once. The arguments are those of `HubClient`, with the same errors.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str | None = None,
        token: str | None = None,
        transports: Sequence[Transport] | None = None,
        timeout: float = 30.0,
        answer_timeout: float = 10.0,
    ) -> None:
        def make_client() -> HubClient:
            return HubClient(
                url,
                client_id=client_id,
                token=token,
                transports=transports,
                timeout=timeout,
                answer_timeout=answer_timeout,
            )

        make_client()  # raises here and not in `publish`
        self._make_client = make_client
        # Held for short times only: never while a connection is made or a message published.
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: HubClient | None = None
        # The process that connected, as a forked one is another.
        self._process_id = 0
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
        """Publish a message, and return when the hub has accepted it; see `HubClient.publish`.

        Raises a HubError: Unavailable after `timeout`, of which the time to connect is a part.
        """
        with self._lock:
            # Submitted under the lock, because `close` stops the loop.
            published = self._submit(
                self._started_client().publish(
                    room, event, data, id=id, volatile=volatile, ttl=ttl, echo=echo
                )
            )
        return _wait(published)

    def close(self) -> None:
        """Disconnect and end the thread. Calls in progress and later ones raise Unavailable."""
        with self._lock:
            self._closed = True
            self._stop_thread()

    def __enter__(self) -> Self:
        with self._lock:
            connected = self._submit(self._started_client().wait_connected())
        try:
            _wait(connected)
        except BaseException:
            with self._lock:
                self._stop_thread()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _started_client(self) -> HubClient:
        """Return the client, which connects by itself. To be called under the lock."""
        if self._closed:
            raise Unavailable("the publisher is closed")
        if self._process_id != os.getpid():
            self._loop = self._client = None
        elif self._client is not None and self._client.failure is not None:
            self._stop_thread()
        if self._client is None:
            self._start_thread()
        assert self._client is not None
        return self._client

    def _start_thread(self) -> None:
        self._process_id = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="hub-publisher", daemon=True
        )
        self._thread.start()
        self._client = _wait(self._submit(self._start_client()))

    async def _start_client(self) -> HubClient:
        return await self._make_client().connect(wait=False)

    def _stop_thread(self) -> None:
        if self._loop is None or self._process_id != os.getpid():
            return
        _wait(self._submit(self._close_client()))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._client = None

    async def _close_client(self) -> None:
        """Close the client, and wait until every call in progress has ended."""
        if self._client is not None:
            await self._client.close()
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        if calls:
            _, late = await asyncio.wait(calls, timeout=CLOSE_TIMEOUT)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop)


def _wait(future: concurrent.futures.Future[T]) -> T:
    """Wait for submitted work, and return its result. Raises Unavailable where `close` cancelled it."""
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        raise Unavailable("the publisher is closed") from None
    except KeyboardInterrupt:
        future.cancel()
        raise
