"""aiohttp's server of one hub process: its connections, their bounds, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator

from aiohttp import web

from hub.engineio.http_errors import RequestHandler, answer_http_errors
from hub.engineio.server import EngineServer
from hub.runtime.host_names import HostCheck, served_hosts
from hub.runtime.listener import bind, listen
from hub.settings import Settings

# Seconds that HTTP requests in progress have to end when the server closes.
SHUTDOWN_TIMEOUT = 2.0
# Seconds after which an idle connection, or one whose request head does not end, is closed; aiohttp's default is an hour.
IDLE_TIMEOUT = 75.0
# Seconds for which the rest of a refused body is read and dropped, so that its sender receives the response.
LINGERING_TIME = 0.5
# Seconds after which a connection is cut whose peer takes nothing of what was written to it. If a session's ping interval
# and timeout are longer together, it is their sum.
MIN_WRITE_TIMEOUT = 30.0


@contextlib.asynccontextmanager
async def http_server(
    app: web.Application, settings: Settings, engine: EngineServer
) -> AsyncIterator[int]:
    """Serve an application on the addresses and the port of the settings; yield the port. Raises Unavailable.

    Requests for hosts that are not served are refused; `engine` counts and logs them.
    """
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=SHUTDOWN_TIMEOUT)
    await runner.setup()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        assert runner.server is not None
        sockets = await bind(settings.listening_names, settings.port)
        handle = answer_http_errors(runner.server.request_handler)
        served = served_hosts(settings, (each.getsockname()[0] for each in sockets))
        if served is not None:
            handle = HostCheck(served, settings, engine.counters, engine.refusals).checked(handle)
        runner.server.request_handler = handle
        protocol = functools.partial(
            RequestHandler,
            runner.server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # as aiohttp's runner passes it on
            tcp_keepalive=False,  # `listen` sets it
            keepalive_timeout=IDLE_TIMEOUT,
            lingering_time=LINGERING_TIME,
        )
        write_timeout = max(settings.ping_interval + settings.ping_timeout, MIN_WRITE_TIMEOUT)
        await listen(stack, protocol, sockets, write_timeout)
        yield sockets[0].getsockname()[1]
