"""One hub process: everything put together, started, watched over, drained and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import signal
from collections.abc import Callable

from aiohttp import web

from hub.api.socketio import SocketIOGateway
from hub.embedded.server import EmbeddedServer
from hub.engineio.core.state import CloseCode
from hub.engineio.http_errors import RequestHandler, answer_http_errors
from hub.engineio.options import EngineOptions
from hub.errors import HubError, Unavailable
from hub.node.node import Node
from hub.pubsub.session import Session
from hub.runtime import file_limit
from hub.runtime.app import build_app
from hub.runtime.listener import listen
from hub.settings import Settings
from hub.socketio.server import SocketIOServer

log = logging.getLogger("hub.runtime")

# Seconds between the groups in which clients are let go at the end.
DRAIN_STEP = 0.1
# Seconds that the last of them may take to fetch what was written to them. What they do not is replayed where they
# come back, so nothing but a reset connection is at stake.
GOODBYE_TIMEOUT = 1.0
# Seconds that Redis may take at the end; a session that is not parked is found in the logs all the same.
PARK_TIMEOUT = 3.0
# Seconds that HTTP requests still under way at the end may take.
SHUTDOWN_TIMEOUT = 2.0
# Seconds that an idle HTTP connection, or a request head that does not end, is kept; aiohttp's default is an hour.
IDLE_TIMEOUT = 75.0
# Seconds, at least, that a peer may take nothing of what was written to it; a session's pings end it no later.
LEAST_PATIENCE = 30.0
# Seconds that the rest of a refused body is read and thrown away, so that its sender sees the answer.
LINGERING_TIME = 0.5


class HubProcess:
    """The parts of one hub process: the node, Socket.IO on the engine, and the HTTP application."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        self.settings = settings
        self.node = Node(settings, redis_url)
        self.server = SocketIOServer(
            ping_interval=settings.ping_interval,
            ping_timeout=settings.ping_timeout,
            max_payload=settings.max_payload,
            buffer_high=settings.buffer_high,
            buffer_low=settings.buffer_low,
            # A replayed batch is written in one piece, whatever the buffer holds.
            buffer_limit=max(
                EngineOptions().buffer_limit, 4 * (settings.buffer_high + settings.replay_bytes)
            ),
            max_connections=file_limit.connections(settings.max_connections),
            max_lag=settings.max_lag,
            connections_per_address=settings.connections_per_address,
            newcomers_per_address=settings.newcomers_per_address,
            websocket_compression=settings.websocket_compression,
            http_compression=settings.http_compression,
            connect_timeout=settings.connect_timeout,
            upgrade_timeout=settings.upgrade_timeout,
            events_per_second=settings.events_per_second,
            max_packets=settings.max_packets,
            max_depth=settings.max_depth,
            cors=settings.origins,
            trusted_proxies=settings.proxies,
        )
        self.gateway = SocketIOGateway(self.node, self.server)
        self.app = build_app(self.node, self.server)

    # -- the end

    async def drain(self) -> None:
        """Let every client go, parked, evenly over the time that the settings give; nobody new comes in.

        A few go sooner: at least one each step.
        """
        self.server.eio.admission.refusing = True
        sessions, over = self.node.sessions, self.settings.drain
        clock = asyncio.get_running_loop().time
        began, total, gone = clock(), len(sessions), 0
        going: set[asyncio.Task[None]] = set()
        while sessions:
            passed = clock() - began + DRAIN_STEP
            share = max(1, round(total * passed / over) - gone) if passed < over else len(sessions)
            going.update(
                asyncio.create_task(self._drain_session(session))
                for session in itertools.islice(sessions, share)
            )
            gone += share
            await asyncio.sleep(DRAIN_STEP)
        if going:
            await asyncio.wait(going)
        await self.server.eio.shutdown(GOODBYE_TIMEOUT)

    async def _drain_session(self, session: Session) -> None:
        connection = self.server.eio.connections.get(session.connection)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARK_TIMEOUT):
                await self.node.sessions.detach(session, deliberate=False)
        if connection is not None:
            connection.close(CloseCode.RESTART)


async def serve(settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Run a hub until SIGTERM or SIGINT; `announce` is called with its URL once it accepts connections.

    Raises HubError where it cannot start.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for kind in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(kind, stopped.set)
    async with contextlib.AsyncExitStack() as stack:
        url = settings.redis_url
        if not url:
            embedded = EmbeddedServer(settings)
            stack.push_async_callback(embedded.stop)
            await embedded.start()
            url = embedded.url
        hub = HubProcess(settings, url)
        stack.push_async_callback(hub.node.stop)
        await hub.node.start()
        await stack.enter_async_context(hub.node.maintenance.run())
        runner = web.AppRunner(hub.app, handle_signals=False, shutdown_timeout=SHUTDOWN_TIMEOUT)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        assert runner.server is not None
        runner.server.request_handler = answer_http_errors(runner.server.request_handler)
        protocol = functools.partial(
            RequestHandler,
            runner.server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # what its own runner takes
            tcp_keepalive=False,  # `listen` sees to it
            keepalive_timeout=IDLE_TIMEOUT,
            lingering_time=LINGERING_TIME,
        )
        patience = max(settings.ping_interval + settings.ping_timeout, LEAST_PATIENCE)
        address = await listen(stack, protocol, settings.host, settings.port, patience)
        announce(_url(settings.host, address[1]))
        reasons = [
            asyncio.create_task(each) for each in (stopped.wait(), hub.node.tasks.wait_failed())
        ]
        await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
        for reason in reasons:
            reason.cancel()
        # Still listening: clients over polling, not let go yet, come with new TCP connections all the time.
        await hub.drain()
        with contextlib.suppress(HubError, TimeoutError):
            async with asyncio.timeout(PARK_TIMEOUT):
                await hub.node.store.release()
        if hub.node.tasks.failure is not None:
            raise Unavailable("a background task failed")
    log.info("stopped")


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
