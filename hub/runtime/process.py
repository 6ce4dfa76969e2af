"""One hub process: how it starts, serves, drains and stops."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import hub
from hub.api.socketio import SocketIOGateway
from hub.embedded.server import EmbeddedServer
from hub.engineio.core.state import CloseCode
from hub.errors import HubError
from hub.node.node import Node
from hub.pubsub.session import Session
from hub.runtime.app import build_app
from hub.runtime.engine_options import engine_options
from hub.runtime.file_limit import allowed_connections
from hub.runtime.http_server import http_server
from hub.settings import Settings, without_password
from hub.socketio.server import SocketIOServer
from hub.tasks import BackgroundTasks

log = logging.getLogger("hub.runtime")

# Seconds between the groups of clients that a drain disconnects.
DRAIN_STEP = 0.1
# Seconds that drained clients have to fetch what was written to them. What they do not fetch is replayed when they
# reconnect elsewhere.
FLUSH_TIMEOUT = 1.0
# Seconds for Redis, at the end, to park a session or to release the lease. Without it, the session's messages are
# still in the logs, and another process parks it when the lease has run out.
REDIS_TIMEOUT = 3.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Exit statuses.
FAILED, INTERRUPTED = 1, 130


async def serve(settings: Settings, *, announce: Callable[[str], None]) -> int:
    """Run a hub until SIGTERM or SIGINT; `announce` is called with its URLs once it accepts connections.

    Return the exit status: 0; FAILED where a vital task failed, which has been logged; INTERRUPTED where SIGINT ended the
    drain. Raises HubError where the hub cannot start or listen.
    """
    signals = StopSignals()
    tasks = BackgroundTasks()
    try:
        async with _redis_url(settings, tasks) as url:
            process = HubProcess(settings, url, tasks)
            async with (
                process.started(),
                http_server(process.app, settings, process.server.eio) as port,
            ):
                announce(" and ".join(_http_urls(settings, port)))
                process.log_start()
                signals.started = True
                await process.wait_until(signals.stop_requested)
                signals.stop_requested.set()
                # Still listening: polling clients that are not drained yet keep making TCP connections.
                await process.drain()
                await process.release_lease()
    except asyncio.CancelledError:
        if not signals.obeyed:
            raise
        signals.obeyed.uncancel()
        if signals.started:
            log.warning("stopped before the drain was done")
            return INTERRUPTED
    signals.end()
    log.info("stopped")
    return 0 if tasks.failure is None else FAILED


class StopSignals:
    """What SIGTERM and SIGINT do to the task that made this object.

    While the hub starts, either of them ends it. Once it serves, the first one begins the drain, and a SIGINT after that
    ends the drain. A SIGTERM after the first signal changes nothing: some supervisors send both.
    """

    def __init__(self) -> None:
        self.stop_requested = asyncio.Event()
        # True: the hub serves.
        self.started = False
        # The task, once a signal has ended it.
        self.obeyed: asyncio.Task[Any] | None = None
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        for kind in STOP_SIGNALS:
            self._loop.add_signal_handler(kind, self._on_signal, kind)

    def end(self) -> None:
        """Ignore SIGTERM from now on, unless a signal has ended the task: the interpreter takes a moment to end, and the status stays 0."""
        if self.obeyed is None:
            self._loop.remove_signal_handler(signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _on_signal(self, kind: signal.Signals) -> None:
        if self.started and not self.stop_requested.is_set():
            self.stop_requested.set()
        elif not self.started or kind == signal.SIGINT:
            self.obeyed = self._task
            assert self.obeyed is not None
            self.obeyed.cancel()
            # The next signal ends the process, even if something hangs.
            for each in STOP_SIGNALS:
                self._loop.remove_signal_handler(each)


@contextlib.asynccontextmanager
async def _redis_url(settings: Settings, tasks: BackgroundTasks) -> AsyncIterator[str]:
    """Yield the URL of the Redis to use: the one set, or that of the embedded server, which runs meanwhile."""
    if settings.redis_url:
        yield settings.redis_url
        return
    embedded = EmbeddedServer(settings, tasks)
    try:
        await embedded.start()
        yield embedded.url
    finally:
        await embedded.stop()


class HubProcess:
    """The parts of one hub process: the node, Socket.IO on the engine, and the HTTP application."""

    def __init__(self, settings: Settings, redis_url: str, tasks: BackgroundTasks) -> None:
        self.settings = settings
        self.node = Node(settings, redis_url, tasks=tasks)
        options = engine_options(settings, allowed_connections(settings.max_connections))
        self.server = SocketIOServer(**dataclasses.asdict(options))
        self.gateway = SocketIOGateway(self.node, self.server)
        self.app = build_app(settings, self.node, self.server)

    @contextlib.asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """Connect to Redis and keep the lease; stop at the end. Raises HubError where it cannot start."""
        try:
            await self.node.start()
            async with self.node.maintenance.run():
                yield
        finally:
            await self.node.stop()

    def log_start(self) -> None:
        """Log what an operator wants to know of a process that begins to serve."""
        settings, server = self.settings, self.node.store.server
        where = without_password(settings.redis_url) if settings.redis_url else "embedded"
        log.info(
            "started",
            extra={
                "version": hub.__version__,
                "redis": f"{server.product}, {where}",
                "persistence": server.persistence,
                "origins": ", ".join(settings.origins) or "the hub's own pages only",
            },
        )

    async def wait_until(self, stop_requested: asyncio.Event) -> None:
        """Wait until `stop_requested` is set or a vital task has failed."""
        reasons = [
            asyncio.create_task(each)
            for each in (stop_requested.wait(), self.node.tasks.wait_failed())
        ]
        await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
        for reason in reasons:
            reason.cancel()

    async def drain(self) -> None:
        """Admit no new client, park all sessions, and disconnect their clients so that they reconnect elsewhere.

        They are disconnected evenly over `drain` seconds, at least one in each DRAIN_STEP. A drain that is cancelled cuts
        those that are left.
        """
        try:
            await self._drain()
        except asyncio.CancelledError:
            await self.server.eio.shutdown(0.0)
            raise

    async def _drain(self) -> None:
        self.server.eio.admission.refusing = True
        sessions, duration = self.node.sessions, self.settings.drain
        clock = asyncio.get_running_loop().time
        began, total, drained = clock(), len(sessions), 0
        draining: set[asyncio.Task[None]] = set()
        while sessions:
            passed = clock() - began + DRAIN_STEP
            count = len(sessions)
            if passed < duration:
                count = max(1, round(total * passed / duration) - drained)
            draining.update(
                asyncio.create_task(self._drain_session(session))
                for session in itertools.islice(sessions, count)
            )
            drained += count
            await asyncio.sleep(DRAIN_STEP)
        if draining:
            await asyncio.wait(draining)
        await self.server.eio.shutdown(FLUSH_TIMEOUT)

    async def _drain_session(self, session: Session) -> None:
        """Park one session, and disconnect its client."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REDIS_TIMEOUT):
                await self.node.sessions.detach(session, deliberate=False)
        session.connection.close(CloseCode.RESTART)

    async def release_lease(self) -> None:
        """Let no other process wait for this one's lease to run out."""
        with contextlib.suppress(HubError, TimeoutError):
            async with asyncio.timeout(REDIS_TIMEOUT):
                await self.node.store.leases.release()


def _http_urls(settings: Settings, port: int) -> Iterator[str]:
    """Yield the page's URL for each address or name that the hub listens on."""
    for name in settings.listening_names:
        host = f"[{name}]" if ":" in name else name
        yield f"http://{host}:{port}{settings.url_prefix}/"
