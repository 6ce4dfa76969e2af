"""An Engine.IO server that sends every message back, for the protocol's suites.

From the repository: python -m tests.conformance.engineio_server --port 3000
"""

from __future__ import annotations

import argparse

from aiohttp import web

from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.options import EngineOptions
from hub.engineio.server import EngineServer


def application(options: EngineOptions) -> tuple[web.Application, EngineServer]:
    """Return the application with the echo server under /engine.io/, and the server."""
    engine = EngineServer(options)

    @engine.on("message")
    def message(sid: str, data: str | bytes) -> None:
        engine.connections[sid].send(PreparedMessage(data))

    async def shutdown(_app: web.Application) -> None:
        await engine.shutdown()

    app = web.Application()
    app.on_shutdown.append(shutdown)
    engine.attach(app, "engine.io")
    return app, engine


def arguments() -> argparse.ArgumentParser:
    """Return the parser of what both conformance servers take."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--ping-interval", type=float, default=0.3)
    parser.add_argument("--ping-timeout", type=float, default=0.2)
    parser.add_argument("--max-payload", type=int, default=1_000_000)
    parser.add_argument("--connect-timeout", type=float, default=1.0)
    return parser


def options(given: argparse.Namespace, connect_timeout: float) -> EngineOptions:
    """Return the engine's options for the command line."""
    return EngineOptions(
        ping_interval=given.ping_interval,
        ping_timeout=given.ping_timeout,
        max_payload=given.max_payload,
        connect_timeout=connect_timeout,
        cors=("*",),
    )


def main() -> None:
    """Serve until interrupted."""
    given = arguments().parse_args()
    # There is no Socket.IO CONNECT to wait for.
    app, _ = application(options(given, connect_timeout=0))
    web.run_app(app, host=None, port=given.port, print=None)


if __name__ == "__main__":
    main()
