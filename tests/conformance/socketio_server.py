"""A Socket.IO server with the namespaces and events that the protocol's suites expect."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from hub.engineio.options import EngineOptions
from hub.socketio.server import SocketIOServer
from tests.conformance.engineio_server import arguments, options

NAMESPACES = ("/", "/custom")


def application(engine_options: EngineOptions) -> tuple[web.Application, SocketIOServer]:
    """Return the application with the server under /socket.io/, and the server."""
    server = SocketIOServer(options=engine_options)

    def serve(namespace: str) -> None:
        @server.on("connect", namespace=namespace)
        async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
            # Runs after this handler, so after the CONNECT reply.
            server.start_background_task(
                server.emit, "auth", {} if auth is None else auth, to=sid, namespace=namespace
            )

        @server.on("message", namespace=namespace)
        async def message(sid: str, *arguments: Any) -> None:
            await server.emit("message-back", arguments, to=sid, namespace=namespace)

        @server.on("message-with-ack", namespace=namespace)
        async def message_with_ack(sid: str, *arguments: Any) -> Any:
            return arguments

    for namespace in NAMESPACES:
        serve(namespace)

    async def shutdown(_app: web.Application) -> None:
        await server.shutdown()

    app = web.Application()
    app.on_shutdown.append(shutdown)
    server.attach(app, "socket.io")
    return app, server


def main() -> None:
    """Serve until interrupted."""
    given = arguments().parse_args()
    app, _ = application(options(given, connect_timeout=given.connect_timeout))
    web.run_app(app, host=None, port=given.port, print=None)


if __name__ == "__main__":
    main()
